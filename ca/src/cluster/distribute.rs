//! The bundle as a ConfigMap in every namespace of the mesh, as pods mount it.
//!
//! One replica writes, the one that holds the lease: two that hold different bundles for a moment would
//! otherwise undo each other's work in every namespace. It watches the namespaces and the ConfigMaps, and
//! writes where content differs from the bundle, a bounded number of times per second; so a new namespace,
//! a label, a deleted or changed ConfigMap and a new bundle are all the same case.

mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_stream::{Stream, StreamExt};

use super::fault::bounded;
use super::{ApiFault, BUNDLE_CONFIG_MAP, BUNDLE_KEY, Cluster, FIELD_MANAGER, WatchPause, watch_of};
use crate::authority::Authority;
use crate::metrics::Metrics;
use wanted::Wanted;

/// Labels of all that the CA makes, as tools of the field look for them.
pub(crate) const LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/name", "ringmail-ca"), ("app.kubernetes.io/managed-by", "ringmail-ca")];
/// Twenty writes per second: a rotation reaches a thousand namespaces within a minute, and the API server
/// does not notice.
const PACE: Duration = Duration::from_millis(50);
/// A namespace that refuses the ConfigMap, such as one that is being deleted, is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// Writes the bundle where it belongs.
pub(crate) struct Distributor {
    pub(crate) cluster: Cluster,
    pub(crate) authority: watch::Receiver<Arc<Authority>>,
    /// Selects the namespaces; none means none but the own one.
    pub(crate) selector: Option<String>,
    /// Whether the own namespace has the bundle even where it is not selected.
    pub(crate) is_mark: bool,
    pub(crate) metrics: Arc<Metrics>,
}

/// Writes `bundle` into `namespace`, whatever is there.
pub(super) async fn apply(cluster: &Cluster, namespace: &str, bundle: String) -> Result<(), ApiFault> {
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(BUNDLE_CONFIG_MAP.to_owned()),
            labels: Some(BTreeMap::from(LABELS.map(|(k, v)| (k.to_owned(), v.to_owned())))),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(BUNDLE_KEY.to_owned(), bundle)])),
        ..ConfigMap::default()
    };
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), namespace);
    let by_force = PatchParams::apply(FIELD_MANAGER).force();
    bounded(maps.patch(BUNDLE_CONFIG_MAP, &by_force, &Patch::Apply(&map))).await.map(|_| ())
}

impl Distributor {
    /// Writes while `leading` is true, until it is dropped.
    pub(crate) async fn run(mut self, mut leading: watch::Receiver<bool>) {
        while leading.wait_for(|leads| *leads).await.is_ok() {
            let mut lost = leading.clone();
            tokio::select! {
                () = self.lead() => {}
                _ = lost.wait_for(|leads| !*leads) => {}
            }
        }
    }

    async fn lead(&mut self) {
        let mut namespaces = std::pin::pin!(self.namespaces());
        let mut maps = std::pin::pin!(self.maps());
        let own = self.is_mark.then(|| self.cluster.namespace.clone());
        let mut wanted = Wanted::new(self.bundle(), own);
        if self.selector.is_none() {
            // There is no list to wait for.
            wanted.namespace(Event::InitDone, Instant::now());
        }
        let mut fault = None;
        let mut next_write = Instant::now();
        loop {
            let due = wanted.next().map(|(_, due)| due.max(next_write));
            let at = due.unwrap_or_else(Instant::now);
            let broken = tokio::select! {
                changed = self.authority.changed() => match changed {
                    Ok(()) => { wanted.bundle(self.bundle(), Instant::now()); None }
                    Err(_) => return,
                },
                Some(event) = namespaces.next() => match event {
                    Ok(event) => { wanted.namespace(event, Instant::now()); None }
                    Err(error) => Some(ApiFault::from(error)),
                },
                Some(event) = maps.next() => match event {
                    Ok(event) => { wanted.map(event, Instant::now()); None }
                    Err(error) => Some(ApiFault::from(error)),
                },
                () = sleep_until(at), if due.is_some() => {
                    next_write = Instant::now() + PACE;
                    self.write(&mut wanted).await
                }
            };
            if let Some(error) = broken.filter(|error| fault.as_ref() != Some(error)) {
                tracing::warn!(%error, "the bundle cannot be brought to every namespace");
                fault = Some(error);
            }
        }
    }

    async fn write(&self, wanted: &mut Wanted) -> Option<ApiFault> {
        let (namespace, _) = wanted.next()?;
        match apply(&self.cluster, &namespace, wanted.text().to_owned()).await {
            Ok(()) => {
                tracing::debug!(namespace, "the bundle was written");
                self.metrics.bundle_written(true);
                wanted.written(&namespace);
                None
            }
            Err(fault) => {
                self.metrics.bundle_written(false);
                wanted.refused(&namespace, Instant::now() + RETRY);
                // The namespace went away before we saw it; its end will be announced.
                (fault != ApiFault::NotFound).then_some(fault)
            }
        }
    }

    fn bundle(&mut self) -> String {
        self.authority.borrow_and_update().bundle_pem()
    }

    /// Names of the namespaces that get the bundle. One that is being deleted takes nothing new.
    fn namespaces(&self) -> impl Stream<Item = Result<Event<String>, watcher::Error>> + Send + use<> {
        let client = self.cluster.client.clone();
        let selected = self.selector.clone().map(|selector| {
            let namespaces = Api::<PartialObjectMeta<Namespace>>::all(client);
            watcher(namespaces, watch_of().labels(&selector)).backoff(WatchPause)
        });
        or_never(selected).map(|event| event.map(|event| by_name(without_ending(event), name)))
    }

    /// The ConfigMaps' content, by namespace.
    fn maps(&self) -> impl Stream<Item = Result<Event<(String, String)>, watcher::Error>> + Send + use<> {
        let client = self.cluster.client.clone();
        let maps = match self.selector {
            Some(_) => Api::<ConfigMap>::all(client),
            None => Api::namespaced(client, &self.cluster.namespace),
        };
        let only = watch_of().fields(&format!("metadata.name={BUNDLE_CONFIG_MAP}"));
        watcher(maps, only).backoff(WatchPause).map(|event| event.map(|event| by_name(event, content)))
    }
}

/// A namespace that is being deleted is as good as gone.
fn without_ending(event: Event<PartialObjectMeta<Namespace>>) -> Event<PartialObjectMeta<Namespace>> {
    match event {
        Event::Apply(one) if one.metadata.deletion_timestamp.is_some() => Event::Delete(one),
        Event::Apply(_) | Event::Delete(_) | Event::Init | Event::InitApply(_) | Event::InitDone => event,
    }
}

fn name(namespace: PartialObjectMeta<Namespace>) -> String {
    namespace.metadata.name.unwrap_or_default()
}

fn content(map: ConfigMap) -> (String, String) {
    let text = map.data.and_then(|mut data| data.remove(BUNDLE_KEY)).unwrap_or_default();
    (map.metadata.namespace.unwrap_or_default(), text)
}

/// The stream, or one that never yields.
fn or_never<S: Stream>(stream: Option<S>) -> impl Stream<Item = S::Item> {
    let stream = stream.map(|stream| Box::pin(stream) as std::pin::Pin<Box<S>>);
    MaybeStream(stream)
}

struct MaybeStream<S>(Option<std::pin::Pin<Box<S>>>);

impl<S: Stream> Stream for MaybeStream<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        match &mut self.0 {
            Some(stream) => stream.as_mut().poll_next(context),
            None => std::task::Poll::Pending,
        }
    }
}

fn by_name<K, N>(event: Event<K>, name: impl Fn(K) -> N) -> Event<N> {
    match event {
        Event::Apply(one) => Event::Apply(name(one)),
        Event::Delete(one) => Event::Delete(name(one)),
        Event::Init => Event::Init,
        Event::InitApply(one) => Event::InitApply(name(one)),
        Event::InitDone => Event::InitDone,
    }
}
