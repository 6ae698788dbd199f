//! The SPIFFE CA of the mesh, speaking the certificate protocol that the field's agents already speak.
//!
//! The rooms, in the order a request passes them: [`serve`] (listener, TLS, limits), [`service`] (one
//! request), [`attest`] (token to identity), [`csr`] (request to public key), [`issue`] (profile and
//! lifetime), [`audit`] (one line per decision). Beside them: [`authority`] (signing key, chain and
//! roots), `upkeep` and `followed` (what changes while running), [`metrics`], `health`, [`config`].

pub mod attest;
pub mod audit;
pub mod authority;
pub mod config;
pub mod csr;
mod followed;
mod health;
pub mod issue;
pub mod messages;
pub mod metrics;
mod persist;
pub mod serve;
pub mod service;
mod upkeep;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::attest::{Attestor, Attestors, JwtAttestor, JwtRules, SourceError, StaticTokens};
use crate::authority::self_signed::StateError;
use crate::authority::{Authority, LoadError, Source};
use crate::config::{KeyPlace, Settings};
use crate::health::Health;
use crate::issue::IssueError;
use crate::metrics::Metrics;
use crate::serve::{ConnectionLimits, Server, ServingCertificate, TlsSetupError};
use crate::service::CertificateService;
use crate::upkeep::{BundleFile, Upkeep};

pub use persist::PersistError;

/// Why the CA does not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's word.
        error: std::io::Error,
    },
    /// The bundle cannot be written.
    #[error("bundle: {0}")]
    Bundle(#[source] PersistError),
    /// The signing key cannot be used.
    #[error("ca: {0}")]
    Load(#[from] LoadError),
    /// The metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The serving certificate cannot be signed.
    #[error("serving certificate: {0}")]
    Serving(#[from] IssueError),
    /// A source of tokens cannot be used.
    #[error("tokens: {0}")]
    Source(#[from] SourceError),
    /// The state folder yields no root.
    #[error("ca: {0}")]
    State(#[from] StateError),
    /// The TLS settings cannot be made.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// Files and certificates are no longer looked after.
    #[error("the task that follows files and renews the serving certificate has failed")]
    Upkeep,
}

/// Loads everything, serves until `shutdown` turns true, and ends cleanly.
pub async fn run(settings: Settings, shutdown: watch::Receiver<bool>) -> Result<(), StartError> {
    let now = SystemTime::now();
    let source = source(&settings, now)?;
    let authority = source.load(now)?;
    let attestors = Arc::new(attestors(&settings)?);
    let metrics = Arc::new(Metrics::new()?);
    let certificate = Arc::new(ServingCertificate::new(settings.serving_names.clone(), &authority, now)?);
    let bundle_out = settings.bundle_out.clone().map(|path| BundleFile::create(path, authority.bundle_pem()));
    let bundle_out = bundle_out.transpose().map_err(StartError::Bundle)?;
    let listener = bind(settings.listen).await?;
    let metrics_listener = bind(settings.metrics_listen).await?;
    announce(&listener, &metrics_listener, &authority);

    let (authority, current) = watch::channel(Arc::new(authority));
    let upkeep = Upkeep {
        source,
        authority,
        certificate: Arc::clone(&certificate),
        attestors: Arc::clone(&attestors),
        bundle_out,
        metrics: Arc::clone(&metrics),
    };
    let health = Health {
        metrics: Arc::clone(&metrics),
        authority: current.clone(),
        certificate: Arc::clone(&certificate),
    };
    let server = server(&settings, current, attestors, metrics, certificate);
    let upkeep = tokio::spawn(upkeep.run(shutdown.clone()));
    let health = tokio::spawn(Arc::new(health).run(metrics_listener, shutdown.clone()));
    let served = tokio::select! {
        served = Arc::new(server).run(listener, shutdown) => served.map_err(StartError::from),
        () = failed(upkeep) => Err(StartError::Upkeep),
    };
    health.abort();
    served
}

/// Returns only when the task panicked; a CA that follows no change must not look healthy.
async fn failed(task: JoinHandle<()>) {
    if task.await.is_ok() {
        pending::<()>().await;
    }
}

fn source(settings: &Settings, now: SystemTime) -> Result<Source, StateError> {
    let (extra, trust_domain) = (settings.extra_roots.clone(), settings.trust_domain.clone());
    match &settings.key_place {
        KeyPlace::Mounted(folder) => Ok(Source::mounted(folder.clone(), extra, trust_domain)),
        KeyPlace::SelfSigned(state) => Source::self_signed(state, extra, trust_domain, now),
    }
}

fn attestors(settings: &Settings) -> Result<Attestors, SourceError> {
    let trust_domain = &settings.trust_domain;
    let rules = JwtRules {
        audience: settings.audience.clone(),
        issuer: settings.issuer.clone(),
        trust_domain: trust_domain.clone(),
    };
    let jwt = settings.jwks.clone().map(|path| JwtAttestor::open(path, rules)).transpose()?;
    let tokens = settings.static_tokens.clone();
    let tokens = tokens.map(|path| StaticTokens::open(path, trust_domain.clone())).transpose()?;
    Ok(Attestors::new(
        jwt.map(|source| Box::new(source) as Box<dyn Attestor>),
        tokens.map(|source| Box::new(source) as Box<dyn Attestor>),
    ))
}

fn server(
    settings: &Settings,
    authority: watch::Receiver<Arc<Authority>>,
    attestors: Arc<Attestors>,
    metrics: Arc<Metrics>,
    certificate: Arc<ServingCertificate>,
) -> Server {
    let service = CertificateService::new(
        authority,
        attestors,
        settings.lifetimes,
        Arc::clone(&metrics),
        settings.request_timeout,
    );
    let limits = ConnectionLimits::new(settings.max_connections, settings.max_connections_per_source);
    Server {
        certificate,
        service: Arc::new(service),
        metrics,
        limits: Arc::new(limits),
        deadlines: settings.deadlines,
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Bind { address, error })
}

fn announce(listener: &TcpListener, metrics: &TcpListener, authority: &Authority) {
    let address = |listener: &TcpListener| listener.local_addr().map(|a| a.to_string()).unwrap_or_default();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = address(listener),
        metrics_listen = address(metrics),
        trust_domain = authority.trust_domain().as_str(),
        roots = authority.roots().iter().map(|r| authority::describe(r)).collect::<Vec<_>>().join(", "),
        "serving",
    );
}
