//! What one worker knows of its connections, for everybody who only reads: live ones and totals.
//!
//! The worker is the only writer. Its lock is taken when a connection opens, is established and
//! closes, and by a scrape, never per byte. Totals are kept per series, and the number of series is
//! bounded. What a stranger can make without end, by trying ports and addresses, has a smaller bound of its
//! own, so that it never takes the place of what the mesh does; beyond a bound series are folded into a few.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ringmail_identity::SpiffeId;
use ringmail_policy::Workload;

use crate::{
    access_log::AccessLog,
    reason::Reason,
    record::{Direction, Live, Protection},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Series a worker keeps at most. A ring of a few hundred nodes with five ports each way stays below.
pub const MAX_SERIES: usize = 2_000;

/// Of these, the ones with a destination outside the mesh at most: an application dials a few services there.
const MAX_FOREIGN: usize = 500;

/// Of these, the ones that began with a connection that never opened at most. One port scan has up to 65535;
/// the peers of a large ring that is just starting are a few hundred.
const MAX_UNOPENED: usize = 500;

/// Folded series that still name who decided, at most: a few times as many as policies concern a pod.
const MAX_FOLDED: usize = 100;

/// Upper bounds of the handshake histogram's buckets, in seconds. A local handshake takes under a
/// millisecond; the deadline is 15 s.
pub const HANDSHAKE_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0];

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What tells one series of connections from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    /// Which way it crosses the sidecar.
    pub direction: Direction,
    /// The original destination; `None` where it is unknown, and where the series is folded because there are too
    /// many (see the module).
    pub destination: Option<SocketAddr>,
    /// How the network leg is protected.
    pub protection: Protection,
    /// The verified identity at the other end.
    pub peer_identity: Option<SpiffeId>,
    /// The workload at the other end: for inbound the source, for outbound the destination.
    pub peer_workload: Option<PeerWorkload>,
    /// The resource that decided.
    pub decided_by: Option<Arc<str>>,
}

impl Series {
    fn of(live: &Live) -> Self {
        Self {
            direction: live.direction,
            destination: live.destination.get().copied(),
            protection: live.protection(),
            peer_identity: live.peer_identity.get().cloned(),
            peer_workload: live.peer_workload.get().cloned().map(PeerWorkload),
            decided_by: live.decided_by.get().cloned(),
        }
    }

    /// What many series have in common. Inbound that includes who decided: a denial is counted by the policy
    /// that made it, also in the middle of a scan.
    fn folded(&self) -> Self {
        let decided_by = match self.direction {
            Direction::Inbound => self.decided_by.clone(),
            Direction::Outbound => None,
        };
        let (direction, protection) = (self.direction, self.protection);
        Self {
            direction,
            destination: None,
            protection,
            peer_identity: None,
            peer_workload: None,
            decided_by,
        }
    }

    fn anonymous(self) -> Self {
        Self { decided_by: None, ..self }
    }
}

/// A workload compared by its name, so that a new snapshot does not start a new series.
#[derive(Clone, Debug)]
pub struct PeerWorkload(pub Arc<Workload>);

impl PartialEq for PeerWorkload {
    fn eq(&self, other: &Self) -> bool {
        (&self.0.namespace, &self.0.name) == (&other.0.namespace, &other.0.name)
    }
}

impl Eq for PeerWorkload {}

impl std::hash::Hash for PeerWorkload {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.0.namespace, &self.0.name).hash(state);
    }
}

/// Totals of one series. Bytes are those of closed connections; a reader adds the live ones.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Connections whose bytes could flow.
    pub opened: u64,
    /// Bytes from downstream to upstream.
    pub from_downstream: u64,
    /// Bytes from upstream to downstream.
    pub to_downstream: u64,
    /// Ends of connections that were established, by reason.
    pub closed: HashMap<Reason, u64>,
    /// Ends of connections that never were established, by reason.
    pub failed: HashMap<Reason, u64>,
}

/// Durations of the handshakes that were complete, by direction.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    /// Count per bucket of [`HANDSHAKE_BUCKETS`] (not cumulative); the last is above them all.
    pub buckets: [u64; HANDSHAKE_BUCKETS.len() + 1],
    /// Sum of all durations.
    pub sum: Duration,
}

impl Handshakes {
    fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = HANDSHAKE_BUCKETS.iter().position(|bound| seconds <= *bound);
        self.buckets[bucket.unwrap_or(HANDSHAKE_BUCKETS.len())] += 1;
        self.sum += took;
    }
}

#[derive(Debug, Default)]
struct Books {
    live: HashMap<u64, Arc<Live>>,
    totals: HashMap<Series, Totals>,
    foreign: usize,
    unopened: usize,
    folded: usize,
    handshakes: HashMap<Direction, Handshakes>,
}

/// A reader's copy of everything, taken under the lock and then worked on at leisure.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Connections that are open now, established or not.
    pub live: Vec<Arc<Live>>,
    /// Totals by series, with the live connections' bytes added.
    pub totals: HashMap<Series, Totals>,
    /// Handshake durations by direction.
    pub handshakes: HashMap<Direction, Handshakes>,
}

/// The books of one worker; see the module.
#[derive(Debug)]
pub struct Ledger {
    books: Mutex<Books>,
    access_log: AccessLog,
}

impl Ledger {
    /// Empty books that report closed connections to `access_log`.
    pub fn new(access_log: AccessLog) -> Self {
        Self { books: Mutex::default(), access_log }
    }

    /// A reader's copy.
    pub fn read(&self) -> Page {
        let books = self.books();
        let mut page = Page {
            live: books.live.values().cloned().collect(),
            totals: books.totals.clone(),
            handshakes: books.handshakes.clone(),
        };
        for live in page.live.iter().filter(|live| live.established.get().is_some()) {
            let totals = page.totals.entry(books.known(live)).or_default();
            totals.from_downstream += live.bytes.from_downstream();
            totals.to_downstream += live.bytes.to_downstream();
        }
        page
    }

    /// Connections open now.
    pub fn live_count(&self) -> usize {
        self.books().live.len()
    }

    /// Whether an established outbound connection leads to `port` of another pod.
    pub fn leads_to(&self, port: u16) -> bool {
        self.books().live.values().any(|live| {
            live.direction == Direction::Outbound
                && live.established.get().is_some()
                && live.destination.get().is_some_and(|destination| destination.port() == port)
        })
    }

    pub(crate) fn next_id(&self) -> u64 {
        NEXT_ID.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn opened(&self, live: &Arc<Live>) {
        self.books().live.insert(live.id, Arc::clone(live));
    }

    /// Counts the connection as opened, the first time.
    pub(crate) fn established(&self, live: &Live) {
        let mut books = self.books();
        // Under the lock: a scrape that saw it established and not yet counted would make up a series for it.
        if live.established.set(()).is_err() {
            return;
        }
        books.totals(live).opened += 1;
        if let Some(took) = live.handshake.get() {
            books.handshakes.entry(live.direction).or_default().observe(*took);
        }
    }

    pub(crate) fn closed(&self, live: &Live, reason: Reason, error: Option<&str>) {
        {
            let mut books = self.books();
            let totals = books.totals(live);
            if live.established.get().is_some() {
                totals.from_downstream += live.bytes.from_downstream();
                totals.to_downstream += live.bytes.to_downstream();
                *totals.closed.entry(reason).or_default() += 1;
            } else {
                *totals.failed.entry(reason).or_default() += 1;
            }
            books.live.remove(&live.id);
        }
        self.access_log.write(live, reason, error);
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Books hold counts only: after a panic in another holder they are still the best known.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// The totals that a connection counts in.
    fn totals(&mut self, live: &Live) -> &mut Totals {
        let series = self.place(live);
        self.totals.entry(series).or_default()
    }

    /// The series that a connection counts in, its own where there is room for it. No place is ever freed, so
    /// a connection ends in the series that it began in.
    fn place(&mut self, live: &Live) -> Series {
        let own = Series::of(live);
        if self.totals.contains_key(&own) {
            return own;
        }
        let mut all = self.totals.len();
        let is_foreign = matches!(own.protection, Protection::Outside(_));
        let (count, max) = match live.established.get() {
            _ if is_foreign => (&mut self.foreign, MAX_FOREIGN),
            None => (&mut self.unopened, MAX_UNOPENED),
            Some(()) => (&mut all, MAX_SERIES),
        };
        if *count < max && self.totals.len() < MAX_SERIES {
            *count += 1;
            return own;
        }
        let folded = own.folded();
        if self.totals.contains_key(&folded) {
            return folded;
        }
        if self.folded < MAX_FOLDED {
            self.folded += 1;
            return folded;
        }
        folded.anonymous()
    }

    /// The series that an established connection counts in.
    fn known(&self, live: &Live) -> Series {
        let own = Series::of(live);
        let folded = own.folded();
        match (self.totals.contains_key(&own), self.totals.contains_key(&folded)) {
            (true, _) => own,
            (false, true) => folded,
            (false, false) => folded.anonymous(),
        }
    }
}

#[cfg(test)]
mod tests;
