//! In which order things begin and end.
//!
//! Metrics and readiness come first, because what a start waits for is said there: the API server may be
//! away, and a Secret may be somebody else's to make. Everything else that is missing ends the start.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::StartError;
use crate::attest::{
    Attestor, Attestors, JwtAttestor, JwtRules, PodCheck, SourceError, StaticTokens, TokenReviewAttestor,
    TokenReviewRules,
};
use crate::authority::{self, Authority, Source};
use crate::cluster::{self, Cluster, Distributor, Election, OpenError};
use crate::config::{KeyPlace, Settings};
use crate::door::{ConnectionLimits, Source as Caller};
use crate::health::{Health, Serving};
use crate::metrics::Metrics;
use crate::serve::{Server, ServingCertificate};
use crate::service::{CertificateService, Terms};
use crate::upkeep::{BundleFile, Upkeep};

/// From one look to the next while a start waits.
const WAIT: Duration = Duration::from_secs(1);
/// For tasks that have something to give back at the end.
const END: Duration = Duration::from_secs(2);

/// A CA that starts, and what it has so far.
struct Start {
    settings: Settings,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    cluster: Option<Cluster>,
    tasks: JoinSet<()>,
    shutdown: watch::Receiver<bool>,
}

/// Loads everything, serves until `shutdown` turns true, and ends cleanly.
pub async fn run(settings: Settings, shutdown: watch::Receiver<bool>) -> Result<(), StartError> {
    let metrics = Arc::new(Metrics::new()?);
    let listener = bind(settings.metrics_listen).await?;
    let address = listener.local_addr().ok();
    let health = Arc::new(Health::new(Arc::clone(&metrics)));
    let pages = tokio::spawn(Arc::clone(&health).run(listener, shutdown.clone()));
    let cluster =
        if settings.needs_cluster() { Some(Cluster::connect(&settings.cluster).await?) } else { None };
    let start = Start { settings, metrics, health, cluster, tasks: JoinSet::new(), shutdown };
    let served = start.serve(address).await;
    pages.abort();
    served
}

impl Start {
    async fn serve(mut self, metrics_address: Option<SocketAddr>) -> Result<(), StartError> {
        let Some(source) = self.source(SystemTime::now()).await? else { return Ok(()) };
        let now = SystemTime::now();
        let authority = source.load(now)?;
        let attestors = Arc::new(self.attestors()?);
        let names = self.settings.serving_names.clone();
        let certificate = Arc::new(ServingCertificate::new(names, &authority, now)?);
        let bundle_out = self.settings.bundle_out.clone();
        let bundle_out = bundle_out.map(|path| BundleFile::create(path, authority.bundle_pem()));
        let bundle_out = bundle_out.transpose().map_err(StartError::Bundle)?;
        let listener = bind(self.settings.listen).await?;

        let (authority, current) = watch::channel(Arc::new(authority));
        let upkeep = Upkeep {
            source,
            authority,
            certificate: Arc::clone(&certificate),
            attestors: Arc::clone(&attestors),
            bundle_out,
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks.spawn(upkeep.run(self.shutdown.clone()));
        self.distribute(&current);
        self.health.serves(Serving {
            authority: current.clone(),
            certificate: Arc::clone(&certificate),
            attestors: Arc::clone(&attestors),
        });
        // Whoever waits for this line finds the CA ready.
        announce(&listener, metrics_address, &current.borrow());
        let server = self.server(current, attestors, certificate);
        let served = tokio::select! {
            served = server.run(listener, self.shutdown.clone()) => served.map_err(StartError::from),
            () = failed(&mut self.tasks) => Err(StartError::Upkeep),
        };
        let _ = timeout(END, async { while self.tasks.join_next().await.is_some() {} }).await;
        served
    }

    /// The signing key's place; none when the end came first.
    async fn source(&mut self, now: SystemTime) -> Result<Option<Source>, StartError> {
        let (extra, trust_domain) = (self.settings.extra_roots.clone(), self.settings.trust_domain.clone());
        let place = self.settings.key_place.clone();
        match (&place, self.cluster.clone()) {
            (KeyPlace::Mounted(folder), _) => Ok(Some(Source::mounted(folder.clone(), extra, trust_domain))),
            (KeyPlace::SelfSigned(state), _) => {
                Ok(Some(Source::self_signed(state, extra, trust_domain, now)?))
            }
            (KeyPlace::RootSecret(root), Some(cluster)) => {
                let open = || cluster::open(&cluster, root, &trust_domain, SystemTime::now());
                let Some(content) = self.wait_for(open).await? else { return Ok(None) };
                let (feed, watch) = cluster::feed(&cluster, &root.name, Some(content));
                self.tasks.spawn(watch.run(self.shutdown.clone()));
                Ok(Some(Source::root_secret(feed, extra, trust_domain)))
            }
            (KeyPlace::Secret(name), Some(cluster)) => {
                let read = || cluster::content(&cluster, name);
                let Some(content) = self.wait_for(read).await? else { return Ok(None) };
                let (feed, watch) = cluster::feed(&cluster, name, Some(content));
                self.tasks.spawn(watch.run(self.shutdown.clone()));
                Ok(Some(Source::secret(feed, extra, trust_domain)))
            }
            // Settings that name a Secret need a cluster, so this does not arrive.
            (KeyPlace::RootSecret(_) | KeyPlace::Secret(_), None) => Ok(None),
        }
    }

    /// The result of `ask` once there is one, while the readiness says what is missing.
    async fn wait_for<T, F>(&self, ask: impl Fn() -> F) -> Result<Option<T>, OpenError>
    where
        F: Future<Output = Result<T, OpenError>>,
    {
        let mut ending = self.shutdown.clone();
        loop {
            let asked = tokio::select! {
                _ = ending.wait_for(|ending| *ending) => return Ok(None),
                asked = ask() => asked,
            };
            let error = match asked {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => error,
            };
            let Some(what) = error.passing() else { return Err(error) };
            if self.health.waits_for(&what) {
                tracing::error!(error = what, "the start waits");
            }
            sleep(WAIT).await;
        }
    }

    fn attestors(&mut self) -> Result<Attestors, SourceError> {
        let settings = &self.settings;
        let trust_domain = settings.trust_domain.clone();
        let rules = JwtRules {
            audience: settings.audience.clone(),
            issuer: settings.issuer.clone(),
            trust_domain: trust_domain.clone(),
        };
        let jwks = settings.jwks.clone().map(|path| JwtAttestor::open(path, rules)).transpose()?;
        let tokens = settings.static_tokens.clone();
        let tokens = tokens.map(|path| StaticTokens::open(path, trust_domain.clone())).transpose()?;
        let jwt = match (&self.cluster, settings.token_review.clone()) {
            (Some(cluster), Some(audiences)) => {
                let rules = TokenReviewRules { audiences, trust_domain, pod_check: PodCheck::LookUp };
                let attestor = TokenReviewAttestor::new(cluster.client.clone(), rules);
                self.tasks.spawn(attestor.clone().keep_asking(self.shutdown.clone()));
                Some(Box::new(attestor) as Box<dyn Attestor>)
            }
            (Some(_) | None, _) => jwks.map(|source| Box::new(source) as Box<dyn Attestor>),
        };
        Ok(Attestors::new(jwt, tokens.map(|source| Box::new(source) as Box<dyn Attestor>)))
    }

    /// The own namespace has the bundle wherever the root is in a Secret: it shows that there was a root.
    fn distribute(&mut self, authority: &watch::Receiver<Arc<Authority>>) {
        let selector = self.settings.bundle_namespaces.clone();
        let is_mark = matches!(self.settings.key_place, KeyPlace::RootSecret(_));
        let Some(cluster) = self.cluster.clone().filter(|_| is_mark || selector.is_some()) else { return };
        let (leads, leading) = watch::channel(false);
        let election = Election::new(&cluster, replica_name());
        let distributor = Distributor {
            cluster,
            authority: authority.clone(),
            selector,
            is_mark,
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks.spawn(election.run(leads, self.shutdown.clone()));
        self.tasks.spawn(distributor.run(leading));
    }

    fn server(
        &self,
        authority: watch::Receiver<Arc<Authority>>,
        attestors: Arc<Attestors>,
        certificate: Arc<ServingCertificate>,
    ) -> Server {
        let settings = &self.settings;
        let terms = Terms { lifetimes: settings.lifetimes, serve_names: settings.serve_names.clone() };
        let metrics = Arc::clone(&self.metrics);
        let service = CertificateService::new(authority, attestors, terms, metrics, settings.request_timeout);
        let (total, per_source) = (settings.max_connections, settings.max_connections_per_source);
        Server {
            certificate,
            service: Arc::new(service),
            metrics: self.metrics.door(),
            limits: ConnectionLimits::new(total, per_source, Caller::Network),
            deadlines: settings.deadlines,
        }
    }
}

/// Returns only when a task panicked; a CA that follows no change must not look healthy.
async fn failed(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() {
            return;
        }
    }
    pending::<()>().await;
}

/// The pod's name for people, and something that tells two processes on one host apart.
fn replica_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let mut random = [0u8; 4];
    let _ = SystemRandom::new().fill(&mut random);
    format!("{host}_{:08x}", u32::from_be_bytes(random))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Bind { address, error })
}

fn announce(listener: &TcpListener, metrics: Option<SocketAddr>, authority: &Authority) {
    let text = |address: Option<SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = text(listener.local_addr().ok()),
        metrics_listen = text(metrics),
        trust_domain = authority.trust_domain().as_str(),
        roots = authority.roots().iter().map(|r| authority::describe(r)).collect::<Vec<_>>().join(", "),
        "serving",
    );
}
