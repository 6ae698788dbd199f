//! Chains that were verified a moment ago, looked up and remembered by several workers at once.

use std::{sync::Arc, time::Duration};

use ringmail_identity::{RootId, SpiffeId, UnixTime, Usage, VerifiedPeer};
use rustls::pki_types::CertificateDer;
use shuttle::thread;

use crate::known_chains::KnownChains;

/// As many as are known at once.
const FULL: u8 = 128;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn chain(leaf: u8) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from(vec![leaf])]
}

fn peer(leaf: u8) -> VerifiedPeer {
    let id: SpiffeId = format!("spiffe://cluster.local/ns/ignite/sa/n{leaf}").parse().unwrap();
    VerifiedPeer {
        id,
        root: RootId::of(&CertificateDer::from(vec![0])),
        serial: leaf.to_string(),
        not_after: at(1_000),
    }
}

/// A chain answers for its own peer and its own side, and is known once however many verify it at a time: the oldest is not put out
/// by a second of the same.
pub fn a_chain_answers_for_itself() {
    let chains = Arc::new(KnownChains::default());
    for leaf in 0..FULL - 2 {
        chains.remember(&chain(leaf), Usage::Client, &peer(leaf), at(1));
    }
    let workers: Vec<_> = [FULL - 2, FULL - 2, FULL - 1]
        .into_iter()
        .map(|leaf| {
            let chains = Arc::clone(&chains);
            thread::spawn(move || {
                if chains.find(&chain(leaf), Usage::Client, at(1)).is_none() {
                    chains.remember(&chain(leaf), Usage::Client, &peer(leaf), at(1));
                }
                let found = chains.find(&chain(leaf), Usage::Client, at(1)).unwrap();
                assert_eq!(found.serial, leaf.to_string());
                assert!(chains.find(&chain(leaf), Usage::Server, at(1)).is_none());
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    for leaf in 0..FULL {
        let found = chains.find(&chain(leaf), Usage::Client, at(1));
        assert_eq!(found.map(|peer| peer.serial), Some(leaf.to_string()), "chain {leaf}");
    }
}
