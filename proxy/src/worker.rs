//! Worker threads: each owns its connections from accept to record.
//!
//! A worker is one thread with a single-threaded runtime; nothing of a connection ever crosses to
//! another thread, so nothing on the path of a byte is locked. With one worker it accepts for itself;
//! with more, one acceptor hands each connection, as a bare socket, to the worker with the fewest.
//!
//! None of these threads ends before the process does. One that does, by a panic or because nobody accepts
//! any more, is reported: a data plane with a part missing looks healthy and serves nobody.

mod door;
mod thread;

use std::{
    io,
    net::TcpListener,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ringmail_policy::Inbound;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use self::{
    door::{Door, Handed, Load, Seat, listeners},
    thread::spawn,
};
use crate::{
    access_log::AccessLog,
    budget::Budget,
    config::Config,
    discovery::Asker,
    fence::{Absence, Fence},
    inbound, keepalive,
    ledger::Ledger,
    limits::Limits,
    listen::{Accepted, Manners},
    orig_dst::Own,
    outbound,
    reason::Reason,
    record::Direction,
    refusal::Refusal,
    registry::Registry,
    relay::Relaying,
    slab,
    snapshot::Snapshots,
    tls::{Credentials, CredentialsRx},
};

/// How often connections with data on its way are looked at. A fraction of the black-hole deadline.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// What every connection of a worker works with.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub config: Arc<Config>,
    /// The addresses and ports that are this proxy's own.
    pub own: Own,
    /// The worker's books.
    pub ledger: Arc<Ledger>,
    /// Every worker's.
    pub ledgers: Arc<[Arc<Ledger>]>,
    /// What may be held.
    pub limits: Arc<Limits>,
    /// What policy and discovery decide.
    pub snapshots: Snapshots,
    /// The way to ask discovery about an address.
    pub asker: Asker,
    /// Who this proxy is, and whom it trusts.
    pub credentials: CredentialsRx,
    /// Whether the application may be reached.
    pub fence: Arc<Fence>,
    /// The worker's live connections.
    pub registry: Rc<Registry>,
}

impl Context {
    /// Why the fence lets nobody reach the application at `port`, or none where it lets somebody.
    pub fn fenced_off(&self, port: u16) -> Option<Arc<Absence>> {
        self.fence.keeps_out(port, &self.config.ring_ports, &self.ledgers)
    }

    /// The credentials in force, waiting up to `wait` for the first ones.
    ///
    /// # Errors
    /// [`Refusal::NoCredentials`].
    pub async fn credentials_within(&self, wait: Duration) -> Result<Arc<Credentials>, Refusal> {
        if let Some(held) = self.credentials.borrow().clone() {
            return Ok(held);
        }
        let mut credentials = self.credentials.clone();
        let held = timeout(wait, credentials.wait_for(Option::is_some)).await;
        match held {
            Ok(Ok(held)) => held.clone().ok_or(Refusal::NoCredentials(wait)),
            Ok(Err(_)) | Err(_) => Err(Refusal::NoCredentials(wait)),
        }
    }
}

/// What the workers are started with.
#[derive(Debug)]
pub struct Wiring {
    /// The settings.
    pub config: Arc<Config>,
    /// Where closed connections are written.
    pub access_log: AccessLog,
    /// What policy and discovery decide.
    pub snapshots: Snapshots,
    /// The way to ask discovery about an address.
    pub asker: Asker,
    /// Who this proxy is.
    pub credentials: CredentialsRx,
    /// Whether the application may be reached.
    pub fence: Arc<Fence>,
    /// The outbound listeners.
    pub outbound: Vec<TcpListener>,
    /// The inbound listeners.
    pub inbound: Vec<TcpListener>,
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    ledgers: Arc<[Arc<Ledger>]>,
    limits: Arc<Limits>,
    loads: Vec<Arc<AtomicUsize>>,
    begun: Arc<AtomicU64>,
    end: watch::Sender<Option<Reason>>,
}

/// Yields the name of each thread that is gone. None of them goes while all is well.
pub type Gone = mpsc::UnboundedReceiver<String>;

impl Workers {
    /// Starts the settings' number of workers and begins to accept.
    ///
    /// # Errors
    /// What the system reports when a thread or a runtime cannot be made.
    pub fn start(wiring: Wiring) -> io::Result<(Self, Gone)> {
        let budget = Budget::of(&wiring.config);
        let limits = Limits::new(&wiring.config, budget.connections);
        let (end, ended) = watch::channel(None);
        let (farewells, gone) = mpsc::unbounded_channel();
        let count = wiring.config.workers.max(1);
        let ledgers: Arc<[_]> =
            (0..count).map(|_| Arc::new(Ledger::new(wiring.access_log.clone()))).collect();
        let mut seats: Vec<Seat> = Vec::with_capacity(count);
        let begun: Arc<AtomicU64> = Arc::default();
        let mut door = Some(Door {
            listeners: listeners(wiring.outbound, wiring.inbound),
            limits: Arc::clone(&limits),
            begun: Arc::clone(&begun),
        });
        for (number, ledger) in ledgers.iter().enumerate() {
            let (queue, accepted) = mpsc::unbounded_channel();
            seats.push(Seat { queue, load: Arc::default() });
            let worker = Worker {
                config: Arc::clone(&wiring.config),
                ledger: Arc::clone(ledger),
                ledgers: Arc::clone(&ledgers),
                limits: Arc::clone(&limits),
                bulk_slabs: budget.bulk_slabs,
                snapshots: wiring.snapshots.clone(),
                asker: wiring.asker.clone(),
                credentials: wiring.credentials.clone(),
                fence: Arc::clone(&wiring.fence),
                ended: ended.clone(),
            };
            // One worker accepts for itself: nothing is handed from thread to thread.
            let own_door = if count == 1 { door.take().map(|door| (door, seats.clone())) } else { None };
            spawn(format!("worker-{number}"), &farewells, move || worker.serve(accepted, own_door))?;
        }
        let loads = seats.iter().map(|seat| Arc::clone(&seat.load)).collect();
        if let Some(door) = door {
            spawn("acceptor".to_owned(), &farewells, move || door.keep(seats))?;
        }
        Ok((Self { ledgers, limits, loads, begun, end }, gone))
    }

    /// The books of every worker.
    pub fn ledgers(&self) -> &[Arc<Ledger>] {
        &self.ledgers
    }

    /// The limits, for scrapes.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Connections open now, from accept until both legs are closed: a leg may still be told its end when the
    /// record has been written.
    pub fn open_connections(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }

    /// Connections that were accepted since the start.
    pub fn begun_connections(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Ends every established connection for `reason`.
    pub fn end_all(&self, reason: Reason) {
        self.end.send_replace(Some(reason));
    }
}

struct Worker {
    config: Arc<Config>,
    ledger: Arc<Ledger>,
    ledgers: Arc<[Arc<Ledger>]>,
    limits: Arc<Limits>,
    bulk_slabs: usize,
    snapshots: Snapshots,
    asker: Asker,
    credentials: CredentialsRx,
    fence: Arc<Fence>,
    ended: watch::Receiver<Option<Reason>>,
}

impl Worker {
    /// Runs for ever, with the door of one who accepts for itself until nobody stands there any more.
    async fn serve(self, accepted: mpsc::UnboundedReceiver<Handed>, own_door: Option<(Door, Vec<Seat>)>) {
        slab::lend_at_most(self.bulk_slabs);
        let Some((door, seats)) = own_door else { return self.run(accepted).await };
        let accepting = tokio::task::spawn_local(door.keep(seats));
        tokio::select! {
            _ = accepting => {}
            () = self.run(accepted) => {}
        }
    }

    async fn run(self, mut accepted: mpsc::UnboundedReceiver<Handed>) {
        let registry = Rc::new(Registry::default());
        let context = Rc::new(Context {
            own: Own::new(&self.config),
            config: self.config,
            ledger: self.ledger,
            ledgers: self.ledgers,
            limits: self.limits,
            snapshots: self.snapshots.clone(),
            asker: self.asker,
            credentials: self.credentials.clone(),
            fence: Arc::clone(&self.fence),
            registry: Rc::clone(&registry),
        });
        let (mut snapshots, mut credentials, mut ended) = (self.snapshots, self.credentials, self.ended);
        let mut fence = self.fence.watch();
        let mut applied: Option<Arc<Inbound>> = None;
        let mut probe = interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut manners = Manners::default();
        loop {
            tokio::select! {
                // Where nobody accepts any more, those that are here are served to their end.
                Some((next, load)) = accepted.recv() => {
                    start(&context, next, load);
                    manners.after_one().await;
                }
                Ok(()) = snapshots.changed() => {
                    if let Some(snapshot) = snapshots.borrow_and_update().as_deref() {
                        // What is known of other addresses changes often, and no inbound connection by it.
                        if applied.as_ref().is_none_or(|applied| !Arc::ptr_eq(applied, &snapshot.inbound)) {
                            registry.apply_policy(&snapshot.inbound);
                            applied = Some(Arc::clone(&snapshot.inbound));
                        }
                    }
                }
                Ok(()) = credentials.changed() => {
                    if let Some(fresh) = credentials.borrow_and_update().as_deref() {
                        registry.apply_bundle(&fresh.bundle);
                    }
                }
                Ok(()) = fence.changed() => {
                    if fence.borrow_and_update().is_some() {
                        registry.end_inbound(Reason::Fenced);
                    }
                }
                Ok(()) = ended.changed() => {
                    if let Some(reason) = *ended.borrow_and_update() {
                        registry.end_all(reason);
                    }
                }
                _ = probe.tick() => registry.probe(),
            }
        }
    }
}

/// A connection's task holds two boxes, one after the other: what a handshake needs is given back before the
/// connection settles down to what it holds while it is idle.
fn start(context: &Rc<Context>, accepted: Accepted, load: Load) {
    let context = Rc::clone(context);
    // It fails on a connection that is over, which is noticed where it is read.
    let _ = keepalive::take_turn(&accepted.stream, &context.config);
    let serving: Pin<Box<dyn Future<Output = Option<Relaying>>>> = match accepted.direction {
        Direction::Inbound => Box::pin(inbound::serve(context, accepted)),
        Direction::Outbound => Box::pin(outbound::serve(context, accepted)),
    };
    tokio::task::spawn_local(async move {
        if let Some(relaying) = serving.await {
            relaying.await;
        }
        drop(load);
    });
}

#[cfg(test)]
mod tests;
