//! Watches: objects of the API server, reduced to what matters as soon as they are read.
//!
//! A watch that fails goes on from where it was, or lists again. What is gone by then is told as any other removal:
//! the world never forgets what a failed watch had told it.

mod policies;

pub(super) use policies::{KINDS, PolicyKind, policy_update};

use std::{collections::HashSet, fmt::Debug, pin::pin, sync::Arc, time::Duration};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use tokio_stream::{Stream, StreamExt};

use super::{
    Discovery,
    feed::Change,
    world::{NodeInfo, ObjectKey, PodInfo, ServiceInfo, SliceInfo, Update},
};

/// An API server that comes back is asked again within seconds: pods wait for what it says.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(4);
/// How often a cluster without ServiceCIDRs is asked whether it has some now.
const ABSENT: Duration = Duration::from_secs(300);

/// Where a watch tells what it sees.
#[derive(Clone)]
pub(super) struct Teller {
    kind: &'static str,
    discovery: Arc<Discovery>,
    changes: mpsc::Sender<Change>,
}

/// Starts every watch.
pub(crate) fn start(
    client: Client,
    discovery: &Arc<Discovery>,
    changes: &mpsc::Sender<Change>,
) -> Vec<JoinHandle<()>> {
    let teller = |kind| Teller::new(kind, discovery, changes);
    let mut tasks = vec![
        tokio::spawn(follow(Api::<Pod>::all(client.clone()), teller("pods"), pod)),
        tokio::spawn(follow(Api::<Service>::all(client.clone()), teller("services"), service)),
        tokio::spawn(follow(Api::<EndpointSlice>::all(client.clone()), teller("endpointslices"), slice)),
        tokio::spawn(follow(Api::<Node>::all(client.clone()), teller("nodes"), node)),
        tokio::spawn(follow(Api::<ServiceCIDR>::all(client.clone()), teller("servicecidrs"), range)),
    ];
    for kind in KINDS {
        tasks.push(tokio::spawn(policies::follow(client.clone(), kind, teller(kind.plural))));
    }
    tasks
}

fn pod(key: ObjectKey, pod: Option<&Pod>) -> Update {
    Update::Pod(key, pod.map(PodInfo::of))
}

fn service(key: ObjectKey, service: Option<&Service>) -> Update {
    Update::Service(key, service.map(ServiceInfo::of))
}

fn slice(key: ObjectKey, slice: Option<&EndpointSlice>) -> Update {
    Update::Slice(key, slice.and_then(SliceInfo::of))
}

fn node(key: ObjectKey, node: Option<&Node>) -> Update {
    Update::Node(key.name, node.map(NodeInfo::of))
}

fn range(key: ObjectKey, range: Option<&ServiceCIDR>) -> Update {
    let ranges = range.map(|range| {
        let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        texts.filter_map(|text| text.parse::<IpNet>().ok()).collect()
    });
    Update::Range(key.name, ranges)
}

impl Teller {
    fn new(kind: &'static str, discovery: &Arc<Discovery>, changes: &mpsc::Sender<Change>) -> Self {
        discovery.sync.expect(kind);
        Self { kind, discovery: Arc::clone(discovery), changes: changes.clone() }
    }

    async fn tell(&self, update: Update) {
        // Nobody listens only while the process ends.
        let _ = self.changes.send(Change::Update(Box::new(update), std::time::Instant::now())).await;
    }

    async fn listed(&self) {
        let _ = self.changes.send(Change::Listed(self.kind)).await;
    }

    fn good(&self) {
        if self.discovery.sync.fault(self.kind, None) {
            tracing::info!(kind = self.kind, "the watch goes on");
        }
    }

    fn failed(&self, fault: &str) {
        self.discovery.metrics.watch_fault(self.kind);
        if self.discovery.sync.fault(self.kind, Some(fault.to_owned())) {
            tracing::warn!(kind = self.kind, fault, "the watch has failed; what it said stays in force");
        }
    }
}

/// What is known of the objects of one kind: their names, to tell which of them are gone after a new list.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    known: HashSet<ObjectKey>,
    listing: Option<HashSet<ObjectKey>>,
}

impl Mirror {
    /// What an event says, one update for each object; and whether a list is complete with it.
    fn take<K: Resource>(
        &mut self,
        event: &Event<K>,
        update: &impl Fn(ObjectKey, Option<&K>) -> Update,
    ) -> (Vec<Update>, bool) {
        match event {
            Event::Init => {
                self.listing = Some(HashSet::new());
                (Vec::new(), false)
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let key = ObjectKey::of(object);
                if let Some(listing) = &mut self.listing {
                    listing.insert(key.clone());
                }
                self.known.insert(key.clone());
                (vec![update(key, Some(object))], false)
            }
            Event::Delete(object) => {
                let key = ObjectKey::of(object);
                self.known.remove(&key);
                (vec![update(key, None)], false)
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let gone = std::mem::replace(&mut self.known, listed);
                let gone = gone.into_iter().filter(|key| !self.known.contains(key));
                (gone.map(|key| update(key, None)).collect(), true)
            }
        }
    }
}

async fn follow<K>(api: Api<K>, teller: Teller, update: impl Fn(ObjectKey, Option<&K>) -> Update)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut mirror = Mirror::default();
    loop {
        let stream = watcher(api.clone(), watcher::Config::default()).backoff(Retries::default());
        run(pin!(stream), &teller, &mut mirror, &update).await;
        // The cluster does not have the kind; there is nothing to wait for.
        teller.listed().await;
        teller.good();
        sleep(ABSENT).await;
    }
}

/// Tells everything that the watch says. Returns where the cluster does not have the kind.
pub(super) async fn run<K: Resource>(
    mut stream: impl Stream<Item = watcher::Result<Event<K>>> + Unpin,
    teller: &Teller,
    mirror: &mut Mirror,
    update: &impl Fn(ObjectKey, Option<&K>) -> Update,
) {
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                let (updates, complete) = mirror.take(&event, update);
                for update in updates {
                    teller.tell(update).await;
                }
                if complete {
                    teller.listed().await;
                    teller.good();
                }
            }
            Err(error) if is_absent(&error) => return,
            Err(error) => teller.failed(&cause(&error)),
        }
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchError(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => false,
    }
}

/// An error with its innermost cause.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text.chars().take(300).collect()
}

/// Pauses between retries.
#[derive(Debug)]
pub(super) struct Retries {
    next: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { next: RETRY_FIRST }
    }
}

impl Iterator for Retries {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (self.next * 2).min(RETRY_MAX);
        Some(pause)
    }
}

impl Backoff for Retries {
    fn reset(&mut self) {
        self.next = RETRY_FIRST;
    }
}
