//! The one door through which credentials reach handshakes.
//!
//! Whatever a source hands out is verified here as a peer would verify it, against our own bundle and
//! the identity that the settings name, before anybody sees it. What fails leaves the old credentials
//! in place.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ringmail_identity::{
    BundleError, PeerError, RootId, SpiffeId, Svid, SvidError, TrustBundle, TrustDomain, UnixTime, Usage,
};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    kept::Kept,
    source::Issued,
    status::{RefreshErrorReason, Status},
};
use crate::{
    outside::now,
    tls::material::{Credentials, MaterialError, TlsSettings},
};

/// Tells the wall clock's time; tests give one that jumps.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Takes what is needed to start again without a source; see [`Kept`].
pub(crate) type Keep = Box<dyn Fn(&Kept) + Send + Sync>;

/// Why credentials were not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// The roots are no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// rustls cannot use them.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// Chain and key are no SVID.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// A peer would refuse the certificate.
    #[error("own certificate as a {}: {cause}", match usage { Usage::Client => "client", Usage::Server => "server" })]
    Untrusted {
        /// The side we would play.
        usage: Usage,
        /// Why.
        cause: PeerError,
    },
    /// The certificate is somebody else's.
    #[error("certificate is for {got}, expected {expected}")]
    WrongIdentity {
        /// From the settings.
        expected: SpiffeId,
        /// From the certificate.
        got: SpiffeId,
    },
}

impl PublishError {
    /// Which series it counts in.
    pub(crate) fn reason(&self) -> RefreshErrorReason {
        match self {
            Self::Bundle(_) | Self::Material(_) | Self::Svid(_) => RefreshErrorReason::Malformed,
            Self::Untrusted { .. } => RefreshErrorReason::Untrusted,
            Self::WrongIdentity { .. } => RefreshErrorReason::WrongIdentity,
        }
    }
}

/// Verifies and publishes; see the module.
pub(crate) struct Publisher {
    expected: SpiffeId,
    trust_domain: TrustDomain,
    aliases: Vec<TrustDomain>,
    tls: TlsSettings,
    sender: watch::Sender<Option<Arc<Credentials>>>,
    status: Arc<Status>,
    clock: Clock,
    keep: Keep,
    held: Option<Held>,
    also_trusted: Vec<u8>,
    removed: HashSet<RootId>,
    generation: u64,
    /// By how much the source dates its certificates back, where it makes them when it is asked.
    dated_back: Option<Duration>,
    skew_told: bool,
}

/// A certificate says when it was made. More than this between that and the own clock is told: it is far beyond what an
/// answer takes, and less makes no certificate invalid.
const MAX_SKEW: Duration = Duration::from_secs(150);

struct Held {
    svid: Arc<Svid>,
    issued_roots: Vec<u8>,
}

impl Publisher {
    /// A publisher that accepts certificates of `expected` alone.
    pub(crate) fn new(
        expected: SpiffeId,
        trust_domain: TrustDomain,
        sender: watch::Sender<Option<Arc<Credentials>>>,
        status: Arc<Status>,
    ) -> Self {
        Self {
            expected,
            trust_domain,
            aliases: Vec::new(),
            tls: TlsSettings::default(),
            sender,
            status,
            clock: Arc::new(now),
            keep: Box::new(|_| {}),
            held: None,
            also_trusted: Vec::new(),
            removed: HashSet::new(),
            generation: 0,
            dated_back: None,
            skew_told: false,
        }
    }

    /// Accepts peers under other names of the trust domain too; our own certificate stays under its own.
    pub(crate) fn aliases(mut self, aliases: &[TrustDomain]) -> Self {
        self.aliases = aliases.to_vec();
        self
    }

    /// Has handshakes use what the settings choose.
    pub(crate) fn tls(mut self, tls: TlsSettings) -> Self {
        self.tls = tls;
        self
    }

    /// Compares the own clock with that of a source that makes certificates when it is asked, and dates them back by
    /// `dated_back`.
    pub(crate) fn comparing_clocks(mut self, dated_back: Duration) -> Self {
        self.dated_back = Some(dated_back);
        self
    }

    /// Hands what is published to `keep` as well.
    pub(crate) fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Publishes what a source handed out just now, if it holds.
    pub(crate) fn accept(&mut self, issued: &Issued) -> Result<(), PublishError> {
        let received_at = self.now();
        let svid = Svid::from_pem(&issued.chain, &issued.key)?;
        self.compare_clocks(&svid, received_at);
        self.publish_new(issued, svid)?;
        (self.keep)(&Kept::new(issued, received_at));
        Ok(())
    }

    /// Publishes what an earlier process held, if it still holds.
    pub(crate) fn restore(&mut self, kept: &Kept) -> Result<(), PublishError> {
        let svid = Svid::from_pem(&kept.issued.chain, &kept.issued.key)?;
        self.publish_new(&kept.issued, svid)
    }

    /// Tells once that the clocks differ, and once that they agree again. It is told before the certificate is judged:
    /// by a clock that is wrong, none may be valid.
    fn compare_clocks(&mut self, svid: &Svid, now: SystemTime) {
        let Some(dated_back) = self.dated_back else { return };
        let made = system_time(svid.not_before()) + dated_back;
        let (ahead, by) = match now.duration_since(made) {
            Ok(by) => (true, by),
            Err(error) => (false, error.duration()),
        };
        let seconds = if ahead { by.as_secs_f64() } else { -by.as_secs_f64() };
        self.status.skewed(seconds.round());
        let differs = by > MAX_SKEW;
        if differs && !self.skew_told {
            warn!(
                seconds = seconds.round(),
                "own clock is {} that of the ca: certificates may be refused here or by peers until the node's or the \
                 ca's clock is set",
                if ahead { "ahead of" } else { "behind" }
            );
        } else if !differs && self.skew_told {
            info!("own clock and that of the ca agree");
        }
        self.skew_told = differs;
    }

    /// Takes another set of roots, in PEM, to be trusted beside those of the source, and publishes the
    /// held SVID with the new bundle. Roots that are unusable leave everything as it was.
    ///
    /// The held SVID is not verified again: an own certificate that has expired meanwhile must not keep a
    /// root trusted that was removed.
    pub(crate) fn also_trust(&mut self, roots: &[u8]) -> Result<(), PublishError> {
        if roots == self.also_trusted {
            return Ok(());
        }
        let next = TrustBundle::from_pem(self.trust_domain.clone(), roots)?;
        let fresh = match &self.held {
            Some(held) => Some((Arc::clone(&held.svid), self.bundle(&held.issued_roots, roots)?)),
            None => None,
        };
        if let Some(before) = self.roots_in(&self.also_trusted) {
            self.removed.extend(before.roots().iter().map(|root| root.id));
        }
        self.removed.retain(|root| !next.contains(root));
        self.also_trusted = roots.to_vec();
        match fresh {
            Some((svid, bundle)) => self.publish(svid, bundle),
            None => Ok(()),
        }
    }

    fn publish_new(&mut self, issued: &Issued, svid: Svid) -> Result<(), PublishError> {
        let svid = Arc::new(svid);
        if *svid.id() != self.expected {
            let (expected, got) = (self.expected.clone(), svid.id().clone());
            return Err(PublishError::WrongIdentity { expected, got });
        }
        let bundle = self.bundle(&issued.roots, &self.also_trusted)?;
        self.verify(&svid, &bundle)?;
        self.publish(Arc::clone(&svid), bundle)?;
        self.held = Some(Held { svid, issued_roots: issued.roots.clone() });
        Ok(())
    }

    /// The union of what the source names and what the mounted file holds.
    ///
    /// Roots rotate by overlap: the new one must be trusted before any peer shows a leaf under it, so
    /// either channel alone may bring it; the old one may leave only when no peer shows a leaf under it
    /// any more, so it leaves when neither channel carries it. Removing too early ends healthy
    /// connections, removing late costs nothing but time, and that time is bounded: a root that left the
    /// file makes the renewal loop ask the source again within
    /// [`ROOT_REMOVED_SPREAD`](super::schedule::ROOT_REMOVED_SPREAD), and again until it is not named. The union trusts nobody new: who may
    /// answer as the CA is decided by the file, and whoever may issue any identity gains nothing by
    /// adding a root.
    fn bundle(&self, issued_roots: &[u8], also_trusted: &[u8]) -> Result<Arc<TrustBundle>, BundleError> {
        let union = [issued_roots, b"\n", also_trusted].concat();
        let bundle = TrustBundle::from_pem(self.trust_domain.clone(), &union)?;
        Ok(Arc::new(bundle.with_aliases(&self.aliases)))
    }

    fn verify(&self, svid: &Svid, bundle: &TrustBundle) -> Result<(), PublishError> {
        let now = unix_time(self.now());
        for usage in [Usage::Client, Usage::Server] {
            bundle
                .verify(svid.chain(), usage, now)
                .map_err(|cause| PublishError::Untrusted { usage, cause })?;
        }
        Ok(())
    }

    fn publish(&mut self, svid: Arc<Svid>, bundle: Arc<TrustBundle>) -> Result<(), PublishError> {
        let credentials = Credentials::new(svid, bundle, self.generation + 1, &self.tls)?;
        self.generation += 1;
        self.sender.send_replace(Some(Arc::new(credentials)));
        Ok(())
    }

    /// What handshakes see now.
    pub(crate) fn published(&self) -> Option<Arc<Credentials>> {
        self.sender.borrow().clone()
    }

    /// Whether a root that has left the file is still trusted because the source named it.
    pub(crate) fn lingers(&self) -> bool {
        let issued = self.held.as_ref().and_then(|held| self.roots_in(&held.issued_roots));
        issued.is_some_and(|issued| self.removed.iter().any(|root| issued.contains(root)))
    }

    fn roots_in(&self, pem: &[u8]) -> Option<TrustBundle> {
        TrustBundle::from_pem(self.trust_domain.clone(), pem).ok()
    }

    /// The wall clock's time.
    pub(crate) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// The books.
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }
}

#[cfg(test)]
impl Publisher {
    /// Goes by another clock.
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}

/// The time in the form that verification takes.
pub(crate) fn unix_time(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// The time in the form that clocks give.
pub(crate) fn system_time(at: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs())
}
