//! The mutating webhook: the API server asks about each pod that is created, and is answered with a sidecar.
//!
//! [`Webhook::run`] serves `/inject` with a certificate of its own making ([`ca`], looked after by `upkeep`); `review` is
//! the API server's language and [`crate::inject`] the answer. A fault of ours is an answer that refuses with its reason:
//! a pod that was to be in the mesh never starts without it.

pub mod ca;
mod certificate;
mod events;
mod metrics;
pub mod review;
mod server;
mod upkeep;

use std::sync::Arc;

use kube::Client;
use ringmail_ca::door::Deadlines;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use metrics::Metrics;
pub use upkeep::{State, cluster_of};

use crate::{health::Missing, inject::InjectConfig};
use certificate::ServingCertificate;
use events::Events;
use server::Server;
use upkeep::Upkeep;

/// Where things are, and how long they last.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret with the injector's own authority.
    pub secret: String,
    /// The MutatingWebhookConfiguration whose `caBundle` is kept.
    pub configuration: String,
    /// DNS names or addresses of the serving certificate: those by which the API server calls.
    pub serving_names: Vec<String>,
    /// Of roots and certificates.
    pub lifetimes: ca::Lifetimes,
    /// What sidecars are made of.
    pub injection: InjectConfig,
    /// Of a connection.
    pub deadlines: Deadlines,
}

impl Settings {
    /// Those of `ringmail-control` in its namespace.
    pub fn new(injection: InjectConfig) -> Self {
        let service = "ringmail-control.ringmail-system";
        Self {
            namespace: "ringmail-system".to_owned(),
            secret: "ringmail-injector-ca".to_owned(),
            configuration: "ringmail-injector".to_owned(),
            serving_names: ["svc", "svc.cluster.local"].map(|end| format!("{service}.{end}")).into(),
            lifetimes: ca::Lifetimes::default(),
            injection,
            deadlines: server::DEADLINES,
        }
    }
}

/// The webhook, ready to run.
pub struct Webhook {
    settings: Settings,
    client: Client,
    metrics: Metrics,
    state: watch::Sender<State>,
}

impl Webhook {
    /// One that asks this API server. The client should have no retries longer than a few seconds.
    pub fn new(settings: Settings, client: Client, metrics: Metrics) -> Self {
        let (state, _) = watch::channel(State::Waiting("the certificate is not made yet".to_owned()));
        Self { settings, client, metrics, state }
    }

    /// Whether reviews can be decided; for readiness.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What is missing before pods can be decided about.
    pub fn missing(&self) -> Missing {
        let state = self.state.subscribe();
        Box::new(move || match &*state.borrow() {
            State::Ready(_) => None,
            State::Waiting(reason) => Some(format!("injector: {reason}")),
        })
    }

    /// Serves on `listener` until `shutdown` turns true, and for the end of what is in flight.
    ///
    /// # Errors
    /// Where TLS cannot be set up at all.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), rustls::Error> {
        let certificate = Arc::new(ServingCertificate::default());
        let tls = certificate::tls(Arc::clone(&certificate))?;
        let events = Events::start(self.client.clone(), self.metrics.clone());
        let (injection, deadlines) = (self.settings.injection.clone(), self.settings.deadlines);
        let (client, state, metrics) = (self.client.clone(), self.state.subscribe(), self.metrics.clone());
        let server = Server::new(client, injection, state, events, metrics);
        let upkeep = Upkeep {
            client: self.client,
            settings: self.settings,
            certificate,
            metrics: self.metrics,
            state: self.state,
        };
        let serving = server.run(listener, tls, deadlines, shutdown);
        // The upkeep never ends by itself; it ends with the serving.
        tokio::select! {
            () = serving => {}
            () = upkeep.run() => {}
        }
        Ok(())
    }
}
