//! What a peer may not say after its handshake, each with the error that names it.

use rustls::AlertDescription;

use super::{
    super::{
        content::{ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, LAST_KNOWN_TYPE, RecordError},
        schedule::Side,
    },
    peer,
};
use crate::slab::{MAX_RECORD_LEN, SLOT_LEN};

/// What a peer sends: records sealed as they must be, and bytes as they are.
enum Says {
    Sealed(u8, Vec<u8>),
    Plain(Vec<u8>),
}

use Says::{Plain, Sealed};

/// How many bytes of data `side` takes of what its peer says.
fn taken(side: Side, says: &[Says]) -> Result<usize, RecordError> {
    peer::taken(side, |peer| {
        for said in says {
            match said {
                Sealed(kind, content) => peer.send(*kind, content, 0),
                Plain(bytes) => peer.wire.extend_from_slice(bytes),
            }
        }
    })
}

fn handshake(bytes: &[u8]) -> Says {
    Sealed(HANDSHAKE, bytes.to_vec())
}

fn alert(level: u8, description: AlertDescription) -> Says {
    Sealed(ALERT, vec![level, description.into()])
}

/// A message of which most is still to come.
fn begun() -> Says {
    handshake(&[4, 0, 1, 0, 7])
}

fn change_cipher_spec() -> Says {
    Plain(vec![CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1])
}

fn header(kind: u8, major: u8, length: usize) -> Says {
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    Plain(vec![kind, major, 3, high, low])
}

fn ended(description: AlertDescription, answer: Option<AlertDescription>) -> RecordError {
    RecordError::Alert { description, answer }
}

#[test]
fn each_thing_that_may_not_be_said_is_refused_by_its_name() {
    use AlertDescription::{CloseNotify, DecodeError, HandshakeFailure, IllegalParameter, UserCanceled};
    let longest = MAX_RECORD_LEN - 5;
    let rows: Vec<(&str, Vec<Says>, RecordError)> = vec![
        (
            "data within a message",
            vec![begun(), Sealed(APPLICATION_DATA, vec![1])],
            RecordError::Interleaved(23),
        ),
        ("an alert within a message", vec![begun(), alert(1, UserCanceled)], RecordError::Interleaved(21)),
        ("an end within a message", vec![begun(), alert(1, CloseNotify)], RecordError::Interleaved(21)),
        ("a change of ciphers", vec![change_cipher_spec()], RecordError::ChangeCipherSpec),
        ("a change of ciphers within a message", vec![begun(), change_cipher_spec()], RecordError::BadMac),
        (
            "an empty record of another type",
            vec![header(CHANGE_CIPHER_SPEC, 3, 0)],
            RecordError::Header { kind: 20, version: 3 },
        ),
        (
            "a type below all",
            vec![header(CHANGE_CIPHER_SPEC - 1, 3, 1)],
            RecordError::Header { kind: 19, version: 3 },
        ),
        (
            "a type above all",
            vec![header(LAST_KNOWN_TYPE + 1, 3, 1)],
            RecordError::Header { kind: 25, version: 3 },
        ),
        (
            "another version",
            vec![header(APPLICATION_DATA, 4, 1)],
            RecordError::Header { kind: 23, version: 4 },
        ),
        (
            "a first byte that is no type",
            vec![Plain(vec![b'G'])],
            RecordError::Header { kind: b'G', version: 3 },
        ),
        (
            "a length above all",
            vec![header(APPLICATION_DATA, 3, longest + 1)],
            RecordError::Overflow(longest + 1),
        ),
        (
            "more than a record holds",
            vec![Sealed(APPLICATION_DATA, vec![1; SLOT_LEN + 1])],
            RecordError::Overflow(SLOT_LEN + 2),
        ),
        ("no content type", vec![Sealed(0, Vec::new())], RecordError::NoContentType),
        ("a type that may not be inside", vec![Sealed(CHANGE_CIPHER_SPEC, vec![1])], RecordError::Type(20)),
        ("a message of no bytes", vec![handshake(&[])], RecordError::EmptyHandshake),
        ("a hello", vec![handshake(&[1, 0, 0, 1, 0])], RecordError::Message(1)),
        ("a key update of two bytes", vec![handshake(&[24, 0, 0, 2, 0, 0])], RecordError::KeyUpdateLen(2)),
        (
            "a key update of more bytes",
            vec![handshake(&[24, 1, 0, 1, 0])],
            RecordError::KeyUpdateLen(0x1_0001),
        ),
        ("a key update of 2", vec![handshake(&[24, 0, 0, 1, 2])], RecordError::KeyUpdate(2)),
        ("a key update and more", vec![handshake(&[24, 0, 0, 1, 0, 4])], RecordError::KeyUpdateNotLast),
        (
            "a ticket that is too long",
            vec![handshake(&[4, 1, 0, 1, 0])],
            RecordError::MessageTooLong(0x1_0001),
        ),
        (
            "a ticket that is too long by a byte, and begins",
            vec![handshake(&[4, 1, 0, 0, 7])],
            RecordError::MessageTooLong(0x1_0000),
        ),
        ("half an alert", vec![Sealed(ALERT, vec![2])], RecordError::BadAlert(1)),
        ("an alert of three bytes", vec![Sealed(ALERT, vec![1, 0, 0])], RecordError::BadAlert(3)),
        ("a fatal alert", vec![alert(2, HandshakeFailure)], ended(HandshakeFailure, None)),
        (
            "a warning that is none of TLS 1.3",
            vec![alert(1, HandshakeFailure)],
            ended(HandshakeFailure, Some(DecodeError)),
        ),
        (
            "an alert of no level",
            vec![alert(3, HandshakeFailure)],
            ended(HandshakeFailure, Some(IllegalParameter)),
        ),
        ("a fifth warning", (0..5).map(|_| alert(1, UserCanceled)).collect(), RecordError::TooManyWarnings),
    ];
    for (what, says, error) in rows {
        assert_eq!(taken(Side::Client, &says), Err(error), "{what}");
    }
    let ticket = handshake(&[4, 0, 0, 1, 7]);
    assert_eq!(taken(Side::Server, &[ticket]), Err(RecordError::Message(4)), "a ticket of a client");
}

#[test]
fn what_is_just_within_is_taken() {
    let data = || Sealed(APPLICATION_DATA, vec![1]);
    let warnings = (0..4).map(|_| alert(1, AlertDescription::UserCanceled));
    let rows = [
        ("half of another version", vec![Plain(vec![APPLICATION_DATA, 4])], 0),
        ("a full record", vec![Sealed(APPLICATION_DATA, vec![1; SLOT_LEN])], SLOT_LEN),
        ("the longest that may come", vec![data(), header(APPLICATION_DATA, 3, MAX_RECORD_LEN - 5)], 1),
        ("a ticket in parts", vec![handshake(&[4]), handshake(&[0, 0, 2, 7]), handshake(&[7]), data()], 1),
        ("the longest ticket begins", vec![data(), handshake(&[4, 0, 0xff, 0xff])], 1),
        ("two tickets in one record", vec![handshake(&[4, 0, 0, 1, 7, 4, 0, 0, 1, 7]), data()], 1),
        ("four warnings", warnings.chain([data()]).collect(), 1),
        ("an end", vec![data(), alert(1, AlertDescription::CloseNotify), Plain(vec![0; 9])], 1),
        ("a fatal end", vec![data(), alert(2, AlertDescription::CloseNotify), data()], 1),
    ];
    for (what, says, bytes) in rows {
        assert_eq!(taken(Side::Client, &says), Ok(bytes), "{what}");
    }
}
