//! Proxies that keep themselves a valid certificate while the CA's two replicas come and go. The renewal loop, its back-off, the
//! dial that tries one address after the other, TLS and gRPC are the proxy's own; the network and the time are turmoil's.
//!
//! A seed makes up a life: how long certificates live, and what happens to each replica, and when. Then it is asked of every proxy
//! when it asked, what came of it, and when it held nothing valid.

mod authority;
mod judge;
mod weather;
pub(crate) mod world;

pub use judge::{Judged, judge};

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ringmail_identity::SpiffeId;
use tokio::{sync::watch, time::timeout};

use crate::{
    control_plane::{Role, Server},
    credentials::{
        Status,
        ca::Ca,
        publisher::Publisher,
        renew::Renewal,
        source::{IssueError, Issued, Source},
    },
    tls::Credentials,
    watched_file::WatchedFiles,
};
use authority::{Authority, Conduct, OWN, SERVER, serve};
use weather::{Dice, Weather};
use world::{REPLICAS, World, elapsed};

/// The step of the simulated time. The loop itself looks four times a second.
const STEP: Duration = Duration::from_millis(100);
/// The longest that a segment is on its way.
const LATENCY_MAX: Duration = Duration::from_millis(200);
/// Proxies of one life: what they do to each other is the CA's load alone.
const PROXIES: usize = 2;
/// Certificates' lives that a proxy lives through.
const LIVES: u32 = 4;

/// One attempt to get a certificate, in time since the start.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// When it began.
    pub began: Duration,
    /// When it ended.
    pub ended: Duration,
    /// Whether a certificate came.
    pub issued: bool,
}

/// What became of one proxy.
#[derive(Clone, Debug, Default)]
pub struct Diary {
    /// Every attempt that ended.
    pub attempts: Vec<Attempt>,
    /// When each certificate that it held began to be in use, and when it ends.
    pub held: Vec<(Duration, Duration)>,
}

/// What became of a life: of its proxies, and when the CA could be asked.
#[derive(Clone, Debug)]
pub struct Life {
    /// How long a certificate lives.
    pub ttl: Duration,
    /// How long all of it took.
    pub whole: Duration,
    /// One for each proxy.
    pub proxies: Vec<Diary>,
    /// From when to when some replica answered, and none of those in its way swallowed what it had taken.
    pub reachable: Vec<(Duration, Duration)>,
}

type Diaries = Rc<RefCell<Vec<Diary>>>;

/// A source that writes into the diary.
struct Watched {
    ca: Ca,
    attempts: watch::Sender<Vec<Attempt>>,
}

impl Source for Watched {
    async fn issue(&self) -> Result<Issued, IssueError> {
        let began = elapsed();
        let result = self.ca.issue().await;
        let attempt = Attempt { began, ended: elapsed(), issued: result.is_ok() };
        self.attempts.send_modify(|attempts| attempts.push(attempt));
        result
    }
}

/// Lives through what `seed` makes up.
///
/// # Panics
/// If the simulation itself fails.
pub fn live(seed: u64) -> Life {
    let mut dice = Dice::new(seed);
    let ttl = Duration::from_secs(dice.between(120, 600));
    let whole = ttl * LIVES;
    let weather = Weather::made_up(&mut dice, whole);
    world::begin(World::new(&dice));
    let authority = Arc::new(Authority::new(ttl));
    let files = authority.files();
    let diaries: Diaries = Rc::new(RefCell::new(vec![Diary::default(); PROXIES]));

    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(STEP)
        .max_message_latency(LATENCY_MAX)
        .simulation_duration(whole * 2)
        .build();
    let conducts: Vec<_> = REPLICAS.iter().map(|_| Conduct::answering()).collect();
    for (name, conduct) in REPLICAS.iter().zip(&conducts) {
        let (authority, conduct) = (Arc::clone(&authority), conduct.clone());
        sim.host(*name, move || serve(Arc::clone(&authority), conduct.clone()));
    }
    for number in 0..PROXIES {
        let proxy = keep_fresh(number, files.path().to_owned(), Rc::clone(&diaries));
        sim.client(format!("proxy-{number}"), async move {
            // For ever, but for the end of the life.
            let _ = timeout(whole, proxy).await;
            Ok(())
        });
    }
    let mut coming = weather.changes().iter().peekable();
    loop {
        while let Some(change) = coming.next_if(|change| change.at <= sim.elapsed()) {
            change.apply(&mut sim, &conducts);
        }
        if sim.step().unwrap() {
            break;
        }
    }
    let proxies = diaries.take();
    Life { ttl, whole, proxies, reachable: weather.reachable(whole) }
}

/// One proxy: what `Keeper` puts together, with a source that is watched.
async fn keep_fresh(number: usize, files: std::path::PathBuf, diaries: Diaries) {
    let (sender, mut credentials) = watch::channel(None);
    let id: SpiffeId = OWN.parse().unwrap();
    let publisher = Publisher::new(id, "cluster.local".parse().unwrap(), sender, Arc::new(Status::default()));
    let server = Server {
        role: Role::Ca,
        authority: "ca:15012".to_owned(),
        server_name: SERVER.try_into().unwrap(),
        root_file: files.join("root.pem"),
        token_file: files.join("token"),
        cluster: "Kubernetes".to_owned(),
    };
    let (attempts, mut seen) = watch::channel(Vec::new());
    let source = Watched { ca: Ca { server, ttl: Duration::from_secs(86_400) }, attempts };
    let roots = WatchedFiles::new(vec![files.join("root.pem")], 1 << 20);
    let renewal = Renewal::new(source, publisher, roots).run();
    let watching = async {
        loop {
            tokio::select! {
                _ = seen.changed() => diaries.borrow_mut()[number].attempts.clone_from(&seen.borrow_and_update()),
                _ = credentials.changed() => {
                    let held = credentials.borrow_and_update().as_ref().map(holds);
                    diaries.borrow_mut()[number].held.extend(held);
                }
            }
        }
    };
    tokio::join!(renewal, watching);
}

fn holds(credentials: &Arc<Credentials>) -> (Duration, Duration) {
    let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(credentials.svid.not_after().as_secs());
    (elapsed(), ends.duration_since(world::epoch()).unwrap())
}
