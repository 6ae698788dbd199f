//! Pods that come and go: each is replaced by one of another name with the same address.

use std::{
    collections::HashSet,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::DeleteParams,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{interval, sleep},
};
use tokio_stream::StreamExt as _;

use crate::{CommandLine, cluster::Cluster, proxy::Learnt};

/// After the last replacement, until the last of the proxies must have learnt of it.
const REST: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Churned {
    pub(crate) replaced: usize,
    /// How long it took to replace them: no longer than asked for, where the API server keeps up.
    pub(crate) elapsed: Duration,
    /// From the request that gives a pod its address to the API server's answer.
    pub(crate) answered: Vec<Duration>,
    /// From that request to a watch of this process: what every watcher waits for at least.
    pub(crate) watched: Vec<Duration>,
}

/// The address of a pod that comes and goes.
pub(crate) fn slot_ip(slot: usize) -> String {
    format!("10.251.{}.{}", slot / 250, slot % 250 + 1)
}

/// The name of the pod that has a slot's address in its turn.
pub(crate) fn slot_name(slot: usize, turn: usize) -> String {
    format!("slot-{slot}-{turn}")
}

/// Whether the pod of this name took another's place.
pub(crate) fn is_replacement(pod: &str) -> bool {
    pod.starts_with("slot-") && !pod.ends_with("-0")
}

/// Replaces pods at the rate, for as long as was asked.
pub(crate) async fn run(
    line: &CommandLine,
    cluster: &Cluster,
    learnt: &Arc<Learnt>,
) -> anyhow::Result<Churned> {
    let watched = Arc::new(Mutex::new(Vec::new()));
    let (listed, is_listed) = oneshot::channel();
    let watching = tokio::spawn(watch(cluster.clone(), Arc::clone(learnt), Arc::clone(&watched), listed));
    is_listed.await.context("the own watch has ended")?;
    let count = usize::try_from(u64::from(line.rate) * line.seconds)?;
    let mut tick = interval(Duration::from_secs(1) / line.rate);
    let (began, mut work, mut answered) = (Instant::now(), JoinSet::new(), Vec::new());
    for turn in 0..count {
        tick.tick().await;
        let (cluster, learnt) = (cluster.clone(), Arc::clone(learnt));
        work.spawn(replace(cluster, learnt, (turn % line.pods, turn / line.pods)));
    }
    while let Some(done) = work.join_next().await {
        answered.push(done??);
    }
    let elapsed = began.elapsed();
    sleep(REST).await;
    ensure!(!watching.is_finished(), "the own watch has ended");
    watching.abort();
    let watched = watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Churned { replaced: count, elapsed, answered, watched })
}

async fn replace(
    cluster: Cluster,
    learnt: Arc<Learnt>,
    (slot, turn): (usize, usize),
) -> anyhow::Result<Duration> {
    let pods = cluster.pods(&cluster.simulated());
    pods.delete(&slot_name(slot, turn), &DeleteParams::default().grace_period(0)).await?;
    let (name, ip) = (slot_name(slot, turn + 1), slot_ip(slot));
    cluster.create_pod(&name).await?;
    learnt.write(&name);
    let began = Instant::now();
    cluster.address_pod(&name, &ip).await?;
    Ok(began.elapsed())
}

/// Sees what control sees, on a watch of its own. Says when it has begun.
async fn watch(
    cluster: Cluster,
    learnt: Arc<Learnt>,
    watched: Arc<Mutex<Vec<Duration>>>,
    listed: oneshot::Sender<()>,
) {
    // What is said of a pod later, such as its end, is no news of its address.
    let (mut listed, mut seen) = (Some(listed), HashSet::new());
    let mut events = pin!(watcher(cluster.pods(&cluster.simulated()), watcher::Config::default()));
    while let Some(event) = events.next().await {
        let pod = match event {
            Ok(Event::Apply(pod)) => pod,
            Ok(Event::InitDone) => {
                // Nobody waits for a later list.
                let _ = listed.take().map(|listed| listed.send(()));
                continue;
            }
            Ok(Event::Delete(_) | Event::Init | Event::InitApply(_)) | Err(_) => continue,
        };
        if has_address(&pod)
            && let Some(age) = learnt.age(&pod.name_any(), Instant::now())
            && seen.insert(pod.name_any())
        {
            watched.lock().unwrap_or_else(PoisonError::into_inner).push(age);
        }
    }
}

fn has_address(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())
}
