//! What changes while the CA runs: mounted files, token files, and its own certificate.
//!
//! Files are compared by content twice a second. That sees every way a file can be replaced (written
//! in place, renamed over, a folder swapped behind a symbolic link) and costs a few reads. Content
//! that cannot be used is reported once and the last good state stays in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::attest::Attestors;
use crate::authority::{Authority, Source};
use crate::metrics::Metrics;
use crate::persist::{self, PUBLIC_MODE, PersistError};
use crate::serve::ServingCertificate;

/// A change is in force well within a second.
const POLL: Duration = Duration::from_millis(400);

/// Everything that is looked after.
pub(crate) struct Upkeep {
    pub(crate) source: Source,
    pub(crate) authority: watch::Sender<Arc<Authority>>,
    pub(crate) certificate: Arc<ServingCertificate>,
    pub(crate) attestors: Arc<Attestors>,
    pub(crate) bundle_out: Option<BundleFile>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Upkeep {
    /// Looks after everything until `shutdown` turns true.
    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut authority_files = Watched::new(self.source.files());
        let mut token_files: Vec<_> = self.attestors.sources().map(|s| Watched::new(s.files())).collect();
        // The first look after the start finds what changed while starting.
        authority_files.forget();
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewal = Fault::default();
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|ending| *ending) => return,
                _ = ticks.tick() => {}
            }
            if authority_files.changed() {
                self.reload_authority(SystemTime::now());
            }
            self.reload_tokens(&mut token_files);
            self.renew_certificate(SystemTime::now(), &mut renewal);
            self.write_bundle();
        }
    }

    fn reload_authority(&self, now: SystemTime) {
        let next = match self.source.load(now) {
            Ok(next) => next,
            Err(error) => {
                self.metrics.reloaded(false);
                tracing::error!(%error, "changed ca files are refused: the last good ones stay in force");
                return;
            }
        };
        let last = Arc::clone(&self.authority.borrow());
        if next.is_same_as(&last) {
            return;
        }
        for root in last.roots().iter().filter(|root| !next.roots().contains(root)) {
            let root = crate::authority::describe(root);
            tracing::warn!(root, "a root left the bundle: what it signed is refused from now on");
        }
        if let Err(error) = self.certificate.renew(&next, now) {
            self.metrics.reloaded(false);
            tracing::error!(%error, "changed ca files are refused: no serving certificate can be signed");
            return;
        }
        self.metrics.reloaded(true);
        tracing::info!(roots = next.roots().len(), "changed ca files are in force");
        self.authority.send_replace(Arc::new(next));
    }

    fn reload_tokens(&self, watched: &mut [Watched]) {
        for (source, files) in self.attestors.sources().zip(watched) {
            if !files.changed() {
                continue;
            }
            match source.reload() {
                Ok(()) => tracing::info!(files = files.names(), "changed tokens are in force"),
                Err(error) => {
                    tracing::error!(%error, "changed tokens are refused: the last good ones stay in force");
                    self.metrics.reloaded(false);
                    continue;
                }
            }
            self.metrics.reloaded(true);
        }
    }

    fn renew_certificate(&self, now: SystemTime, fault: &mut Fault) {
        if !self.certificate.is_due(now) {
            return;
        }
        let authority = Arc::clone(&self.authority.borrow());
        match self.certificate.renew(&authority, now) {
            Ok(()) => fault.clear(),
            Err(error) => fault.report("the serving certificate cannot be renewed", &error.to_string()),
        }
    }

    fn write_bundle(&mut self) {
        let bundle = self.authority.borrow().bundle_pem();
        if let Some(file) = &mut self.bundle_out {
            file.keep(bundle);
        }
    }
}

/// The file through which others get the bundle.
pub(crate) struct BundleFile {
    path: PathBuf,
    written: String,
    fault: Fault,
}

impl BundleFile {
    /// Writes `bundle` to `path`.
    pub(crate) fn create(path: PathBuf, bundle: String) -> Result<Self, PersistError> {
        persist::publish(&path, bundle.as_bytes(), PUBLIC_MODE)?;
        Ok(Self { path, written: bundle, fault: Fault::default() })
    }

    fn keep(&mut self, bundle: String) {
        if bundle == self.written {
            return;
        }
        match persist::publish(&self.path, bundle.as_bytes(), PUBLIC_MODE) {
            Ok(()) => {
                self.written = bundle;
                self.fault.clear();
                tracing::info!(path = %self.path.display(), "the changed bundle was written");
            }
            Err(error) => self.fault.report("the bundle cannot be written", &error.to_string()),
        }
    }
}

/// A fault that lasts is said once, not twice a second.
#[derive(Default)]
struct Fault(Option<String>);

impl Fault {
    fn report(&mut self, what: &str, error: &str) {
        if self.0.as_deref() != Some(error) {
            tracing::error!(error, "{what}");
            self.0 = Some(error.to_owned());
        }
    }

    fn clear(&mut self) {
        self.0 = None;
    }
}

/// Files whose content is compared with what was seen last.
struct Watched {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Vec<u8>>>,
}

impl Watched {
    fn new(paths: Vec<PathBuf>) -> Self {
        let seen = contents(&paths);
        Self { paths, seen }
    }

    fn forget(&mut self) {
        self.seen.clear();
    }

    fn changed(&mut self) -> bool {
        let now = contents(&self.paths);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }

    fn names(&self) -> String {
        self.paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" ")
    }
}

/// A file that cannot be read is as good as absent here; whoever loads it says why.
fn contents(paths: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    paths.iter().map(|path: &PathBuf| std::fs::read(path as &Path).ok()).collect()
}
