//! How many connections there may be, in total and from one source.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts connections by source. An IPv6 source is its own address: pods of a node share a /64.
#[derive(Debug)]
pub(super) struct ConnectionLimits {
    total: usize,
    per_source: usize,
    held: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place; dropping it frees the place.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    limits: Arc<ConnectionLimits>,
    source: IpAddr,
}

impl ConnectionLimits {
    pub(super) fn new(total: usize, per_source: usize) -> Self {
        Self { total, per_source, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing where there are too many.
    pub(super) fn take(self: &Arc<Self>, source: IpAddr) -> Option<ConnectionPlace> {
        let source = source.to_canonical();
        let mut held = self.held();
        let total: usize = held.values().sum();
        let own = held.get(&source).copied().unwrap_or_default();
        if total >= self.total || own >= self.per_source {
            return None;
        }
        held.insert(source, own + 1);
        drop(held);
        Some(ConnectionPlace { limits: Arc::clone(self), source })
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut held = self.limits.held();
        if let Some(count) = held.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_is_bounded_and_does_not_take_the_others_places() {
        let limits = Arc::new(ConnectionLimits::new(3, 2));
        let take = |address: &str| limits.take(address.parse().unwrap());
        let mut places = vec![take("10.0.0.1").unwrap(), take("::ffff:10.0.0.1").unwrap()];
        assert!(take("10.0.0.1").is_none());
        places.push(take("10.0.0.2").unwrap());
        assert!(take("10.0.0.3").is_none());
        places.clear();
        assert!(take("10.0.0.1").is_some());
        assert!(limits.held().is_empty());
    }
}
