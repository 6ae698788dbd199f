//! The webhook as the API server meets it: real TLS, real HTTP, and whatever else may come to its port.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod api;
mod caller;
mod certificates;
mod flooded;
#[path = "../../../ca/tests/wire/support/floods.rs"]
mod floods;
mod hostile;
mod reviews;

use std::net::SocketAddr;
use std::time::Duration;

use api::Api;
use prometheus::{Registry, TextEncoder};
use ringmail_control::inject::InjectConfig;
use ringmail_control::webhook::{Metrics, Settings, State, Webhook};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes, short enough to be waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running webhook.
struct Running {
    address: SocketAddr,
    state: watch::Receiver<State>,
    registry: Registry,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(api: &Api) -> Self {
        Self::start_with(api, |_| {}).await
    }

    async fn start_with(api: &Api, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new(InjectConfig::default());
        change(&mut settings);
        let registry = Registry::new();
        let webhook = Webhook::new(settings, api.client(), Metrics::register(&registry).unwrap());
        let state = webhook.state();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ending) = watch::channel(false);
        let task = tokio::spawn(async move { webhook.run(listener, ending).await.unwrap() });
        Self { address, state, registry, end, task }
    }

    /// The roots, once the webhook is ready.
    async fn ready(&mut self, api: &Api) -> String {
        let ready = self.state.wait_for(|state| matches!(state, State::Ready(_)));
        timeout(PATIENCE, ready).await.expect("ready in time").unwrap();
        api.bundle().expect("roots in the registration")
    }

    fn metric(&self, line: &str) -> f64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{line} is not in\n{text}")).parse().unwrap()
    }
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "ignite-0", "creationTimestamp": null, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "ignite", "uid": "u-1", "controller": true}]},
        "spec": {"containers": [{"name": "ignite", "image": "ignite"}]},
        "status": {},
    })
}

fn annotated(name: &str, value: &str) -> Value {
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({ name: value });
    pod
}
