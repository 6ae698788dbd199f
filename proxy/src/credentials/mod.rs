//! Who this proxy is, kept fresh: from a source, through one verification, to every handshake.
//!
//! - `source`: what a source of identity hands out, and why it could not.
//! - `ca`: a CA over Istio's CSR protocol; `files`: files that somebody else renews.
//! - `publisher`: verifies what was handed out and publishes it; nothing else does.
//! - `renew` and `schedule`: when to ask, and how to go on when there is no answer.
//! - `kept`: what outlives a crash of the data plane in the parent's memory.
//! - `status`: what admin and metrics may know.
//!
//! Until the first credentials are published the proxy is not ready and retries; afterwards the old
//! ones serve for as long as they are valid, and established connections for as long as they like.

pub(crate) mod ca;
mod files;
mod kept;
pub(crate) mod publisher;
pub(crate) mod renew;
mod schedule;
pub(crate) mod source;
mod status;

#[cfg(test)]
pub(crate) mod test_ca;

use std::sync::Arc;

use ringmail_identity::{IdError, SpiffeId};
use tokio::sync::watch;
use tracing::warn;
use zeroize::Zeroizing;

use crate::{
    config::{Config, IdentitySource},
    control_plane::MAX_ROOTS_FILE,
    tls::{Credentials, TlsSettings},
    watched_file::{WatchedFiles, read_bounded},
};
use ca::Ca;
use files::{FileRenewal, Files};
use kept::Kept;
use publisher::Publisher;
use renew::Renewal;
pub use status::{RefreshError, RefreshErrorReason, Status};

/// The sending end of the credentials.
pub type CredentialsTx = watch::Sender<Option<Arc<Credentials>>>;

/// The bytes that let a later process go on with these credentials: they hold a private key.
pub type KeptBytes = Zeroizing<Vec<u8>>;

/// Called with the bytes to keep after each renewal.
pub type KeepBytes = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The identity that the settings name, and the only one that is ever published.
///
/// # Errors
/// [`IdError`] where namespace or service account cannot be part of a SPIFFE ID.
pub fn own_id(config: &Config) -> Result<SpiffeId, IdError> {
    SpiffeId::for_service_account(&config.trust_domain, &config.namespace, &config.service_account)
}

/// Keeps the credentials fresh as the settings say, for ever.
#[derive(Default)]
pub struct Keeper {
    kept: Option<KeptBytes>,
    keep: Option<KeepBytes>,
}

impl Keeper {
    /// Begins with what an earlier process kept, so that neither the CA nor a renewal is needed.
    #[must_use]
    pub fn starting_with(mut self, kept: Option<KeptBytes>) -> Self {
        self.kept = kept;
        self
    }

    /// Hands what is published to `keep`, to be kept for a later process.
    #[must_use]
    pub fn keeping(mut self, keep: Option<KeepBytes>) -> Self {
        self.keep = keep;
        self
    }

    /// Runs for ever, publishing to `sender`.
    ///
    /// # Errors
    /// [`IdError`] at once where the settings name no identity.
    pub async fn run(
        self,
        config: &Config,
        sender: CredentialsTx,
        status: Arc<Status>,
    ) -> Result<(), IdError> {
        let mut publisher = Publisher::new(own_id(config)?, config.trust_domain.clone(), sender, status)
            .aliases(&config.trust_domain_aliases)
            .tls(TlsSettings::new(config));
        if let Some(keep) = self.keep {
            publisher = publisher.keep(Box::new(move |kept| keep(&kept.to_bytes())));
        }
        let kept = self.kept.and_then(|bytes| match Kept::from_bytes(&bytes) {
            Ok(kept) => Some(kept),
            Err(error) => {
                warn!(%error, "credentials kept across a restart cannot be read");
                None
            }
        });
        match config.identity_source {
            IdentitySource::Ca => from_ca(config, publisher, kept).await,
            IdentitySource::Files => from_files(config, publisher, kept).await,
        }
        Ok(())
    }
}

async fn from_ca(config: &Config, publisher: Publisher, kept: Option<Kept>) {
    let source = Ca::new(config);
    let mut publisher = publisher.comparing_clocks(ca::DATED_BACK);
    // Read once ahead of the watch, which waits for a second look: a proxy that goes on with kept
    // credentials must not refuse, for that moment, peers whose root only the file names.
    if let Ok(roots) = read_bounded(&config.ca_root_file, MAX_ROOTS_FILE)
        && let Err(error) = publisher.also_trust(&roots)
    {
        warn!(%error, "roots of the ca not applied");
    }
    let roots = WatchedFiles::new(vec![config.ca_root_file.clone()], MAX_ROOTS_FILE);
    let mut renewal = Renewal::new(source, publisher, roots);
    if let Some(kept) = kept {
        renewal = renewal.restore(&kept);
    }
    renewal.run().await;
}

async fn from_files(config: &Config, publisher: Publisher, kept: Option<Kept>) {
    let files = Files {
        cert: config.cert_file.clone(),
        key: config.key_file.clone(),
        bundle: config.bundle_file.clone(),
    };
    let mut renewal = FileRenewal::new(files, publisher);
    if let Some(kept) = kept {
        renewal = renewal.restore(&kept);
    }
    renewal.run().await;
}
