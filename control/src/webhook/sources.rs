//! How many connections each source holds, so that one caller cannot take them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// An API server holds a few, also where all of a cluster come through one tunnel.
const MAX_PER_SOURCE: usize = 64;

/// Connections by source.
#[derive(Clone, Default)]
pub(super) struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection that is counted for as long as this lives.
pub(super) struct Counted {
    sources: Sources,
    source: IpAddr,
}

impl Sources {
    /// Counts a connection; `None` where the source has its share already.
    pub(super) fn count(&self, source: IpAddr) -> Option<Counted> {
        // An IPv4 caller of a socket for both families is the same caller.
        let source = source.to_canonical();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = all.entry(source).or_default();
        if *held >= MAX_PER_SOURCE {
            return None;
        }
        *held += 1;
        Some(Counted { sources: self.clone(), source })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = all.get_mut(&self.source) {
            *held -= 1;
            // Sources that are gone must not fill the memory.
            if *held == 0 {
                all.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_with_its_share_waits_for_one_to_end_and_others_do_not() {
        let sources = Sources::default();
        let (one, mapped): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap());
        let mut held: Vec<_> = (0..MAX_PER_SOURCE).map(|_| sources.count(one).unwrap()).collect();
        assert!(sources.count(one).is_none() && sources.count(mapped).is_none());
        assert!(sources.count("10.0.0.2".parse().unwrap()).is_some());
        held.pop();
        assert!(sources.count(mapped).is_some());
        held.clear();
        assert!(sources.0.lock().unwrap().is_empty());
    }
}
