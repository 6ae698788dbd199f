//! The process that serves connections: which parts it has, and in which order they begin and end.
//!
//! The main thread is the control thread: credentials, discovery, the watch of the configuration, admin
//! and signals share its runtime, so that nothing of them delays a byte. The workers have threads of
//! their own.

mod ending;
mod error;

use std::{
    fs, io,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::{prctl, signal::Signal},
    unistd::getppid,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tracing::{info, warn};

pub use self::error::DataPlaneError;
use self::{
    ending::{Ending, end},
    error::system,
};
use crate::{
    access_log::AccessLog,
    admin::{self, AdminListeners},
    config::{Config, ConfigError, Loaded, SETTINGS, Sources, System},
    credentials::{self, KeepBytes, Keeper, KeptBytes},
    discovery::{self, Discovery, config_watch::ConfigWatch},
    fence::Fence,
    listen::Sockets,
    memory,
    parent::{
        ending_signals,
        handover::{Left, leave, take_over},
    },
    snapshot::Snapshots,
    telemetry::{self, Telemetry},
    tls::CredentialsRx,
    worker::{Wiring, Workers},
};

/// How long connections are left in the backlog for credentials and policies to be there. After a crash
/// both are there within milliseconds, and a connection taken before them would be refused; a proxy that
/// has to wait for its CA must meanwhile pass on what leaves the mesh.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long stdout may take for the last lines of the access log.
const FLUSH_WAIT: Duration = Duration::from_secs(1);
/// A parent that does not take the credentials is gone or stuck; renewal does not wait for it.
const KEEP_WAIT: Duration = Duration::from_secs(1);

/// Everything a data plane begins with.
pub struct DataPlane {
    file: Option<PathBuf>,
    config: Arc<Config>,
    warnings: Vec<String>,
    sockets: Sockets,
    restarts: u64,
    kept: Kept,
    keep: Keep,
}

/// What an earlier data plane left with the parent.
#[derive(Default)]
struct Kept {
    credentials: Option<KeptBytes>,
    discovery: Option<KeptBytes>,
}

/// The way to leave it there. Nothing is kept without a parent.
#[derive(Default)]
struct Keep {
    credentials: Option<KeepBytes>,
    discovery: Option<KeepBytes>,
}

/// Reads the settings and the text they came from: none without a file, where the environment has them all.
///
/// # Errors
/// [`DataPlaneError::ConfigFile`] and [`DataPlaneError::Config`], with every fault at once.
pub fn settings(file: Option<&Path>) -> Result<(Loaded, String), DataPlaneError> {
    let text = match file {
        Some(file) => fs::read_to_string(file)
            .map_err(|cause| DataPlaneError::ConfigFile { path: file.to_owned(), cause })?,
        None => String::new(),
    };
    Ok((settings_of(file, &text)?, text))
}

fn settings_of(file: Option<&Path>, text: &str) -> Result<Loaded, ConfigError> {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let file = file.unwrap_or(Path::new("no file"));
    Config::from_sources(&Sources { file, text, environment: &environment, system: &System::read() })
}

impl DataPlane {
    /// A data plane without a parent.
    pub fn alone(file: Option<PathBuf>, loaded: Loaded, sockets: Sockets) -> Self {
        let Loaded { config, warnings } = loaded;
        Self {
            file,
            config: Arc::new(config),
            warnings,
            sockets,
            restarts: 0,
            kept: Kept::default(),
            keep: Keep::default(),
        }
    }

    /// A data plane that takes over from its parent, which speaks through standard input. It dies with
    /// its parent: two data planes that outlive it would share nothing but the listening sockets.
    ///
    /// # Errors
    /// [`DataPlaneError`] where the parent is gone or hands over something else than expected.
    pub fn of_parent(file: Option<PathBuf>) -> Result<Self, DataPlaneError> {
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(system("death signal of the parent"))?;
        let stdin =
            io::stdin().as_fd().try_clone_to_owned().map_err(system("socket pair with the parent"))?;
        let stream = UnixStream::from(stdin);
        let handover = take_over(&stream)?;
        // A parent that died before the signal was set left another process in its place.
        if getppid().as_raw() != handover.greeting.parent {
            return Err(DataPlaneError::Orphan { expected: handover.greeting.parent, got: getppid() });
        }
        stream.set_write_timeout(Some(KEEP_WAIT)).map_err(system("socket pair with the parent"))?;
        // The text that the sockets were bound by, whatever the file says by now.
        let Loaded { config, warnings } = settings_of(file.as_deref(), &handover.greeting.config)?;
        let stream = Arc::new(stream);
        let keep = |left: Left| -> Option<KeepBytes> {
            let stream = Arc::clone(&stream);
            Some(Box::new(move |bytes| {
                if let Err(error) = leave(&stream, left, bytes) {
                    warn!(%error, ?left, "not kept: after a crash the control plane would be needed");
                }
            }))
        };
        Ok(Self {
            file,
            config: Arc::new(config),
            warnings,
            sockets: handover.sockets,
            restarts: handover.greeting.restarts,
            kept: Kept { credentials: handover.credentials, discovery: handover.discovery },
            keep: Keep { credentials: keep(Left::Credentials), discovery: keep(Left::Discovery) },
        })
    }

    /// Serves until a signal ends it and its connections are drained.
    ///
    /// # Errors
    /// [`DataPlaneError`] where it cannot start, or a part of it ended.
    pub fn run(self) -> Result<(), DataPlaneError> {
        // Every thread inherits this: the control thread alone hears them, once it listens.
        ending_signals().thread_block().map_err(system("signals"))?;
        let telemetry = telemetry::init(&self.config.log_level, self.config.log_format)?;
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(system("control runtime"))?;
        self.tell()?;
        run_alone(runtime, self.control(telemetry))
    }

    fn tell(&self) -> Result<(), DataPlaneError> {
        let Sockets { outbound, inbound, admin, stats, health, linkerd } = &self.sockets;
        let listeners: Vec<String> = [outbound, inbound, admin, stats, health, linkerd]
            .into_iter()
            .flatten()
            .filter_map(|listener| listener.local_addr().ok())
            .map(|address| address.to_string())
            .collect();
        let settings: serde_json::Map<_, _> =
            SETTINGS.iter().map(|setting| (setting.name.to_owned(), setting.show(&self.config))).collect();
        info!(
            version = env!("CARGO_PKG_VERSION"),
            identity = %credentials::own_id(&self.config)?,
            restarts = self.restarts,
            listeners = listeners.join(" "),
            "data plane starts"
        );
        info!(settings = %serde_json::Value::Object(settings), "effective settings");
        for warning in &self.warnings {
            warn!("{warning}");
        }
        Ok(())
    }

    async fn control(self, telemetry: Telemetry) -> Result<(), DataPlaneError> {
        let mut ending = Ending::listen()?;
        let fence = Fence::start(&self.config).map_err(system("fence"))?;
        let access_log = AccessLog::new(self.config.access_log).map_err(system("access log"))?;
        let (credentials_tx, credentials) = watch::channel(None);
        let (snapshots_tx, snapshots) = watch::channel(None);
        let identity_status = Arc::<credentials::Status>::default();
        let discovery_status = Arc::<discovery::Status>::default();

        let mut parts: JoinSet<Result<(), DataPlaneError>> = JoinSet::new();
        let keeper = Keeper::default().starting_with(self.kept.credentials).keeping(self.keep.credentials);
        let (config, status) = (Arc::clone(&self.config), Arc::clone(&identity_status));
        parts.spawn(async move {
            keeper.run(&config, credentials_tx, status).await?;
            Err(DataPlaneError::Ended("renewal of credentials".into()))
        });
        let discovery = Discovery::new(
            &self.config,
            snapshots_tx,
            Arc::clone(&discovery_status),
            self.kept.discovery.as_ref().map(|kept| &kept[..]),
            self.keep.discovery,
        );
        let asker = discovery.asker();
        parts.spawn(ends("discovery", discovery.run()));
        if let Some(file) = self.file {
            let hot = hot_settings(telemetry, access_log.clone());
            let watch = ConfigWatch::new(file, Arc::clone(&self.config), hot);
            parts.spawn(ends("watch of the configuration", watch.run()));
        }

        first_complete(&credentials, &snapshots).await;
        let workers = Workers::start(Wiring {
            config: Arc::clone(&self.config),
            access_log: access_log.clone(),
            snapshots: snapshots.clone(),
            asker,
            credentials: credentials.clone(),
            fence: Arc::clone(&fence),
            outbound: self.sockets.outbound,
            inbound: self.sockets.inbound,
        });
        let (workers, mut gone) = workers.map_err(system("workers"))?;
        let workers = Arc::new(workers);
        tokio::spawn(memory::give_back(Arc::clone(&workers)));
        let state = Arc::new(admin::State {
            config: Arc::clone(&self.config),
            ledgers: workers.ledgers().to_vec(),
            snapshots,
            credentials,
            fence,
            identity_status,
            discovery_status,
            limits: Arc::clone(workers.limits().counters()),
            access_log: access_log.clone(),
            restarts: self.restarts,
        });
        let listeners = AdminListeners {
            admin: self.sockets.admin,
            stats: self.sockets.stats,
            health: self.sockets.health,
            linkerd: self.sockets.linkerd,
        };
        parts.spawn(async move {
            admin::serve(state, listeners).await?;
            Err(DataPlaneError::Ended("admin".into()))
        });

        let served = tokio::select! {
            ended = parts.join_next() => Err(why(ended)),
            thread = gone.recv() => Err(thread_gone(thread)),
            () = ending.heard() => {
                end(&workers, &self.config, &mut ending).await;
                Ok(())
            }
        };
        let _ = access_log.flush(FLUSH_WAIT);
        served
    }
}

/// Runs `work` to its end and leaves behind what is still under way on the runtime's own threads: a lookup of
/// a name cannot be cut short, and takes as long as the resolver likes.
fn run_alone<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

async fn ends(part: &'static str, run: impl Future<Output = ()>) -> Result<(), DataPlaneError> {
    run.await;
    Err(DataPlaneError::Ended(part.into()))
}

fn why(ended: Option<Result<Result<(), DataPlaneError>, tokio::task::JoinError>>) -> DataPlaneError {
    match ended {
        Some(Ok(Err(error))) => error,
        // A panic, which has told its own story.
        Some(Ok(Ok(())) | Err(_)) | None => DataPlaneError::Ended("a part of the control thread".into()),
    }
}

fn thread_gone(name: Option<String>) -> DataPlaneError {
    DataPlaneError::Ended(name.map_or("every worker".into(), |name| format!("thread {name}").into()))
}

async fn first_complete(credentials: &CredentialsRx, snapshots: &Snapshots) {
    let (mut credentials, mut snapshots) = (credentials.clone(), snapshots.clone());
    let complete = async {
        // A sender that is gone ends the data plane elsewhere.
        let _ = credentials.wait_for(Option::is_some).await;
        let _ = snapshots.wait_for(Option::is_some).await;
    };
    let _ = timeout(FIRST_WAIT, complete).await;
}

fn hot_settings(telemetry: Telemetry, access_log: AccessLog) -> Box<dyn Fn(&Config) + Send> {
    Box::new(move |config| {
        if let Err(error) = telemetry.set_level(&config.log_level) {
            warn!(%error, "log level not applied");
        }
        access_log.set_format(config.access_log);
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Instant};

    use super::*;

    #[test]
    fn a_lookup_that_hangs_does_not_hold_up_the_end() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (began, begins) = mpsc::channel();
        // Let go at last, so that a runtime that waits makes this fail instead of hang.
        let releasing = thread::spawn(move || {
            thread::sleep(FIRST_WAIT * 3);
            drop(release);
        });
        let start = Instant::now();
        run_alone(runtime, async {
            tokio::task::spawn_blocking(move || {
                began.send(()).unwrap();
                held.recv().unwrap_err();
            });
            begins.recv().unwrap();
        });
        assert!(start.elapsed() < FIRST_WAIT, "{:?}", start.elapsed());
        releasing.join().unwrap();
    }
}
