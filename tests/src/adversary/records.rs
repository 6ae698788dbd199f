//! The table of hostile records: what a peer whose handshake was good says afterwards.

use anyhow::Result;

use super::{
    ALERT, CHANGE_CIPHER_SPEC, DATA, Ending, HANDSHAKE, handshakes::Row, message, record, session::Session,
    throw,
};

const CLIENT_HELLO: u8 = 1;
const HELLO_REQUEST: u8 = 0;
const NEW_SESSION_TICKET: u8 = 4;
const CERTIFICATE: u8 = 11;
const CERTIFICATE_REQUEST: u8 = 13;
const KEY_UPDATE: u8 = 24;

const BAD_RECORD_MAC: Ending = Ending::Alert(20);
const DECODE_ERROR: Ending = Ending::Alert(50);
const ILLEGAL_PARAMETER: Ending = Ending::Alert(47);
const RECORD_OVERFLOW: Ending = Ending::Alert(22);
const UNEXPECTED_MESSAGE: Ending = Ending::Alert(10);

/// Far more in a row than is taken of anything that carries no data.
const MANY: usize = 1_000;

/// What the adversary does, the reason, and the alert that it is told.
pub type Says = Row<fn(&mut Session) -> Result<()>>;

const fn says(name: &'static str, ends: Ending, act: fn(&mut Session) -> Result<()>) -> Says {
    Row { name, reason: "tls_failed", ends, act }
}

fn key_update(session: &mut Session, asked: u8) -> Result<()> {
    session.say(HANDSHAKE, &message(KEY_UPDATE, &[asked]))?;
    session.update()
}

/// A ticket of another mesh: nobody asks what is in it.
fn ticket() -> Vec<u8> {
    message(NEW_SESSION_TICKET, &[&[0, 0, 14, 16, 1, 2, 3, 4, 1, 0, 0, 32][..], &[8; 32], &[0, 0]].concat())
}

/// What either side may say.
#[rustfmt::skip]
pub const OF_BOTH: &[Says] = &[
    says("key updates without an end", UNEXPECTED_MESSAGE, |session| (0..MANY).try_for_each(|_| key_update(session, 0))),
    says("key updates without an end, each to be answered", UNEXPECTED_MESSAGE, |session| (0..MANY).try_for_each(|_| key_update(session, 1))),
    says("empty records without an end", UNEXPECTED_MESSAGE, |session| (0..MANY).try_for_each(|_| session.say(DATA, &[]))),
    says("key updates and empty records in turns without an end", UNEXPECTED_MESSAGE, |session| (0..MANY).try_for_each(|_| {
        session.say(DATA, &[])?;
        key_update(session, 0)
    })),
    says("a key update that says neither yes nor no", ILLEGAL_PARAMETER, |session| session.say(HANDSHAKE, &message(KEY_UPDATE, &[2]))),
    says("a key update of two bytes", DECODE_ERROR, |session| session.say(HANDSHAKE, &message(KEY_UPDATE, &[0, 0]))),
    says("two key updates in one record", UNEXPECTED_MESSAGE, |session| session.say(HANDSHAKE, &message(KEY_UPDATE, &[0]).repeat(2))),
    says("a key update, and the old key", BAD_RECORD_MAC, |session| {
        session.say(HANDSHAKE, &message(KEY_UPDATE, &[0]))?;
        session.say(DATA, b"under the old key")
    }),
    says("a key update, and another certificate", UNEXPECTED_MESSAGE, |session| {
        key_update(session, 0)?;
        session.say(HANDSHAKE, &message(CERTIFICATE, &[0, 0, 0, 0]))
    }),
    says("a hello: renegotiation", UNEXPECTED_MESSAGE, |session| session.say(HANDSHAKE, &message(CLIENT_HELLO, &[3; 64]))),
    says("data within a message", UNEXPECTED_MESSAGE, |session| {
        session.say(HANDSHAKE, &message(KEY_UPDATE, &[0])[..3])?;
        session.say(DATA, b"between")
    }),
    says("an alert within a message", UNEXPECTED_MESSAGE, |session| {
        session.say(HANDSHAKE, &message(KEY_UPDATE, &[0])[..3])?;
        session.say(ALERT, &[1, 0])
    }),
    says("change_cipher_spec", UNEXPECTED_MESSAGE, |session| { throw(&session.tcp, &record(CHANGE_CIPHER_SPEC, &[1])); Ok(()) }),
    says("a record longer than there are", RECORD_OVERFLOW, |session| { throw(&session.tcp, &[DATA, 3, 3, 0x41, 0x01]); Ok(()) }),
    says("one byte more than a record may hold", RECORD_OVERFLOW, |session| session.say(DATA, &[7; (1 << 14) + 1])),
    says("one bit turned", BAD_RECORD_MAC, |session| {
        let mut sealed = session.seals.seal(DATA, b"almost", 0)?;
        sealed[7] ^= 1;
        throw(&session.tcp, &sealed);
        Ok(())
    }),
    says("a record that was left out", BAD_RECORD_MAC, |session| {
        session.seals.seal(DATA, b"lost", 0)?;
        session.say(DATA, b"found")
    }),
    says("a record twice", BAD_RECORD_MAC, |session| {
        let sealed = session.seals.seal(DATA, b"again", 0)?;
        throw(&session.tcp, &sealed.repeat(2));
        Ok(())
    }),
    says("a heartbeat", UNEXPECTED_MESSAGE, |session| session.say(24, &[1, 0xff, 0xff])),
    says("nothing but padding", UNEXPECTED_MESSAGE, |session| session.say(0, &[0; 100])),
    says("plaintext", DECODE_ERROR, |session| { throw(&session.tcp, b"GET / HTTP/1.1\r\n\r\n"); Ok(()) }),
    says("warnings without an end", UNEXPECTED_MESSAGE, |session| (0..MANY).try_for_each(|_| session.say(ALERT, &[1, 90]))),
    Row { name: "an alert that nobody knows", reason: "handshake_refused_by_peer", ends: Ending::Fin, act: |session| session.say(ALERT, &[2, 255]) },
];

/// What only a client may not say.
#[rustfmt::skip]
pub const OF_CLIENTS: &[Says] = &[
    says("a ticket from a client", UNEXPECTED_MESSAGE, |session| session.say(HANDSHAKE, &ticket())),
    says("a certificate that nobody asked for", UNEXPECTED_MESSAGE, |session| session.say(HANDSHAKE, &message(CERTIFICATE, &[0; 64]))),
];

/// What only a server may not say.
#[rustfmt::skip]
pub const OF_SERVERS: &[Says] = &[
    says("tickets without an end", UNEXPECTED_MESSAGE, |session| (0..MANY).try_for_each(|_| session.say(HANDSHAKE, &ticket()))),
    says("a ticket of 16 MiB", DECODE_ERROR, |session| session.say(HANDSHAKE, &[NEW_SESSION_TICKET, 0xff, 0xff, 0xff, 0])),
    says("a certificate is asked for again", UNEXPECTED_MESSAGE, |session| session.say(HANDSHAKE, &message(CERTIFICATE_REQUEST, &[0, 0, 0]))),
    says("renegotiation is asked for", UNEXPECTED_MESSAGE, |session| session.say(HANDSHAKE, &message(HELLO_REQUEST, &[]))),
    Row { name: "a ticket of another mesh is passed over, and its goodbye taken", reason: "complete", ends: Ending::Alert(0), act: |session| {
        session.say(HANDSHAKE, &ticket())?;
        session.say(ALERT, &[1, 0])
    } },
];
