//! The same bytes, cut anywhere, through rustls's buffered stream and through the record layer: the same plaintext,
//! the same end, and byte for byte the same answer.

use std::{
    env,
    io::{Cursor, Read, Write},
    time::{Duration, Instant},
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestCaseError, TestRunner},
};
use ringmail_evidence::shown;
use rustls::{AlertDescription, Error, crypto::aws_lc_rs::cipher_suite};

use super::{
    super::{
        content::{ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, RecordError},
        key::{Key, OVERHEAD, TAG_LEN},
        open::Opener,
        receive::Receiver,
        schedule::Side,
        seal::Sealer,
    },
    session::{GENERATIONS, Parts, Session, session},
};
use crate::slab::{GAP_BEFORE, SLOT_LEN, Size, Slab};

/// How long to look for a difference, in seconds, where somebody has more time than a run of all tests.
const SECONDS: &str = "RINGMAIL_FUZZ_SECONDS";
const SECONDS_IN_A_RUN_OF_ALL_TESTS: u64 = 3;
/// Between looks at the clock.
const CASES: u32 = 64;

/// One more byte than a sealed record may have, and as much as rustls waits for.
const MAX_SEALED_LEN: usize = SLOT_LEN + 257;
const LONGEST_OF_RUSTLS: usize = SLOT_LEN + 2047;

/// What a peer sends next.
#[derive(Clone, Debug)]
enum Step {
    Alert(Vec<u8>),
    ChangeCipherSpec,
    Data {
        len: usize,
        padding: usize,
    },
    Empty(usize),
    /// A record whose sealed bytes or header have one bit turned.
    Flipped {
        len: usize,
        at: Index,
        bit: u8,
    },
    Garbage(Vec<u8>),
    Header([u8; 5]),
    KeyUpdates {
        said: u8,
        times: usize,
    },
    Lost,
    Message {
        bytes: Vec<u8>,
        cut: Index,
    },
    OfType(u8),
    Oversized {
        content: usize,
        padding: usize,
    },
    Padding(usize),
    Ticket {
        nonce: usize,
        ticket: usize,
        cut: Index,
    },
    TwoMessages {
        first: Vec<u8>,
        second: Vec<u8>,
    },
}

#[derive(Clone, Debug)]
struct Case {
    suite: usize,
    receiving: Side,
    steps: Vec<Step>,
    cuts: Vec<usize>,
    /// The first part has arrived together with the handshake.
    early: bool,
    bulk: bool,
}

fn key_update(said: u8) -> Vec<u8> {
    vec![24, 0, 0, 1, said]
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(key_update),
        vec(any::<u8>(), 0..4).prop_map(|body| [vec![24, 0, 0, body.len() as u8], body].concat()),
        // Tickets are skipped unread; what rustls finds wrong inside is none of the record layer's.
        (select(vec![0u8, 1, 2, 5, 8, 11, 13, 15, 20, 25, 254]), vec(any::<u8>(), 0..40))
            .prop_map(|(kind, body)| [vec![kind, 0, 0, body.len() as u8], body].concat()),
        Just(vec![11, 1, 0, 0]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![4 => 0usize..300, 1 => 0usize..=SLOT_LEN, 1 => SLOT_LEN - 2..=SLOT_LEN];
    let said = select(vec![0u8, 0, 1, 1, 2]);
    prop_oneof![
        12 => (len(), prop_oneof![3 => Just(0usize), 1 => 0usize..300])
            .prop_map(|(len, padding)| Step::Data { len, padding: padding.min(SLOT_LEN - len) }),
        3 => (said, 1usize..3).prop_map(|(said, times)| Step::KeyUpdates { said, times }),
        1 => Just(Step::KeyUpdates { said: 1, times: 33 }),
        2 => (select(vec![1u8, 2, 2, 3]), any::<u8>()).prop_map(|(level, kind)| Step::Alert(vec![level, kind])),
        2 => (1usize..6).prop_map(|_| Step::Alert(vec![1, 90])),
        1 => Just(Step::Alert(vec![1, 0])),
        1 => vec(any::<u8>(), 1..5).prop_map(Step::Alert),
        1 => select(vec![1usize, 5, 32, 33]).prop_map(Step::Empty),
        1 => (0usize..600, any::<Index>(), 0u8..8).prop_map(|(len, at, bit)| Step::Flipped { len, at, bit }),
        1 => vec(any::<u8>(), 1..30).prop_map(Step::Garbage),
        1 => any::<[u8; 5]>().prop_map(|any| Step::Header([23, 3, any[2], any[3], any[4]])),
        1 => (19u8..27, 2u8..5, 0u8..66).prop_map(|(kind, major, high)| Step::Header([kind, major, 3, high, 7])),
        1 => Just(Step::Lost),
        1 => Just(Step::ChangeCipherSpec),
        3 => (message(), any::<Index>()).prop_map(|(bytes, cut)| Step::Message { bytes, cut }),
        1 => (message(), message()).prop_map(|(first, second)| Step::TwoMessages { first, second }),
        1 => any::<u8>().prop_map(Step::OfType),
        1 => (SLOT_LEN..SLOT_LEN + 300, 0usize..300)
            .prop_map(|(content, padding)| Step::Oversized { content, padding }),
        1 => (1usize..300).prop_map(Step::Padding),
        2 => (0usize..20, 1usize..400, any::<Index>())
            .prop_map(|(nonce, ticket, cut)| Step::Ticket { nonce, ticket, cut }),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let cut = prop_oneof![1usize..40, 1usize..3000, 1usize..40_000];
    let receiving = select(vec![Side::Client, Side::Server]);
    (0usize..3, receiving, vec(step(), 1..12), vec(cut, 1..20), any::<bool>(), any::<bool>()).prop_map(
        |(suite, receiving, steps, cuts, early, bulk)| Case { suite, receiving, steps, cuts, early, bulk },
    )
}

/// The sending peer.
pub(super) struct Peer<'a> {
    parts: &'a [Parts],
    generation: usize,
    key: Key,
    pub(super) wire: Vec<u8>,
}

impl<'a> Peer<'a> {
    pub(super) fn of(session: &'a Session) -> Self {
        let key = session.peer_seals[0].key();
        Self { parts: &session.peer_seals, generation: 0, key, wire: Vec::new() }
    }

    fn record(&mut self, content_type: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut record = vec![0; content.len() + padding + OVERHEAD];
        record[GAP_BEFORE..GAP_BEFORE + content.len()].copy_from_slice(content);
        record[GAP_BEFORE + content.len()] = content_type;
        let last = record[record.len() - TAG_LEN - 1];
        self.key.seal(last, &mut record).unwrap();
        record
    }

    pub(super) fn send(&mut self, content_type: u8, content: &[u8], padding: usize) {
        let record = self.record(content_type, content, padding);
        self.wire.extend_from_slice(&record);
    }

    fn send_cut(&mut self, message: &[u8], cut: Index) {
        let cut = cut.index(message.len());
        for part in [&message[..cut], &message[cut..]] {
            if !part.is_empty() {
                self.send(HANDSHAKE, part, 0);
            }
        }
    }

    pub(super) fn next_key(&mut self) {
        self.generation += 1;
        self.key = self.parts[self.generation].key();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Alert(bytes) => self.send(ALERT, bytes, 0),
            Step::ChangeCipherSpec => self.wire.extend_from_slice(&[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]),
            Step::Data { len, padding } => self.send(APPLICATION_DATA, &pattern(*len), *padding),
            Step::Empty(times) => (0..*times).for_each(|_| self.send(APPLICATION_DATA, &[], 0)),
            Step::Flipped { len, at, bit } => {
                let mut record = self.record(APPLICATION_DATA, &pattern(*len), 0);
                // Not the length: a longer record would wait for bytes that never come.
                let places = record.len() - 2;
                let at = Some(at.index(places)).map_or(0, |at| if at < 3 { at } else { at + 2 });
                record[at] ^= 1 << bit;
                self.wire.extend_from_slice(&record);
            }
            Step::Garbage(bytes) => self.wire.extend_from_slice(bytes),
            Step::Header(bytes) => self.wire.extend_from_slice(bytes),
            Step::KeyUpdates { said, times } => {
                for _ in 0..(*times).min(GENERATIONS - self.generation) {
                    self.send(HANDSHAKE, &key_update(*said), 0);
                    self.next_key();
                }
            }
            Step::Lost => drop(self.record(APPLICATION_DATA, b"lost", 0)),
            Step::Message { bytes, cut } => {
                self.send_cut(bytes, *cut);
                if matches!(bytes[..], [24, 0, 0, 1, 0 | 1]) && self.generation < GENERATIONS {
                    self.next_key();
                }
            }
            Step::OfType(kind) => self.send(*kind, b"1", 0),
            Step::Oversized { content, padding } => {
                self.send(APPLICATION_DATA, &pattern(*content), *padding);
            }
            Step::Padding(len) => self.send(0, &[], *len),
            Step::Ticket { nonce, ticket, cut } => {
                let body = [
                    &[0, 0, 14, 16, 1, 2, 3, 4, *nonce as u8][..],
                    &vec![7; *nonce],
                    &(*ticket as u16).to_be_bytes(),
                    &vec![8; *ticket],
                    &[0, 0],
                ]
                .concat();
                let length = (body.len() as u32).to_be_bytes();
                self.send_cut(&[&[4], &length[1..], &body].concat(), *cut);
            }
            Step::TwoMessages { first, second } => self.send(HANDSHAKE, &[&first[..], second].concat(), 0),
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

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
    let seconds = env::var(SECONDS).map_or(SECONDS_IN_A_RUN_OF_ALL_TESTS, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut cases = 0;
    while Instant::now() < end {
        let mut runner = TestRunner::new(config.clone());
        runner.run(&case(), |case| check(&case)).unwrap_or_else(|error| panic!("{error}"));
        cases += CASES;
    }
    shown!("M2", "cases in which the record layer and rustls did not differ", cases, "all");
}
