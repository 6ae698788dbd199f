//! Worker threads: each owns its connections from accept to record.
//!
//! A worker is one thread with a single-threaded runtime; nothing of a connection ever crosses to
//! another thread, so nothing on the path of a byte is locked. With one worker it accepts for itself;
//! with more, one acceptor hands each connection, as a bare socket, to the worker with the fewest.

use std::{
    io,
    net::TcpListener,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::{mpsc, watch},
    task::LocalSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    access_log::AccessLog,
    config::Config,
    fence::{Absence, Fence},
    inbound,
    ledger::Ledger,
    limits::Limits,
    listen::{Accepted, accept_all},
    orig_dst::Own,
    outbound,
    reason::Reason,
    record::Direction,
    refusal::Refusal,
    registry::Registry,
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
    end: watch::Sender<Option<Reason>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Debug)]
struct Seat {
    queue: mpsc::UnboundedSender<Accepted>,
    load: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts the settings' number of workers and begins to accept.
    ///
    /// # Errors
    /// What the system reports when a thread or a runtime cannot be made.
    pub fn start(wiring: Wiring) -> io::Result<Self> {
        let limits = Limits::new(&wiring.config);
        let (end, ended) = watch::channel(None);
        let count = wiring.config.workers.max(1);
        let ledgers: Arc<[_]> =
            (0..count).map(|_| Arc::new(Ledger::new(wiring.access_log.clone()))).collect();
        let mut workers =
            Self { ledgers: Arc::clone(&ledgers), limits: Arc::clone(&limits), end, threads: Vec::new() };
        let mut seats = Vec::with_capacity(count);
        let mut door =
            Some(Door { listeners: listeners(wiring.outbound, wiring.inbound), limits: Arc::clone(&limits) });
        for (number, ledger) in ledgers.iter().enumerate() {
            let (queue, accepted) = mpsc::unbounded_channel();
            seats.push(Seat { queue, load: Arc::default() });
            let worker = Worker {
                config: Arc::clone(&wiring.config),
                ledger: Arc::clone(ledger),
                ledgers: Arc::clone(&ledgers),
                limits: Arc::clone(&limits),
                snapshots: wiring.snapshots.clone(),
                credentials: wiring.credentials.clone(),
                fence: Arc::clone(&wiring.fence),
                ended: ended.clone(),
                load: Arc::clone(&seats[number].load),
            };
            // One worker accepts for itself: nothing is handed from thread to thread.
            let own_door = if count == 1 { door.take().map(|door| (door, seats.clone())) } else { None };
            workers.threads.push(spawn(&format!("worker-{number}"), move || async move {
                if let Some((door, seats)) = own_door {
                    tokio::task::spawn_local(door.keep(seats));
                }
                worker.run(accepted).await;
            })?);
        }
        if let Some(door) = door {
            workers.threads.push(spawn("accept", move || door.keep(seats))?);
        }
        Ok(workers)
    }

    /// The books of every worker.
    pub fn ledgers(&self) -> &[Arc<Ledger>] {
        &self.ledgers
    }

    /// The limits, for scrapes.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.ledgers.iter().map(|ledger| ledger.live_count()).sum()
    }

    /// Ends every established connection for `reason`.
    pub fn end_all(&self, reason: Reason) {
        self.end.send_replace(Some(reason));
    }
}

fn listeners(outbound: Vec<TcpListener>, inbound: Vec<TcpListener>) -> Vec<(Direction, TcpListener)> {
    let outbound = outbound.into_iter().map(|listener| (Direction::Outbound, listener));
    outbound.chain(inbound.into_iter().map(|listener| (Direction::Inbound, listener))).collect()
}

/// The listeners, and what one who stands at them needs.
struct Door {
    listeners: Vec<(Direction, TcpListener)>,
    limits: Arc<Limits>,
}

impl Door {
    async fn keep(self, seats: Vec<Seat>) {
        let seats: Rc<[Seat]> = seats.into();
        for (direction, listener) in self.listeners {
            let (seats, limits) = (Rc::clone(&seats), Arc::clone(&self.limits));
            tokio::task::spawn_local(async move {
                let done =
                    accept_all(listener, direction, limits, |accepted| hand_over(&seats, accepted)).await;
                if let Err(error) = done {
                    tracing::error!(%error, direction = direction.as_str(), "accepting ended");
                }
            });
        }
        std::future::pending::<()>().await;
    }
}

fn hand_over(seats: &[Seat], accepted: Accepted) {
    let least = seats.iter().min_by_key(|seat| seat.load.load(Ordering::Relaxed));
    if let Some(seat) = least {
        seat.load.fetch_add(1, Ordering::Relaxed);
        // A worker that is gone drops the connection: the process is ending.
        let _ = seat.queue.send(accepted);
    }
}

/// Runs `work` on a thread and a runtime of its own; it is made there and never leaves.
fn spawn<F: Future<Output = ()>>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        runtime.block_on(LocalSet::new().run_until(work()));
    })
}

struct Worker {
    config: Arc<Config>,
    ledger: Arc<Ledger>,
    ledgers: Arc<[Arc<Ledger>]>,
    limits: Arc<Limits>,
    snapshots: Snapshots,
    credentials: CredentialsRx,
    fence: Arc<Fence>,
    ended: watch::Receiver<Option<Reason>>,
    load: Arc<AtomicUsize>,
}

impl Worker {
    async fn run(self, mut accepted: mpsc::UnboundedReceiver<Accepted>) {
        let registry = Rc::new(Registry::default());
        let context = Rc::new(Context {
            own: Own::new(&self.config),
            config: self.config,
            ledger: self.ledger,
            ledgers: self.ledgers,
            limits: self.limits,
            snapshots: self.snapshots.clone(),
            credentials: self.credentials.clone(),
            fence: Arc::clone(&self.fence),
            registry: Rc::clone(&registry),
        });
        let (mut snapshots, mut credentials, mut ended) = (self.snapshots, self.credentials, self.ended);
        let mut fence = self.fence.watch();
        let mut probe = interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                next = accepted.recv() => match next {
                    Some(next) => start(&context, next, &self.load),
                    None => return,
                },
                Ok(()) = snapshots.changed() => {
                    if let Some(snapshot) = snapshots.borrow_and_update().as_deref() {
                        registry.apply_policy(&snapshot.inbound);
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

fn start(context: &Rc<Context>, accepted: Accepted, load: &Arc<AtomicUsize>) {
    let (context, load) = (Rc::clone(context), Load(Arc::clone(load)));
    tokio::task::spawn_local(async move {
        let _load = load;
        match accepted.direction {
            Direction::Inbound => inbound::serve(context, accepted).await,
            Direction::Outbound => outbound::serve(context, accepted).await,
        }
    });
}

/// A worker's share of the work, given back also when the connection's task panics.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
