//! Chains that were verified a moment ago, so that a peer that dials a hundred times is verified once.
//!
//! Verifying a chain asks nothing but the chain, the bundle, the side that the peer plays and the time. The cache
//! belongs to one bundle and goes with it; an entry answers for exactly the same bytes and the same side, until the
//! leaf's own end, and for a minute at most, which bounds how late the end of an issuer is noticed. What a peer
//! proves with every handshake, that it holds the leaf's key, is never remembered.

use std::{collections::VecDeque, time::Duration};

use ringmail_identity::{Usage, VerifiedPeer};
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// How long a verdict stands. A storm of connections is over by then.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Chains that are known at once: the nodes and clients of a large ring, some 200 KB. The oldest makes room.
const MAX_CHAINS: usize = 128;

/// The chains of one bundle; see the module.
#[derive(Debug, Default)]
pub(crate) struct KnownChains {
    known: Mutex<VecDeque<Known>>,
}

#[derive(Debug)]
struct Known {
    chain: Vec<Vec<u8>>,
    usage: Usage,
    peer: VerifiedPeer,
    verified_at: UnixTime,
}

impl Known {
    fn is_of(&self, chain: &[CertificateDer<'_>], usage: Usage) -> bool {
        self.usage == usage
            && self.chain.len() == chain.len()
            && self.chain.iter().zip(chain).all(|(known, given)| known == given.as_ref())
    }

    fn holds(&self, now: UnixTime) -> bool {
        let age = now.as_secs().checked_sub(self.verified_at.as_secs());
        // A clock that was set back says nothing about how long ago it was.
        age.is_some_and(|age| age <= MAX_AGE.as_secs()) && now <= self.peer.not_after
    }
}

impl KnownChains {
    /// The peer that this chain was verified for.
    pub(crate) fn find(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Option<VerifiedPeer> {
        let known = self.known();
        let found = known.iter().find(|known| known.is_of(chain, usage))?;
        found.holds(now).then(|| found.peer.clone())
    }

    /// Remembers that the chain was verified for `peer` just now.
    pub(crate) fn remember(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        peer: &VerifiedPeer,
        now: UnixTime,
    ) {
        let mut known = self.known();
        known.retain(|known| known.holds(now) && !known.is_of(chain, usage));
        if known.len() == MAX_CHAINS {
            known.pop_front();
        }
        let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
        known.push_back(Known { chain, usage, peer: peer.clone(), verified_at: now });
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Known>> {
        // Entries are whole or not there, also after a panic in another holder.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ringmail_identity::{RootId, SpiffeId};

    use super::*;

    const NOW: u64 = 1_000_000;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn peer(not_after: u64) -> VerifiedPeer {
        let id: SpiffeId = "spiffe://cluster.local/ns/ignite/sa/n1".parse().unwrap();
        VerifiedPeer {
            id,
            root: RootId::of(&CertificateDer::from(vec![1])),
            serial: "0a".to_owned(),
            not_after: at(not_after),
        }
    }

    fn chain(leaf: u8) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from(vec![leaf; 3]), CertificateDer::from(vec![9; 3])]
    }

    #[test]
    fn a_chain_is_known_for_the_same_bytes_the_same_side_and_a_minute() {
        let chains = KnownChains::default();
        chains.remember(&chain(1), Usage::Client, &peer(NOW + 3600), at(NOW));
        let find = |chain: &[CertificateDer<'_>], usage, now| chains.find(chain, usage, at(now)).is_some();
        assert!(find(&chain(1), Usage::Client, NOW));
        assert!(find(&chain(1), Usage::Client, NOW + 60));
        assert!(!find(&chain(1), Usage::Client, NOW + 61), "older than a minute");
        assert!(!find(&chain(1), Usage::Client, NOW - 1), "a clock that was set back");
        assert!(!find(&chain(1), Usage::Server, NOW), "the other side");
        assert!(!find(&chain(2), Usage::Client, NOW), "another leaf");
        assert!(!find(&chain(1)[..1], Usage::Client, NOW), "without its issuer");
        assert!(KnownChains::default().find(&chain(1), Usage::Client, at(NOW)).is_none(), "another bundle");
    }

    #[test]
    fn a_chain_is_not_known_longer_than_its_leaf_is_valid() {
        let chains = KnownChains::default();
        chains.remember(&chain(1), Usage::Client, &peer(NOW + 10), at(NOW));
        assert!(chains.find(&chain(1), Usage::Client, at(NOW + 10)).is_some());
        assert!(chains.find(&chain(1), Usage::Client, at(NOW + 11)).is_none());
    }

    #[test]
    fn the_oldest_chain_makes_room_and_none_is_known_twice() {
        let chains = KnownChains::default();
        for leaf in 0..=MAX_CHAINS as u8 {
            chains.remember(&chain(leaf), Usage::Client, &peer(NOW + 3600), at(NOW));
            chains.remember(&chain(leaf), Usage::Client, &peer(NOW + 3600), at(NOW));
        }
        assert_eq!(chains.known().len(), MAX_CHAINS);
        assert!(chains.find(&chain(0), Usage::Client, at(NOW)).is_none());
        assert!(chains.find(&chain(1), Usage::Client, at(NOW)).is_some());
    }
}
