//! How much one source, and all together, may hold.
//!
//! A full proxy looks like a slow network, not like a dead node: connections beyond the total wait in
//! the listener's backlog, and handshakes beyond their limit wait for a turn within their deadline.
//! Only a single source that holds far more than a node ever does is refused.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::config::Config;

/// What scrapes read of the limits.
#[derive(Debug, Default)]
pub struct Counters {
    /// How often accepting paused: at the total, or out of descriptors.
    pub paused: AtomicU64,
}

/// The limits of one proxy, shared by its workers.
#[derive(Debug)]
pub struct Limits {
    max_connections: usize,
    max_per_source: usize,
    max_handshakes_per_source: usize,
    open: AtomicUsize,
    freed: Notify,
    handshakes: Arc<Semaphore>,
    sources: Mutex<HashMap<IpAddr, Source>>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Source {
    connections: usize,
    handshakes: Arc<Semaphore>,
}

/// The right to one connection, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    source: Option<IpAddr>,
}

/// The right to one handshake in flight.
#[derive(Debug)]
pub struct HandshakePermit {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Limits {
    /// From the settings, with so many connections in all.
    pub fn new(config: &Config, max_connections: usize) -> Arc<Self> {
        Arc::new(Self {
            max_connections,
            max_per_source: config.max_connections_per_source,
            max_handshakes_per_source: config.max_handshakes_per_source,
            open: AtomicUsize::new(0),
            freed: Notify::new(),
            handshakes: Arc::new(Semaphore::new(config.max_handshakes)),
            sources: Mutex::default(),
            counters: Arc::default(),
        })
    }

    /// What scrapes read.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Connections held at most.
    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// Connections open now, in both directions.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until one more connection may be accepted, and takes its place.
    pub async fn admit(self: &Arc<Self>) -> Permit {
        loop {
            let freed = self.freed.notified();
            let admitted = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < self.max_connections).then_some(open + 1)
            });
            if admitted.is_ok() {
                return Permit { limits: Arc::clone(self), source: None };
            }
            self.counters.paused.fetch_add(1, Ordering::Relaxed);
            freed.await;
        }
    }

    /// A turn to do a handshake with `source`; waits while the source or all together have their fill.
    /// `None` only while the process ends.
    pub async fn handshake(&self, source: IpAddr) -> Option<HandshakePermit> {
        let own = {
            let mut sources = self.sources();
            Arc::clone(&self.source(&mut sources, source).handshakes)
        };
        let own = own.acquire_owned().await.ok()?;
        let all = Arc::clone(&self.handshakes).acquire_owned().await.ok()?;
        Some(HandshakePermit { _own: own, _all: all })
    }

    fn source<'a>(&self, sources: &'a mut HashMap<IpAddr, Source>, ip: IpAddr) -> &'a mut Source {
        sources.entry(ip).or_insert_with(|| Source {
            connections: 0,
            handshakes: Arc::new(Semaphore::new(self.max_handshakes_per_source)),
        })
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<IpAddr, Source>> {
        // Counts only: after a panic in another holder they are still the best known.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Counts the connection to its source; false where the source already has its fill.
    #[must_use]
    pub fn charge(&mut self, source: IpAddr) -> bool {
        let limits = Arc::clone(&self.limits);
        let mut sources = limits.sources();
        let entry = limits.source(&mut sources, source);
        if entry.connections >= limits.max_per_source {
            return false;
        }
        entry.connections += 1;
        self.source = Some(source);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ip) = self.source {
            let mut sources = self.limits.sources();
            if let Some(source) = sources.get_mut(&ip) {
                source.connections -= 1;
                if source.connections == 0 {
                    sources.remove(&ip);
                }
            }
        }
        self.limits.open.fetch_sub(1, Ordering::AcqRel);
        self.limits.freed.notify_one();
    }
}
