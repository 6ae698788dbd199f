//! Own key updates: before a key has sealed too much, and in the same write as what the next one seals.

use std::io::{Cursor, Read};

use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};

use super::{
    super::{schedule::Side, seal::Sealer},
    session::session,
};
use crate::slab::{BULK_SLOTS, HEADROOM, Slab};

/// A limit that holds one slab, and the two records that may follow it.
const LIMIT: u64 = BULK_SLOTS as u64 + 2;

#[test]
fn a_key_is_replaced_before_it_has_sealed_too_much() {
    for suite in [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256] {
        let mut session = session(suite, Side::Server);
        let mut schedule = session.schedule(Side::Client);
        let mut sealer = Sealer::new(session.peer_seals[0].key(), LIMIT);
        let (mut updates, mut received, mut sent) = (0, Vec::new(), Vec::new());
        for number in 0..100u8 {
            let mut slab = Slab::holding(&[number; 100]);
            sealer.seal(&mut slab, &mut schedule).unwrap();
            assert!(!slab.is_scattered(), "one run, with or without a key update");
            updates += usize::from(slab.len() > 100 + HEADROOM);
            sent.extend_from_slice(&[number; 100]);
            let mut wire = Cursor::new(slab.first_piece().to_vec());
            while session.reference.read_tls(&mut wire).unwrap() > 0 {
                session.reference.process_new_packets().unwrap();
            }
            // Nothing more is an error to a reader that has not seen the end.
            let _ = session.reference.reader().read_to_end(&mut received);
        }
        assert!(received == sent, "{suite:?}");
        assert_eq!(updates, 99, "{suite:?}: every slab but the first");
    }
}
