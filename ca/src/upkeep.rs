//! What changes while the CA runs: mounted files, token files, and its own certificate.
//!
//! Content that cannot be used is reported once and the last good state stays in force, while the
//! refused content is judged again now and then.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::attest::Attestors;
use crate::authority::{Authority, Source};
use crate::followed::{Due, Followed, LOOK};
use crate::metrics::Metrics;
use crate::persist::{self, PUBLIC_MODE, PersistError};
use crate::serve::ServingCertificate;

/// For the log: when refused content is judged again.
const NEXT_TRY: &str = "in 5 s, or when a file changes";

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
        let mut authority_files = Followed::new(self.source.files()).with_secret(self.source.feed());
        let mut token_files: Vec<_> = self.attestors.sources().map(|s| Followed::new(s.files())).collect();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewal = Fault::default();
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|ending| *ending) => return,
                _ = ticks.tick() => {}
            }
            if let Some(due) = authority_files.look(Instant::now()) {
                let reloaded = self.reload_authority(&mut authority_files, SystemTime::now());
                self.note(&mut authority_files, due, reloaded);
            }
            self.reload_tokens(&mut token_files);
            self.renew_certificate(SystemTime::now(), &mut renewal);
            self.write_bundle();
        }
    }

    /// Whether something else is in force now.
    fn reload_authority(&self, files: &mut Followed, now: SystemTime) -> Result<bool, Refusal> {
        let next = self.source.load(now);
        if files.moved_while_read() {
            return Ok(false);
        }
        let last = Arc::clone(&self.authority.borrow());
        let next = next.and_then(|next| self.source.check_change(&last, &next).map(|()| next));
        let next = next.map_err(|error| Refusal {
            what: "changed ca files are refused: the last good ones stay in force",
            fault: error.without_time(),
            error: error.to_string(),
        })?;
        if next.is_same_as(&last) {
            return Ok(false);
        }
        self.certificate.renew(&next, now).map_err(|error| Refusal {
            what: "changed ca files are refused: no serving certificate can be signed",
            fault: error.to_string(),
            error: error.to_string(),
        })?;
        for root in last.roots().iter().filter(|root| !next.roots().contains(root)) {
            let root = crate::authority::describe(root);
            tracing::warn!(root, "a root left the bundle: what it signed is refused from now on");
        }
        tracing::info!(roots = next.roots().len(), "changed ca files are in force");
        self.authority.send_replace(Arc::new(next));
        Ok(true)
    }

    fn reload_tokens(&self, followed: &mut [Followed]) {
        for (source, files) in self.attestors.sources().zip(followed) {
            let Some(due) = files.look(Instant::now()) else { continue };
            let reloaded = source.reload().map_err(|error| Refusal {
                what: "changed tokens are refused: the last good ones stay in force",
                fault: error.to_string(),
                error: error.to_string(),
            });
            let is_news = due != Due::Unknown;
            if reloaded.is_ok() && is_news {
                tracing::info!(files = files.names(), "changed tokens are in force");
            }
            self.note(files, due, reloaded.map(|()| is_news));
        }
    }

    /// Counts and reports what came of judging `files`. What stays refused counts once.
    fn note(&self, files: &mut Followed, due: Due, reloaded: Result<bool, Refusal>) {
        match reloaded {
            Ok(true) => self.metrics.reloaded(true),
            Ok(false) => {}
            Err(Refusal { what, fault, error }) => {
                if due != Due::Again {
                    self.metrics.reloaded(false);
                }
                if files.refused(Instant::now(), fault) {
                    tracing::error!(error, next_try = NEXT_TRY, "{what}");
                }
            }
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

/// Why files were refused.
struct Refusal {
    what: &'static str,
    /// Tells one fault from another.
    fault: String,
    /// The fault for people.
    error: String,
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

/// A fault that lasts is said once, not at every look.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::StaticTokens;
    use crate::authority::self_signed::{FirstRoot, StateFolder};
    use http::{HeaderMap, HeaderValue};
    use std::fs;

    fn bearer(token: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        HeaderMap::from_iter([(http::header::AUTHORIZATION, value)])
    }

    fn row(token: &str) -> String {
        format!("- {{token: {token}, namespace: ignite, service_account: node}}\n")
    }

    #[tokio::test]
    async fn tokens_that_changed_between_their_reading_and_the_first_look_are_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let (path, now) = (folder.path().join("tokens.yaml"), SystemTime::now());
        let state = StateFolder {
            path: folder.path().join("state"),
            first_root: FirstRoot::Create,
            bootstrap_new_root: false,
        };
        let source = Source::self_signed(&state, None, "cluster.local".parse().unwrap(), now).unwrap();
        let authority = source.load(now).unwrap();
        fs::write(&path, row("first")).unwrap();
        let tokens = StaticTokens::open(path.clone(), "cluster.local".parse().unwrap()).unwrap();
        fs::write(&path, row("second")).unwrap();
        let attestors = Arc::new(Attestors::new(None, Some(Box::new(tokens))));
        let upkeep = Upkeep {
            source,
            certificate: Arc::new(ServingCertificate::new(Vec::new(), &authority, now).unwrap()),
            authority: watch::channel(Arc::new(authority)).0,
            attestors: Arc::clone(&attestors),
            bundle_out: None,
            metrics: Arc::new(Metrics::new().unwrap()),
        };
        let (_running, shutdown) = watch::channel(false);
        tokio::spawn(upkeep.run(shutdown));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(attestors.attest(&bearer("second")).await.is_ok());
        assert!(attestors.attest(&bearer("first")).await.is_err());
    }
}
