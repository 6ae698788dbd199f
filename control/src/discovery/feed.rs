//! Changes, from the watches to the streams: in batches, so that a storm of them is one.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{Discovery, world::Update};

/// A batch ends when nothing has come for this long,
const QUIET: Duration = Duration::from_millis(10);
/// and is not held back for longer than this. What is pushed is pushed within 100 ms of the watch's word.
const LONGEST: Duration = Duration::from_millis(50);
/// Changes of one batch: the world is locked for as long as they take.
const MAX_BATCH: usize = 1024;

/// What a watch says.
#[derive(Debug)]
pub(crate) enum Change {
    /// The first list of this kind is complete.
    Listed(&'static str),
    /// Something is different, since this moment.
    Update(Box<Update>, std::time::Instant),
}

/// Runs for as long as there are watches.
pub(crate) async fn run(discovery: Arc<Discovery>, mut queue: mpsc::Receiver<Change>) {
    while let Some(first) = queue.recv().await {
        let end = Instant::now() + LONGEST;
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH {
            match timeout_at(end.min(Instant::now() + QUIET), queue.recv()).await {
                Ok(Some(change)) => batch.push(change),
                Ok(None) | Err(_) => break,
            }
        }
        apply(&discovery, batch);
        // A long batch must not keep the streams from being served.
        tokio::task::yield_now().await;
    }
}

/// Takes a batch into the world, and wakes whom it concerns.
pub(crate) fn apply(discovery: &Discovery, batch: Vec<Change>) {
    let (mut updates, mut listed, mut since) = (Vec::new(), Vec::new(), None);
    let mut policies = false;
    for change in batch {
        match change {
            Change::Listed(kind) => listed.push(kind),
            Change::Update(update, at) => {
                policies |= matches!(*update, Update::Policy(..));
                since = Some(since.map_or(at, |before: std::time::Instant| before.min(at)));
                updates.push(*update);
            }
        }
    }
    if let Some(since) = since {
        let mut world = discovery.world.write().unwrap_or_else(PoisonError::into_inner);
        let count = updates.len();
        let dirty = world.apply(updates);
        let sizes = world.sizes();
        drop(world);
        let woken = discovery.hub.mark(&dirty, since);
        discovery.metrics.applied(count, &sizes);
        tracing::debug!(count, woken, addresses = dirty.addresses.len(), "applied");
    }
    for kind in listed {
        discovery.sync.listed(kind);
        tracing::info!(kind, "listed");
    }
    if policies {
        discovery.policies_changed.notify_one();
    }
}
