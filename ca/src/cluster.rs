//! What the CA reads and writes through the Kubernetes API, when it runs on Kubernetes.
//!
//! The API server is away now and then, and that must cost no more than the answers that need it: what was
//! read stays in force, what is to be written waits. Only a start waits for it, not ready and saying why.
//! Rooms: `root_secret` and `open` (the self-signed root), `rotation` (its stages), `follow` (a Secret that
//! is followed), `distribute` (the bundle in every namespace), `lease` (who of the replicas writes it).

mod distribute;
mod fault;
mod follow;
mod lease;
mod open;
mod root_secret;
pub mod rotation;

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::{Client, Config};

pub(crate) use distribute::Distributor;
pub(crate) use fault::{ApiFault, cut};
pub(crate) use follow::{SecretFeed, feed};
pub(crate) use lease::Election;
pub use open::{OpenError, RootSecretSettings};
pub(crate) use open::{content, have_one_in_common, open};
pub(crate) use root_secret::{Content, RootSecret};

/// Name of the ConfigMap that holds the bundle.
pub const BUNDLE_CONFIG_MAP: &str = "ringmail-ca-root-cert";
/// Its key with all roots as PEM.
pub const BUNDLE_KEY: &str = "root-cert.pem";
/// Manager of the fields we apply, and part of what others see us by.
pub(crate) const FIELD_MANAGER: &str = "ringmail-ca";
/// A dead address must not hold a request for as long as TCP would.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one request that is not a watch. Longer than an API server needs, shorter than anybody waits.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A watch that failed is begun again after this: what changed meanwhile is to be known soon after an
/// outage, and a few requests per second from a few replicas are nothing to a server that comes back.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// Length of one watch request in seconds. A connection that died without a word is noticed at its end.
const WATCH_LENGTH: u32 = 60;

/// Where the API server is, and who we are there.
#[derive(Clone, Debug, Default)]
pub struct ClusterSettings {
    /// A kubeconfig file; without one, the service account of the own pod is used.
    pub kubeconfig: Option<PathBuf>,
    /// The CA's own namespace; without one, that of the service account or of the kubeconfig's context.
    pub namespace: Option<String>,
}

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The client cannot be made.
    #[error("kubernetes client: {0}")]
    Client(#[source] Box<kube::Error>),
    /// There is no service account in this place.
    #[error("no kubeconfig given, and no service account of a pod: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {}: {error}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: Box<kube::config::KubeconfigError>,
    },
}

/// A way to the API server.
#[derive(Clone)]
pub struct Cluster {
    /// The client; requests share its connections.
    pub client: Client,
    /// The own namespace.
    pub namespace: String,
}

impl Cluster {
    /// Makes the client. Nothing is sent yet, so the API server may be away.
    pub async fn connect(settings: &ClusterSettings) -> Result<Self, ConnectError> {
        let mut config = match &settings.kubeconfig {
            None => Config::incluster()?,
            Some(path) => from_file(path)
                .await
                .map_err(|error| ConnectError::Kubeconfig { path: path.clone(), error: Box::new(error) })?,
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // Who asks decides what is worth another try: a hidden one would eat the deadline.
        config.default_retry = false;
        let namespace = settings.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
        Ok(Self { client, namespace })
    }
}

async fn from_file(path: &PathBuf) -> Result<Config, kube::config::KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}

/// The objects that a watch is for.
pub(crate) fn watch_of() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_LENGTH)
}

/// The pause after a failed watch: always the same.
pub(crate) struct WatchPause;

impl Iterator for WatchPause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(WATCH_PAUSE)
    }
}

impl Backoff for WatchPause {
    fn reset(&mut self) {}
}
