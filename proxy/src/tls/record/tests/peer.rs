//! A peer that sends whatever there is to send, in its order or out of it.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

use super::{
    super::{
        content::{ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, RecordError},
        key::{Key, OVERHEAD, TAG_LEN},
        receive::Receiver,
        schedule::Side,
    },
    session::{GENERATIONS, Parts, Session, session},
};
use crate::slab::{GAP_BEFORE, SLOT_LEN, Size};

/// What a peer sends next.
#[derive(Clone, Debug)]
pub(super) enum Step {
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
pub(super) struct Case {
    pub(super) suite: usize,
    pub(super) receiving: Side,
    pub(super) steps: Vec<Step>,
    pub(super) cuts: Vec<usize>,
    /// The first part has arrived together with the handshake.
    pub(super) early: bool,
    pub(super) bulk: bool,
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

pub(super) fn case() -> impl Strategy<Value = Case> {
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

    pub(super) fn step(&mut self, step: &Step) {
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

/// How many bytes of data `side` takes of what its peer says.
pub(super) fn taken(side: Side, says: impl FnOnce(&mut Peer<'_>)) -> Result<usize, RecordError> {
    let session = session(TLS13_AES_128_GCM_SHA256, side);
    let mut schedule = session.schedule(side);
    let mut peer = Peer::of(&session);
    says(&mut peer);
    let mut receiver = Receiver::new(session.peer_seals[0].key(), peer.wire);
    let mut slab = receiver.slab(Size::Small);
    receiver.arrived(&mut slab, 0, &mut schedule);
    receiver.failed().map_or(Ok(slab.len()), Err)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}
