//! The same bytes, cut anywhere, through rustls's buffered stream and through the record layer: the same plaintext,
//! the same end, and byte for byte the same answer.

use std::{
    env,
    io::{Cursor, Read, Write},
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use ringmail_evidence::shown;
use rustls::{AlertDescription, Error, crypto::aws_lc_rs::cipher_suite};

use super::{
    super::{content::RecordError, open::Opener, receive::Receiver, schedule::Side, seal::Sealer},
    peer::{Case, Peer, case},
    session::{Session, session},
};
use crate::slab::{SLOT_LEN, Size, Slab};

/// How long to look for a difference, in seconds, where somebody has more time than a run of all tests.
const SECONDS: &str = "RINGMAIL_FUZZ_SECONDS";
const SECONDS_IN_A_RUN_OF_ALL_TESTS: u64 = 3;
/// Between looks at the clock.
const CASES: u32 = 64;

/// One more byte than a sealed record may have, and as much as rustls waits for.
const MAX_SEALED_LEN: usize = SLOT_LEN + 257;
const LONGEST_OF_RUSTLS: usize = SLOT_LEN + 2047;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer sent this alert.
    Alert(AlertDescription),
    Closed,
    Open,
    Refused,
}

/// What one side made of it: plaintext, how it ended, and what it answered.
#[derive(Debug)]
struct Outcome {
    plaintext: Vec<u8>,
    end: End,
    answer: Vec<u8>,
    error: Option<RecordError>,
}

fn by_rustls(session: &mut Session, chunks: &[&[u8]]) -> Outcome {
    let connection = &mut session.reference;
    let (mut plaintext, mut end) = (Vec::new(), End::Open);
    'all: for chunk in chunks {
        let mut chunk = Cursor::new(chunk);
        while connection.read_tls(&mut chunk).unwrap() > 0 {
            let processed = connection.process_new_packets();
            // Nothing more is an error to a reader that has not seen the end.
            let _ = connection.reader().read_to_end(&mut plaintext);
            match processed {
                Ok(state) if state.peer_has_closed() => end = End::Closed,
                Ok(_) => {}
                Err(Error::AlertReceived(description)) => end = End::Alert(description),
                Err(_) => end = End::Refused,
            }
            if end != End::Open {
                break 'all;
            }
        }
    }
    if matches!(end, End::Open | End::Closed) {
        connection.writer().write_all(b"pong").unwrap();
    }
    let mut answer = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut answer).unwrap();
    }
    Outcome { plaintext, end, answer, error: None }
}

fn by_record_layer(session: &Session, case: &Case, chunks: &[&[u8]], limit: u64) -> Outcome {
    let mut schedule = session.schedule(case.receiving);
    let (early, late) = if case.early { chunks.split_at(1) } else { (&[][..], chunks) };
    let mut receiver = Receiver::new(session.peer_seals[0].key(), early.concat());
    let mut sealer = Sealer::new(session.peer_opens[0].key(), limit);
    let (mut plaintext, mut end, mut error) = (Vec::new(), End::Open, None);
    let size = if case.bulk { Size::Bulk } else { Size::Small };
    // One empty chunk ahead: what came early is opened without a read.
    let mut late = std::iter::once(&[][..]).chain(late.iter().copied()).peekable();
    let mut rest: &[u8] = &[];
    while end == End::Open {
        let mut slab = receiver.slab(size);
        let mut read = 0;
        if let Some(room) = receiver.room(&mut slab) {
            if rest.is_empty() {
                let Some(next) = late.next() else { break };
                rest = next;
                continue;
            }
            read = rest.len().min(room.len());
            room[..read].copy_from_slice(&rest[..read]);
            rest = &rest[read..];
        }
        receiver.arrived(&mut slab, read, &mut schedule);
        if receiver.wants_key_update() {
            sealer.update_key();
        }
        while !slab.is_empty() {
            let piece = slab.first_piece();
            plaintext.extend_from_slice(piece);
            let len = piece.len();
            slab.advance(len);
        }
        error = receiver.failed();
        end = match error {
            Some(RecordError::Alert { description, .. }) => End::Alert(description),
            Some(_) => End::Refused,
            None if receiver.ended() => End::Closed,
            None => End::Open,
        };
    }
    let answer = match &error {
        Some(error) => error.alert().map(|alert| sealer.fatal(alert).unwrap()).unwrap_or_default(),
        None => {
            let mut slab = Slab::holding(b"pong");
            sealer.seal(&mut slab, &mut schedule).unwrap();
            slab.first_piece().to_vec()
        }
    };
    Outcome { plaintext, end, answer, error }
}

/// The alert in an answer, however many key updates are ahead of it.
fn alert_in(answer: &[u8], session: &Session, receiving: Side) -> Option<AlertDescription> {
    let peer = if receiving == Side::Client { Side::Server } else { Side::Client };
    let mut schedule = session.schedule(peer);
    let (mut opener, mut buffer, mut from) = (Opener::new(session.peer_opens[0].key()), answer.to_vec(), 0);
    loop {
        match opener.open(&mut buffer, from, &mut schedule) {
            Ok(Some((_, next))) => from = next,
            Ok(None) => return None,
            Err(RecordError::Alert { description, .. }) => return Some(description),
            Err(error) => panic!("an answer that cannot be opened: {error}"),
        }
    }
}

/// Where rustls answers otherwise: it parses a message before it refuses it, and tells other alerts than RFC 8446
/// asks for (section 5.2 for what is too long, section 5 for a type that is unknown).
fn is_answered_otherwise(error: Option<RecordError>) -> bool {
    matches!(
        error,
        Some(
            RecordError::Message(_)
                | RecordError::BadAlert(_)
                | RecordError::ChangeCipherSpec
                | RecordError::KeyUpdateLen(_)
                | RecordError::Overflow(_)
                | RecordError::Type(_)
        )
    )
}

/// rustls waits for records that are longer than RFC 8446 allows, and refuses them once they are whole; and it takes
/// as many empty records after key updates, and key updates after empty records, as a peer likes to send.
fn is_refused_earlier(own: &Outcome, reference: &Outcome) -> bool {
    match own.error {
        Some(RecordError::Overflow(MAX_SEALED_LEN..=LONGEST_OF_RUSTLS)) => {
            reference.end == End::Open && own.plaintext == reference.plaintext
        }
        Some(RecordError::TooManyWithoutData) => reference.plaintext.starts_with(&own.plaintext),
        Some(_) | None => false,
    }
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let suites = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let suite = suites[case.suite];
    let tls13 = suite.tls13().unwrap();
    let mut session = session(suite, case.receiving);
    let wire = {
        let mut peer = Peer::of(&session);
        case.steps.iter().for_each(|step| peer.step(step));
        peer.wire
    };
    let mut chunks = Vec::new();
    let mut rest = &wire[..];
    let mut cuts = case.cuts.iter().cycle();
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
        chunks.push(chunk);
        rest = tail;
    }
    if chunks.is_empty() {
        return Ok(());
    }
    let own = by_record_layer(&session, case, &chunks, tls13.common.confidentiality_limit);
    let reference = by_rustls(&mut session, &chunks);
    if is_refused_earlier(&own, &reference) {
        return Ok(());
    }
    prop_assert!(own.end == reference.end, "{:?}: {:?}, rustls {:?}", own.error, own.end, reference.end);
    prop_assert!(
        own.plaintext == reference.plaintext,
        "plaintext: {:?}",
        (own.plaintext.len(), reference.plaintext.len())
    );
    if own.error.is_none() {
        prop_assert_eq!(own.answer, reference.answer);
    } else if let Some(expected) = alert_in(&reference.answer, &session, case.receiving) {
        let told = alert_in(&own.answer, &session, case.receiving);
        prop_assert!(
            told == Some(expected) || is_answered_otherwise(own.error),
            "{:?}: told {:?}, rustls {:?}",
            own.error,
            told,
            expected
        );
    }
    Ok(())
}

#[test]
fn the_same_bytes_cut_anywhere_end_as_in_rustls() {
    let asked = env::var(SECONDS).ok().map(|text| text.parse().unwrap());
    let seconds = asked.unwrap_or(SECONDS_IN_A_RUN_OF_ALL_TESTS);
    let end = Instant::now() + Duration::from_secs(seconds);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut cases = 0;
    while Instant::now() < end {
        let mut runner = TestRunner::new(config.clone());
        runner.run(&case(), |case| check(&case)).unwrap_or_else(|error| panic!("{error}"));
        cases += CASES;
    }
    // The few cases of a run of all tests are no figure beside those of an hour.
    if asked.is_some() {
        shown!(
            "M2",
            "cases in which the record layer and rustls differed only where it is written that they do",
            cases,
            "all"
        );
    }
}
