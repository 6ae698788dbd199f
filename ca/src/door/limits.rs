//! How many connections there may be, in total and from one source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::ConnectionEnd;

/// What counts as one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An address: where pods of a node share a /64.
    Address,
    /// An IPv4 address or an IPv6 /64, the least that a single host is given.
    Network,
}

/// Counts connections by source.
#[derive(Debug)]
pub struct ConnectionLimits {
    total: usize,
    per_source: usize,
    source: Source,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// One connection's place; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    limits: Arc<ConnectionLimits>,
    source: IpAddr,
}

impl ConnectionLimits {
    /// At most `total` connections, of them `per_source` from one source.
    pub fn new(total: usize, per_source: usize, source: Source) -> Self {
        Self { total, per_source, source, held: Mutex::default() }
    }

    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, ConnectionEnd> {
        let source = self.source.of(address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let from_source = held.by_source.get(&source).copied().unwrap_or_default();
        if held.total >= self.total {
            return Err(ConnectionEnd::LimitTotal);
        }
        if from_source >= self.per_source {
            return Err(ConnectionEnd::LimitSource);
        }
        held.total += 1;
        held.by_source.insert(source, from_source + 1);
        Ok(Place { limits: Arc::clone(self), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.limits.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total -= 1;
        if let Some(count) = held.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                held.by_source.remove(&self.source);
            }
        }
    }
}

impl Source {
    /// An IPv4 caller of a socket for both families is the same caller.
    fn of(self, address: IpAddr) -> IpAddr {
        const NETWORK: u128 = !0 << 64;
        match (self, address.to_canonical()) {
            (Self::Network, IpAddr::V6(v6)) => IpAddr::V6((u128::from(v6) & NETWORK).into()),
            (Self::Address | Self::Network, address) => address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_is_bounded_and_does_not_take_the_others_places() {
        let limits = Arc::new(ConnectionLimits::new(3, 2, Source::Network));
        let mut places: Vec<_> = (0..2).map(|_| limits.take(ip("10.0.0.1")).unwrap()).collect();
        assert_eq!(limits.take(ip("10.0.0.1")).unwrap_err(), ConnectionEnd::LimitSource);
        assert_eq!(limits.take(ip("::ffff:10.0.0.1")).unwrap_err(), ConnectionEnd::LimitSource);
        places.push(limits.take(ip("10.0.0.2")).unwrap());
        assert_eq!(limits.take(ip("10.0.0.3")).unwrap_err(), ConnectionEnd::LimitTotal);
        places.clear();
        assert!(limits.take(ip("10.0.0.1")).is_ok());
        assert!(limits.held.lock().unwrap().by_source.is_empty());
    }

    #[test]
    fn an_ipv6_host_counts_as_its_network_or_as_its_address() {
        let limits = Arc::new(ConnectionLimits::new(9, 1, Source::Network));
        let _held = limits.take(ip("2001:db8::1")).unwrap();
        assert_eq!(limits.take(ip("2001:db8::2")).unwrap_err(), ConnectionEnd::LimitSource);
        assert!(limits.take(ip("2001:db8:0:1::1")).is_ok());
        let limits = Arc::new(ConnectionLimits::new(9, 1, Source::Address));
        let _held = (limits.take(ip("2001:db8::1")).unwrap(), limits.take(ip("2001:db8::2")).unwrap());
        assert_eq!(limits.take(ip("2001:db8::2")).unwrap_err(), ConnectionEnd::LimitSource);
    }
}
