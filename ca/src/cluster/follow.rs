//! A Secret that is followed: its newest content, as the API server announces it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio_stream::StreamExt;

use super::root_secret::Content;
use super::{ApiFault, Cluster, WatchPause, watch_of};

/// The content of a Secret; none when there is no such Secret.
type Held = Option<Arc<Content>>;

/// The newest known content of a Secret.
#[derive(Clone)]
pub(crate) struct SecretFeed {
    name: String,
    held: watch::Receiver<Held>,
}

/// Never the content, which is a private key.
impl fmt::Debug for SecretFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl SecretFeed {
    /// The Secret's content.
    pub(crate) fn content(&self) -> Option<Arc<Content>> {
        self.held.borrow().clone()
    }

    /// What it is called in errors.
    pub(crate) fn origin(&self) -> &str {
        &self.name
    }

    /// Tells one content from another without holding it.
    pub(crate) fn sight(&self) -> Option<[u8; 32]> {
        let content = self.content()?;
        let mut bytes = Vec::new();
        for (key, value) in content.iter() {
            // Lengths keep two different maps from reading the same.
            bytes.extend(key.len().to_be_bytes().into_iter().chain(key.bytes()));
            bytes.extend(value.0.len().to_be_bytes().iter().chain(&value.0));
        }
        digest(&SHA256, &bytes).as_ref().try_into().ok()
    }
}

/// The task's side of a feed.
pub(crate) struct SecretWatch {
    api: Api<Secret>,
    secret: String,
    held: watch::Sender<Held>,
}

/// A feed of Secret `secret` that begins with `first`, and what keeps it up to date.
pub(crate) fn feed(cluster: &Cluster, secret: &str, first: Option<Content>) -> (SecretFeed, SecretWatch) {
    let (held, receiver) = watch::channel(first.map(Arc::new));
    let name = format!("secret {}/{secret}", cluster.namespace);
    let api = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    (SecretFeed { name, held: receiver }, SecretWatch { api, secret: secret.to_owned(), held })
}

impl SecretWatch {
    /// Follows the Secret until `shutdown` turns true. While the API server is away, what is known stays.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let only = watch_of().fields(&format!("metadata.name={}", self.secret));
        let events = watcher(self.api.clone(), only).backoff(WatchPause);
        let mut events = std::pin::pin!(events);
        let (mut seen, mut fault) = (false, None);
        loop {
            let event = tokio::select! {
                _ = shutdown.wait_for(|ending| *ending) => return,
                event = events.next() => event,
            };
            match event {
                None => return,
                Some(Ok(event)) => {
                    if fault.take().is_some() {
                        tracing::info!(secret = self.secret, "the secret is followed again");
                    }
                    self.take(event, &mut seen);
                }
                Some(Err(error)) => {
                    let error = ApiFault::from(error);
                    if fault.as_ref() != Some(&error) {
                        tracing::warn!(secret = self.secret, %error, "the secret cannot be followed");
                    }
                    fault = Some(error);
                }
            }
        }
    }

    fn take(&self, event: watcher::Event<Secret>, seen: &mut bool) {
        let held = match event {
            watcher::Event::Init => {
                *seen = false;
                return;
            }
            watcher::Event::InitApply(secret) | watcher::Event::Apply(secret) => {
                *seen = true;
                Some(secret.data.unwrap_or_default())
            }
            watcher::Event::InitDone if *seen => return,
            watcher::Event::InitDone | watcher::Event::Delete(_) => None,
        };
        self.held.send_if_modified(|current| {
            let changed = current.as_deref() != held.as_ref();
            if changed {
                *current = held.map(Arc::new);
            }
            changed
        });
    }
}
