//! Keeps a pod that was cut off for too long unreachable until its application has restarted.
//!
//! A ring gives up a node that it cannot reach; the node, some seconds later, gives up the ring, lives on
//! alone, and never merges with it again. Where the sidecar itself was what was missing, it is the one who
//! can tell when it is back: it lets nobody reach what may be a cluster of its own. A node that has not given
//! up yet must hear from the others that it was failed, and then stops. So outbound stays open, and so does
//! the ring's own port while the application is itself connected to others by it.
//!
//! - `listeners`: what of the application listens, by which its restart is told.
//! - `state`: what outlives this process.

mod listeners;
mod state;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{config::Config, ledger::Ledger};
use listeners::Listeners;
use state::{Remembered, StateDir};

/// How often the sidecar notes that it is there. An absence seems longer by up to this: small beside the time
/// between what a ring rides out and what it does not.
const BEAT: Duration = Duration::from_millis(250);

/// A time during which the application ran and nobody could reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    away: Duration,
    listeners: Listeners,
}

impl Absence {
    /// How long the sidecar was away, rounded up to its last beat.
    pub fn away(&self) -> Duration {
        self.away
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the application was cut off for {:.1} s, while its sidecar was away, and has not restarted since: it may \
             live on as a cluster of its own, so nobody may reach it; restart the application",
            self.away.as_secs_f64()
        )?;
        match self.listeners.is_empty() {
            true => Ok(()),
            false => write!(f, " (listening since then on {})", self.listeners),
        }
    }
}

/// What a look at clock and listeners asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Judgement {
    Close(Arc<Absence>),
    Open,
    Same,
}

/// Whether the application may be reached. Shared by every thread of a data plane.
#[derive(Debug)]
pub struct Fence {
    /// Zero for never.
    after: Duration,
    /// Milliseconds of [`now`].
    beat: AtomicU64,
    shut: AtomicBool,
    absence: watch::Sender<Option<Arc<Absence>>>,
}

impl Fence {
    /// Judges how long no sidecar was here, and keeps judging from threads of its own: a control thread that
    /// waits for a slow disk must not be taken for a frozen process.
    ///
    /// # Errors
    /// What the system reports when a thread cannot be made. A state directory that cannot be used is a
    /// warning.
    pub fn start(config: &Config) -> io::Result<Arc<Self>> {
        let (state, remembered) = StateDir::open(&config.state_dir);
        if config.fence_after.is_zero() {
            // Or it would hold again once the fence is switched on.
            state.forget();
        }
        let fence = Arc::new(Self::new(config.fence_after, remembered, now()));
        let guard = Guard { fence: Arc::clone(&fence), state: Arc::new(state) };
        // Before the first connection is taken.
        guard.look();
        let state = Arc::clone(&guard.state);
        thread::Builder::new().name("fence".to_owned()).spawn(move || {
            loop {
                thread::sleep(BEAT);
                guard.look();
            }
        })?;
        // The disk has a thread to itself: one that hangs must not stop the beat that workers look at.
        let beating = Arc::clone(&fence);
        thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
            loop {
                state.beat(beating.beat.load(Ordering::Acquire));
                thread::sleep(BEAT);
            }
        })?;
        Ok(fence)
    }

    /// One that never closes and notes nothing.
    pub fn off() -> Arc<Self> {
        Arc::new(Self::new(Duration::ZERO, Remembered::default(), now()))
    }

    /// One that has closed after an absence of `away`.
    #[cfg(test)]
    pub(crate) fn closed_since(away: Duration) -> Arc<Self> {
        let absence = Arc::new(Absence { away, listeners: Listeners::default() });
        let remembered = Remembered { absence: Some(absence), ..Remembered::default() };
        Arc::new(Self::new(Duration::from_secs(3600), remembered, now()))
    }

    fn new(after: Duration, remembered: Remembered, now: u64) -> Self {
        let held = remembered.absence.filter(|_| !after.is_zero());
        Self {
            after,
            beat: AtomicU64::new(remembered.beat.unwrap_or(now)),
            shut: AtomicBool::new(held.is_some()),
            absence: watch::Sender::new(held),
        }
    }

    /// Whether inbound is closed. Also true in the moment after this process was stopped for too long and
    /// nothing has judged that yet. Costs a reading of the clock.
    pub fn is_closed(&self) -> bool {
        // The beat first: a new one says that what it was judged to mean is to be seen in `shut`.
        self.too_long(now()).is_some() || self.shut.load(Ordering::Acquire)
    }

    /// Why inbound is closed, or none while it is open.
    pub fn closed(&self) -> Option<Arc<Absence>> {
        let unjudged = || {
            let away = self.too_long(now())?;
            Some(Arc::new(Absence { away, listeners: Listeners::default() }))
        };
        self.absence.borrow().clone().or_else(unjudged)
    }

    /// Why nobody may reach the application at `port`, or none where somebody may: while the fence is open, and
    /// at a port of the ring while the application is itself connected to that port elsewhere. A node alone is
    /// not; one that still takes the others for its ring is told so that it was failed, by any of them.
    pub fn keeps_out(&self, port: u16, ring_ports: &[u16], ledgers: &[Arc<Ledger>]) -> Option<Arc<Absence>> {
        let absence = self.closed()?;
        let in_a_ring = ring_ports.contains(&port) && ledgers.iter().any(|ledger| ledger.leads_to(port));
        (!in_a_ring).then_some(absence)
    }

    /// Tells each time the fence closes or opens.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Absence>>> {
        self.absence.subscribe()
    }

    /// The time since the last beat, if it is so long that the fence closes.
    fn too_long(&self, now: u64) -> Option<Duration> {
        let away = Duration::from_millis(now.saturating_sub(self.beat.load(Ordering::Acquire)));
        (!self.after.is_zero() && away >= self.after).then_some(away)
    }

    /// Changes nothing: what is asked for must be written down before it holds.
    fn judge(&self, now: u64, listening: impl FnOnce() -> io::Result<Listeners>) -> io::Result<Judgement> {
        let (away, held) = (self.too_long(now), self.absence.borrow().clone());
        if away.is_none() && held.is_none() {
            return Ok(Judgement::Same);
        }
        let listeners = listening()?;
        Ok(match (away, held) {
            (Some(away), _) if !listeners.is_empty() => {
                Judgement::Close(Arc::new(Absence { away, listeners }))
            }
            (_, Some(held)) if held.listeners.share_any(&listeners) => Judgement::Same,
            (_, Some(_)) => Judgement::Open,
            (_, None) => Judgement::Same,
        })
    }

    fn apply(&self, now: u64, judgement: Judgement) {
        match judgement {
            Judgement::Close(absence) => {
                self.shut.store(true, Ordering::Release);
                self.absence.send_replace(Some(absence));
            }
            Judgement::Open => {
                self.shut.store(false, Ordering::Release);
                self.absence.send_replace(None);
            }
            Judgement::Same => {}
        }
        self.beat.store(now, Ordering::Release);
    }
}

/// A fence with what it writes down.
struct Guard {
    fence: Arc<Fence>,
    state: Arc<StateDir>,
}

impl Guard {
    fn look(&self) {
        let now = now();
        let judgement = match self.fence.judge(now, Listeners::read) {
            Ok(judgement) => judgement,
            Err(error) => {
                // Without a beat a fence that should close stays closed, and the next look tries again.
                warn!(%error, "fence: what the application listens on cannot be read");
                return;
            }
        };
        match &judgement {
            Judgement::Close(absence) => {
                self.state.remember(absence);
                warn!("fence: {absence}");
            }
            Judgement::Open => {
                self.state.forget();
                info!("fence: the application has ended or restarted: it may be reached again");
            }
            Judgement::Same => {}
        }
        self.fence.apply(now, judgement);
    }
}

/// Milliseconds of the clock that stands still while the machine is suspended, as the application does then,
/// and goes on while a process or a container is stopped. The same in every process since the machine began.
fn now() -> u64 {
    // Linux always has this clock; time that stands still would leave the fence as it is.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
