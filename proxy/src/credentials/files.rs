//! Files as a source: certificate, key and bundle that somebody else puts there and renews.
//!
//! The three belong together and are taken together, once they have stood still and once they verify.
//! Whatever does not is left where it is: the credentials held stay in use, and the error says why.

use std::{path::PathBuf, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{
    publisher::Publisher,
    renew::TICK,
    source::Issued,
    status::{RefreshError, RefreshErrorReason},
};
use crate::watched_file::{Contents, WatchedFiles};

/// Bytes of each file: far above any chain or bundle.
const MAX_FILE: usize = 1024 * 1024;
/// How often content that was refused is judged again without having changed: a certificate that is not
/// valid yet becomes so.
const RETRY: Duration = Duration::from_secs(5);

/// Where the three are.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The certificates to present, leaf first.
    pub(crate) cert: PathBuf,
    /// The leaf's key.
    pub(crate) key: PathBuf,
    /// The roots.
    pub(crate) bundle: PathBuf,
}

/// Watches the three files and publishes them.
pub(crate) struct FileRenewal {
    publisher: Publisher,
    watched: WatchedFiles,
    refused: Option<(Issued, Instant)>,
}

impl FileRenewal {
    /// Watches `files`.
    pub(crate) fn new(files: Files, publisher: Publisher) -> Self {
        let watched = WatchedFiles::new(vec![files.cert, files.key, files.bundle], MAX_FILE);
        Self { publisher, watched, refused: None }
    }

    /// Goes on with what an earlier process held, until the files say something else.
    pub(crate) fn restore(mut self, kept: &super::kept::Kept) -> Self {
        if let Err(error) = self.publisher.restore(kept) {
            warn!(%error, "credentials kept across a restart are not usable: waiting for the files");
        }
        self
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look();
        }
    }

    fn look(&mut self) {
        match self.watched.poll() {
            Some(Ok(contents)) => {
                if let Some(issued) = issued(contents) {
                    self.judge(issued);
                }
            }
            Some(Err(error)) => {
                self.refused = None;
                self.failed(RefreshErrorReason::Files, error.to_string());
            }
            None => {
                if let Some((issued, _)) = self.refused.take_if(|(_, again)| Instant::now() >= *again) {
                    self.judge(issued);
                }
            }
        }
    }

    fn judge(&mut self, issued: Issued) {
        let now = self.publisher.now();
        self.refused = None;
        match self.publisher.accept(&issued) {
            Ok(()) => {
                self.publisher.status().succeeded(now, None);
                if let Some(credentials) = self.publisher.published() {
                    info!(
                        identity = %credentials.svid.id(),
                        serial = credentials.svid.serial(),
                        generation = credentials.generation,
                        "credentials read from files"
                    );
                }
            }
            Err(error) => {
                self.failed(error.reason(), error.to_string());
                if error.reason() == RefreshErrorReason::Untrusted {
                    self.refused = Some((issued, Instant::now() + RETRY));
                }
            }
        }
    }

    fn failed(&self, reason: RefreshErrorReason, text: String) {
        let at = self.publisher.now();
        // Time alone can make an untrusted certificate valid; everything else needs another content.
        let (next_try, next) = if reason == RefreshErrorReason::Untrusted {
            ("in 5 s, or when a file changes", at.checked_add(RETRY))
        } else {
            ("when a file changes", None)
        };
        warn!(
            reason = reason.as_str(),
            error = text,
            next_try,
            advice = reason.doc(),
            "credentials in files not applied: the ones held stay in use"
        );
        self.publisher.status().failed(RefreshError { reason, text, at }, next);
    }
}

fn issued(contents: Contents) -> Option<Issued> {
    let [chain, key, bundle] = <[_; 3]>::try_from(contents).ok()?;
    Some(Issued { chain: chain.to_vec(), key, roots: bundle.to_vec() })
}

#[cfg(test)]
mod tests;
