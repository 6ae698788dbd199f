//! Discovery: who answers at an address, and what holds there, told to every proxy that asks.
//!
//! From the API server to a proxy: [`watch`] (objects, reduced to what matters), [`feed`] (changes in batches),
//! [`world`] (what follows, pure), [`hub`] (whom it concerns), [`stream`] with [`subscription`] and [`own`] (what one
//! proxy holds), [`server`] (behind a [`ringmail_ca::door`], and whose stream it is, in the word of [`ringmail_ca::attest`]). Beside them:
//! [`serving`] (the server's certificate), [`crds`] and [`events`] (what only the leader writes, by [`lease`]), [`metrics`],
//! [`snapshot`] (the world of one moment, for a person who asks).

pub mod config;
mod crds;
mod events;
mod feed;
mod hub;
mod lease;
pub mod metrics;
mod own;
mod pace;
pub mod server;
pub mod serving;
pub mod snapshot;
mod stream;
mod subscription;
mod sync;
mod watch;
mod world;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, SystemTime},
};

use kube::Client;
use prometheus::Registry;
use ringmail_ca::attest::{Attestor, Attestors, PodCheck, TokenReviewAttestor, TokenReviewRules};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch as tokio_watch},
};

use crate::health::Missing;
pub use config::{DiscoveryConfig, Settings};
use hub::Hub;
use metrics::Metrics;
use server::Server;
use serving::Serving;
use sync::Watches;
use world::World;

/// Spread of a stream's life, as a share of it: proxies that came together must not return together.
const LIFETIME_SPREAD: f64 = 0.1;
/// Changes between the watches and the world. A watch that finds no room waits.
const MAX_QUEUED: usize = 4096;

/// Why discovery does not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's word.
        error: std::io::Error,
    },
    /// The metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The serving certificate's source cannot be used.
    #[error("serving certificate: {0}")]
    Serving(#[from] serving::ServingError),
    /// The TLS settings cannot be made.
    #[error("tls settings: {0}")]
    Tls(#[from] rustls::Error),
}

/// What all streams share.
pub(crate) struct Discovery {
    world: RwLock<World>,
    hub: Hub,
    metrics: Metrics,
    sync: Watches,
    /// There may be something new to tell the authors of policies.
    policies_changed: Notify,
    stream_lifetime: Duration,
    read_deadline: Duration,
}

impl Discovery {
    fn new(settings: &Settings, registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            world: RwLock::new(World::new(settings.policy.clone(), settings.cluster.clone())),
            hub: Hub::new(settings.max_streams),
            metrics: Metrics::register(registry)?,
            sync: Watches::default(),
            policies_changed: Notify::new(),
            stream_lifetime: settings.stream_lifetime,
            read_deadline: settings.read_deadline,
        }))
    }

    fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a stream lives.
    fn lifetime(&self) -> Duration {
        let random = f64::from(u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(0));
        let share = random / f64::from(u32::MAX) * 2.0 - 1.0;
        self.stream_lifetime.mul_f64(1.0 + LIFETIME_SPREAD * share)
    }
}

/// Discovery that is ready to be run.
pub struct Prepared {
    settings: Settings,
    client: Client,
    discovery: Arc<Discovery>,
    serving: Arc<Serving>,
    listener: TcpListener,
}

impl Prepared {
    /// Binds and registers what has to be there from the first moment.
    ///
    /// # Errors
    /// [`StartError`] where an address, a file or a setting cannot be used. What may pass, such as an API server that is
    /// away, is waited for later.
    pub async fn new(
        settings: Settings,
        client: Client,
        registry: &Registry,
        shutdown: tokio_watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let serving = Serving::start(settings.serving.clone(), shutdown)?;
        let listener = bind(settings.listen).await?;
        let discovery = Discovery::new(&settings, registry)?;
        Ok(Self { settings, client, discovery, serving, listener })
    }

    /// What is missing before proxies can be told anything.
    pub fn missing(&self) -> Missing {
        let (discovery, serving) = (Arc::clone(&self.discovery), Arc::clone(&self.serving));
        Box::new(move || {
            let missing = discovery.sync.missing().or_else(|| serving.missing(SystemTime::now()));
            missing.map(|missing| format!("discovery: {missing}"))
        })
    }

    /// Watches the cluster and serves proxies until `shutdown` turns true.
    ///
    /// # Errors
    /// [`StartError`] where TLS cannot be set up.
    pub async fn run(self, shutdown: tokio_watch::Receiver<bool>) -> Result<(), StartError> {
        let Self { settings, client, discovery, serving, listener } = self;
        let attestors = attestors(client.clone(), &settings);
        let (changes, queue) = mpsc::channel(MAX_QUEUED);
        let (leading, lease) = lease::start(client.clone(), &settings, shutdown.clone());
        let background = [
            tokio::spawn(feed::run(Arc::clone(&discovery), queue)),
            tokio::spawn(crds::run(client.clone(), leading.clone())),
            tokio::spawn(events::run(
                client.clone(),
                Arc::clone(&discovery),
                leading,
                settings.identity.clone(),
            )),
        ];
        let watches = watch::start(client, &discovery, &changes);
        drop(changes);
        let server = Server { discovery, attestors, serving };
        let served = server::run(server, listener, &settings, shutdown).await;
        for task in background.iter().chain(&watches) {
            task.abort();
        }
        // It has deadlines of its own.
        let _ = lease.await;
        Ok(served?)
    }
}

/// The API server judges every token. Whether the pod still runs is seen by the watch of pods.
fn attestors(client: Client, settings: &Settings) -> Attestors {
    let rules = TokenReviewRules {
        audiences: settings.audiences.clone(),
        trust_domain: settings.policy.trust_domain.clone(),
        pod_check: PodCheck::Skip,
    };
    let attestor: Box<dyn Attestor> = Box::new(TokenReviewAttestor::new(client, rules));
    Attestors::new(Some(attestor), None)
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Bind { address, error })
}

#[cfg(test)]
mod tests;
