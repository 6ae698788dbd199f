//! Pods that come and go: each is replaced by one of another name with the same address.

use std::{
    pin::pin,
    sync::Arc,
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

use crate::{
    CommandLine,
    cluster::Cluster,
    lateness::Lateness,
    learnt::{Learnt, Times},
};

/// After the last replacement, until the last of the proxies must have learnt of it.
const REST: Duration = Duration::from_secs(3);

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Churned {
    pub(crate) replaced: usize,
    /// How long it took to replace them: no longer than asked for, where the API server keeps up.
    pub(crate) elapsed: Duration,
    pub(crate) times: Times,
    /// What this process is late by.
    pub(crate) late: Duration,
}

/// The address of a pod that comes and goes.
pub(crate) fn slot_ip(slot: usize) -> String {
    format!("10.251.{}.{}", slot / 250, slot % 250 + 1)
}

/// The name of the pod that has a slot's address in its turn.
pub(crate) fn slot_name(slot: usize, turn: usize) -> String {
    format!("slot-{slot}-{turn}")
}

/// Replaces pods at the rate, for as long as was asked. `attempt` counts from 0: each goes on where the last one ended.
pub(crate) async fn run(
    line: &CommandLine,
    cluster: &Cluster,
    learnt: &Arc<Learnt>,
    attempt: usize,
) -> anyhow::Result<Churned> {
    let (listed, is_listed) = oneshot::channel();
    let watching = tokio::spawn(watch(cluster.clone(), Arc::clone(learnt), listed));
    is_listed.await.context("the own watch has ended")?;
    let count = usize::try_from(u64::from(line.rate) * line.seconds)?;
    let mut tick = interval(Duration::from_secs(1) / line.rate);
    let (began, late, mut work) = (Instant::now(), Lateness::begin(), JoinSet::new());
    for turn in attempt * count..(attempt + 1) * count {
        tick.tick().await;
        let (cluster, learnt) = (cluster.clone(), Arc::clone(learnt));
        work.spawn(replace(cluster, learnt, (turn % line.pods, turn / line.pods)));
    }
    while let Some(done) = work.join_next().await {
        done??;
    }
    let elapsed = began.elapsed();
    sleep(REST).await;
    ensure!(!watching.is_finished(), "the own watch has ended");
    watching.abort();
    Ok(Churned { replaced: count, elapsed, times: learnt.take(), late: late.end() })
}

async fn replace(cluster: Cluster, learnt: Arc<Learnt>, (slot, turn): (usize, usize)) -> anyhow::Result<()> {
    let pods = cluster.pods(&cluster.simulated());
    pods.delete(&slot_name(slot, turn), &DeleteParams::default().grace_period(0)).await?;
    let (name, ip) = (slot_name(slot, turn + 1), slot_ip(slot));
    cluster.create_pod(&name).await?;
    learnt.sent(&name, Instant::now());
    cluster.address_pod(&name, &ip).await?;
    learnt.answered(&name, Instant::now());
    Ok(())
}

/// Sees what control sees, on a watch of its own. Says when it has begun.
async fn watch(cluster: Cluster, learnt: Arc<Learnt>, listed: oneshot::Sender<()>) {
    let mut listed = Some(listed);
    let mut events = pin!(watcher(cluster.pods(&cluster.simulated()), watcher::Config::default()));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod)) if has_address(&pod) => learnt.watched(&pod.name_any(), Instant::now()),
            Ok(Event::InitDone) => {
                // Nobody waits for a later list.
                let _ = listed.take().map(|listed| listed.send(()));
            }
            Ok(Event::Apply(_) | Event::Delete(_) | Event::Init | Event::InitApply(_)) | Err(_) => {}
        }
    }
}

fn has_address(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())
}
