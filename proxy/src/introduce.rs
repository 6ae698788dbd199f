//! Who it is that dials this pod, by discovery: for metrics and logs, and so that plaintext from a pod of the mesh that
//! nobody asked for is not taken for a client outside it. Nothing is admitted by it: that is the certificate's part.

use std::{sync::Arc, time::Duration};

use ringmail_policy::Workload;
use tokio::time::{Instant, timeout_at};

use crate::{record::Record, snapshot::Snapshot, worker::Context};

/// How long an answer about a source is waited for. It takes a round trip to the server of discovery, once for each
/// source; a connection that would have to wait longer is served without.
const INTRODUCTION: Duration = Duration::from_millis(50);

/// Notes who the source is or, where that is not known, has it asked for while the connection goes on.
pub(crate) fn ask(context: &Context, snapshot: &Snapshot, record: &Record) {
    let source = record.live().source.ip();
    match snapshot.outbound.workload(source) {
        Some(workload) => record.peer_workload(workload),
        None if snapshot.outbound.is_open(source) => context.asker.ask(source),
        None => {}
    }
}

/// Waits a little for what was asked; who the source is, where that is known.
pub(crate) async fn wait(context: &Context, record: &Record) -> Option<Arc<Workload>> {
    if let Some(known) = record.live().peer_workload.get() {
        return Some(Arc::clone(known));
    }
    let source = record.live().source.ip();
    let deadline = Instant::now() + INTRODUCTION;
    let mut snapshots = context.snapshots.clone();
    loop {
        let snapshot = snapshots.borrow_and_update().clone()?;
        if let Some(workload) = snapshot.outbound.workload(source) {
            record.peer_workload(workload);
            return Some(Arc::clone(workload));
        }
        // Without anybody to answer there is nothing to wait for.
        if !snapshot.outbound.is_open(source) || !context.asker.is_answered() {
            return None;
        }
        if !matches!(timeout_at(deadline, snapshots.changed()).await, Ok(Ok(()))) {
            return None;
        }
    }
}
