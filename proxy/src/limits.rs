//! How much one source, and all together, may hold.
//!
//! A full proxy looks like a slow network, not like a dead node: connections beyond the total wait in
//! the listener's backlog, and handshakes beyond their limit wait for a turn within their deadline.
//! Only a single source that holds far more than a node ever does is refused.

use std::{collections::HashMap, net::IpAddr, pin::pin, sync::Arc};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::{
    admin,
    config::Config,
    copy::PIPE_DESCRIPTORS,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// Descriptors kept free beside those that are counted below: twelve listeners, the standard streams, the parent's
/// socket, files that are read, a renewal, a lookup of a name and a peer that is told its end.
const BASE_DESCRIPTORS: usize = 64;

/// What a runtime holds for itself: an epoll instance and its copy, what wakes it, and what tells it signals.
const DESCRIPTORS_PER_RUNTIME: usize = 4;

/// The control thread's runtime and the acceptor's.
const OTHER_RUNTIMES: usize = 2;

/// Two sockets per proxied connection.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// A proxy that cannot hold this many is not worth starting, so a tiny descriptor limit still gives this.
const MIN_CONNECTIONS: usize = 16;

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
    /// From the settings; raises the soft limit of descriptors to the hard one, and derives the total
    /// from it where the settings say 0.
    pub fn new(config: &Config) -> Arc<Self> {
        let derived = connections_within(raise_descriptor_limit(), config.workers);
        let max_connections = match config.max_connections {
            0 => derived,
            set => set.min(derived),
        };
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
            let mut freed = pin!(self.freed.notified());
            // Waits from before the look: two places that are freed between the looks and the waits of two would else wake one.
            freed.as_mut().enable();
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

fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// Descriptors that are no proxied connection's.
fn reserved(workers: usize) -> u64 {
    let runtimes = workers.saturating_add(OTHER_RUNTIMES).saturating_mul(DESCRIPTORS_PER_RUNTIME);
    let pipes = workers.saturating_mul(PIPE_DESCRIPTORS);
    let admin = admin::PORTS * admin::MAX_CONNECTIONS;
    u64::try_from(runtimes.saturating_add(pipes).saturating_add(BASE_DESCRIPTORS + admin)).unwrap_or(u64::MAX)
}

fn connections_within(descriptors: u64, workers: usize) -> usize {
    let connections = descriptors.saturating_sub(reserved(workers)) / DESCRIPTORS_PER_CONNECTION;
    usize::try_from(connections).unwrap_or(usize::MAX).max(MIN_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_leaves_descriptors_for_admin_renewal_every_runtime_and_pipes() {
        assert_eq!(connections_within(256, 1), 58);
        assert_eq!(connections_within(20_000, 1), 9_930);
        assert_eq!(connections_within(20_000, 65), 9_930 - 64 * 18);
        assert_eq!(connections_within(64, 1), MIN_CONNECTIONS);
        assert_eq!(connections_within(20_000, usize::MAX), MIN_CONNECTIONS);
    }

    #[test]
    fn a_runtime_holds_no_more_descriptors_than_are_reserved_for_it() {
        // Other tests open descriptors meanwhile: those of a runtime are told by what they are.
        let held = || {
            let links = std::fs::read_dir("/proc/self/fd").unwrap();
            let names = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
            names.filter(|name| name.to_string_lossy().starts_with("anon_inode:[event")).count()
        };
        const RUNTIMES: usize = 200;
        let before = held();
        let runtimes: Vec<_> = (0..RUNTIMES)
            .map(|_| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
            .collect();
        // Beside these, one end of the pair of sockets that tells signals.
        let each = held().saturating_sub(before) / RUNTIMES + 1;
        assert!((2..=DESCRIPTORS_PER_RUNTIME).contains(&each), "{each}");
        drop(runtimes);
    }
}
