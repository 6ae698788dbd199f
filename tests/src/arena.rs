//! Pods for a test of hostile input: a victim whose sidecar is attacked from both sides, a good neighbour with a sidecar
//! of its own, and a stranger without one, who has the mesh's root and is announced as a member of it.
//!
//! A test makes connections, each a [`Trial`] with the reason that it is to end for, and [`Arena::judge`]s all of
//! them at the end: by the victim's access log, one line for each, and by its metric, which must have counted just those.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringmail_lab::{
    ca::{Ca, CaSettings, SigningKey},
    mesh::MeshFiles,
    network::{Network, Pod},
    process::wait_until,
    sidecar::{Sidecar, SidecarSettings},
    wire,
};

use crate::{
    adversary::{Ending, certificates::Forger},
    roots::{self, Root},
    said,
    streams::OWN_PORT,
    world::{CA, FIRST_ROOT, SERVICE_ACCOUNT, STRANGER, STRICT, scenario_folder},
};

/// The pod that is attacked.
pub const VICTIM: &str = "victim";

/// The pod whose clients behave.
pub const NEIGHBOUR: &str = "neighbour";

/// Short, so that a test of silence is.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);

/// A line is written by a thread of its own, and many connections end at once.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// How often a sidecar's connections have ended for each reason.
pub type Counts = BTreeMap<String, u64>;

/// One connection of a test.
#[derive(Debug)]
pub struct Trial {
    /// What was tried.
    pub name: String,
    /// Who connected, by which the access log tells it from others.
    pub source: SocketAddr,
    /// The reason that it is to end for.
    pub reason: &'static str,
    /// How it is to end for whoever looks, and how it did.
    pub ends: Option<(Ending, Ending)>,
    /// From the connect to the end.
    pub took: Duration,
}

/// The pods; dropping it ends every process and removes every namespace.
pub struct Arena {
    sidecars: BTreeMap<&'static str, Sidecar>,
    ca: Ca,
    /// The mesh's files.
    pub files: MeshFiles,
    /// The pods.
    pub network: Network,
    /// The root of the mesh, with its key.
    pub root: Root,
    folder: PathBuf,
    /// So much of the victim's log is about trials that have been judged: ports are used again.
    judged: AtomicUsize,
}

impl Arena {
    /// A victim with these settings beyond the usual, and all ready.
    ///
    /// # Errors
    /// What keeps a pod from being ready.
    pub fn new(settings: &[(&str, &str)]) -> Result<Self> {
        let folder = scenario_folder()?;
        let network = Network::create(&[VICTIM, NEIGHBOUR, STRANGER, CA])?;
        let files = MeshFiles::create(&folder.join("mesh"), None)?;
        files.write_policy("strict", STRICT)?;
        let root = Root::new(FIRST_ROOT)?;
        root.mount(&files)?;
        roots::trust(&files, &[&root])?;
        let ca = CaSettings { key: SigningKey::Mounted, ..CaSettings::default() };
        let ca = Ca::start(&network, CA, &files, &ca, &folder)?;
        files.announce(network.pod(STRANGER)?, SERVICE_ACCOUNT, true)?;
        let deadline = format!("{}ms", HANDSHAKE_DEADLINE.as_millis());
        let usual = SidecarSettings::new(SERVICE_ACCOUNT).with("handshake_timeout", &deadline);
        let victims = settings.iter().fold(usual.clone(), |all, (key, value)| all.with(key, value));
        let mut sidecars = BTreeMap::new();
        for (name, settings) in [(VICTIM, victims), (NEIGHBOUR, usual)] {
            sidecars.insert(name, Sidecar::start(network.pod(name)?, &files, &ca, &settings, &folder)?);
        }
        for (name, sidecar) in &mut sidecars {
            sidecar.wait_ready(network.pod(name)?)?;
        }
        Ok(Self { sidecars, ca, files, network, root, folder, judged: AtomicUsize::new(0) })
    }

    /// Where logs go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A pod.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.network.pod(name)
    }

    /// The sidecar that is attacked.
    #[expect(clippy::expect_used, reason = "made with the arena")]
    pub fn victim(&self) -> &Sidecar {
        self.sidecars.get(VICTIM).expect("a victim")
    }

    /// A pod's sidecar.
    ///
    /// # Errors
    /// Where it has none.
    pub fn sidecar(&mut self, name: &str) -> Result<&mut Sidecar> {
        self.sidecars.get_mut(name).with_context(|| format!("no sidecar in {name}"))
    }

    /// One more sidecar, of a pod that has none, with these settings beyond the usual, and without waiting.
    ///
    /// # Errors
    /// What keeps it from being started.
    pub fn start_sidecar(&self, name: &str, settings: &[(&str, &str)]) -> Result<Sidecar> {
        let usual = SidecarSettings::new(SERVICE_ACCOUNT);
        let settings = settings.iter().fold(usual, |all, (key, value)| all.with(key, value));
        Sidecar::start(self.pod(name)?, &self.files, &self.ca, &settings, &self.folder)
    }

    /// Whoever has the mesh's root.
    ///
    /// # Errors
    /// Only where no key can be made.
    pub fn forger(&self) -> Result<Forger<'_>> {
        Forger::new(&self.root, FIRST_ROOT)
    }

    /// Connects as the stranger to the victim's application.
    ///
    /// # Errors
    /// Where nobody takes it.
    pub fn attack(&self) -> Result<TcpStream> {
        let to = SocketAddr::new(self.pod(VICTIM)?.ip(), OWN_PORT);
        wire::connect(self.pod(STRANGER)?.namespace(), to)
    }

    /// Connects as the victim's application to the stranger, who listens.
    ///
    /// # Errors
    /// Where the own sidecar does not take it.
    pub fn lure(&self) -> Result<TcpStream> {
        let to = SocketAddr::new(self.pod(STRANGER)?.ip(), OWN_PORT);
        wire::connect(self.pod(VICTIM)?.namespace(), to)
    }

    /// The victim's application: takes every connection, and ends when its peer has.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub fn serve(&self) -> Result<()> {
        let listener = crate::streams::listen(self.pod(VICTIM)?)?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        Ok(())
    }

    /// Where the stranger waits for the victim.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub fn ambush(&self) -> Result<TcpListener> {
        crate::streams::listen(self.pod(STRANGER)?)
    }

    /// How often the victim's connections have ended, by reason.
    ///
    /// # Errors
    /// Where it does not say.
    pub fn counts(&self) -> Result<Counts> {
        let mut counts = Counts::new();
        for line in said::metrics(self.victim(), self.pod(VICTIM)?)?.lines() {
            let Some(labels) = line.strip_prefix("ringmail_connections_closed_total{") else { continue };
            let reason = labels.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next());
            let count: f64 = line.rsplit(' ').next().context("a value")?.parse()?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let count = count as u64;
            *counts.entry(reason.context("a reason")?.to_owned()).or_default() += count;
        }
        Ok(counts)
    }

    /// Asserts that the metric has counted just these trials, each with its reason, that the log tells each by a line or in a sum,
    /// and that each ended as it should. The longest of them.
    ///
    /// # Errors
    /// A line for each that is otherwise.
    pub fn judge(&self, before: &Counts, trials: &[Trial]) -> Result<Duration> {
        let mut expected = before.clone();
        for trial in trials {
            *expected.entry(trial.reason.to_owned()).or_default() += 1;
        }
        wait_until(TOLD_WITHIN, "the metric", || {
            let counts = self.counts()?;
            ensure!(counts == expected, "expected {expected:?}, got {counts:?}");
            Ok(Some(()))
        })?;
        let judged = self.judged.load(Ordering::Relaxed);
        let of_log = wait_until(TOLD_WITHIN, "a line or a part of a sum for each", || {
            let log = self.victim().log_text();
            let told = said::told(&log);
            for Trial { reason, .. } in trials {
                let (told, all) = (told.get(*reason), expected.get(*reason));
                ensure!(told == all, "{reason}: the log tells {told:?} of {all:?}");
            }
            self.judged.store(log.len(), Ordering::Relaxed);
            Ok(Some(reasons_by_source(&log[judged..])))
        })?;
        let wrong = trials.iter().filter_map(|trial| {
            let line = of_log.get(&trial.source);
            let is_said = line.is_none_or(|(reason, _)| reason == trial.reason);
            let ends = trial.ends.is_none_or(|(expected, seen)| expected == seen);
            (!is_said || !ends).then(|| format!("{trial:?}:\n    {line:?}"))
        });
        let wrong: Vec<_> = wrong.collect();
        ensure!(wrong.is_empty(), "{} of {} are otherwise:\n{}", wrong.len(), trials.len(), wrong.join("\n"));
        Ok(trials.iter().map(|trial| trial.took).max().unwrap_or_default())
    }
}

/// The reason and the whole line of each connection that has ended; of several from one source the last.
fn reasons_by_source(log: &str) -> BTreeMap<SocketAddr, (String, String)> {
    let of_line = |(source, reason, line): (_, _, &str)| (source, (reason, line.to_owned()));
    log.lines().filter_map(said::of_connection).map(of_line).collect()
}

impl Drop for Arena {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("logs of the failed test: {}", self.folder.display());
        } else {
            // What is left of a test that held is of no use, and a leftover folder harms nothing.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Runs one connection and says how long it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = work();
    (done, began.elapsed())
}

/// Runs `trials` at once, few at a time: most of them wait.
///
/// # Errors
/// The first one's that could not be made.
pub fn at_once<Row: Sync>(rows: &[Row], one: impl Fn(&Row) -> Result<Trial> + Sync) -> Result<Vec<Trial>> {
    /// Below what a sidecar lets one source do at once.
    const THREADS: usize = 16;
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<Trial>> {
        let mut done = Vec::new();
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(one(row)?);
        }
        Ok(done)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS.min(rows.len())).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_panic| anyhow::anyhow!("a trial panicked"))??);
        }
        Ok(all)
    })
}
