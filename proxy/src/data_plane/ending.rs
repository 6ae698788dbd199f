//! How a data plane ends: the first signal drains its connections, a second one cuts those that are left.

use std::{sync::Arc, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::error::{DataPlaneError, system};
use crate::{
    config::Config,
    drain::{Drained, drain},
    parent::ending_signals,
    reason::Reason,
    worker::Workers,
};

/// How long the end of connections may take that were cut by a second signal, so that each has its record.
const LAST_RECORDS: Duration = Duration::from_millis(200);

/// The signals that end the proxy.
pub(super) struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    pub(super) fn listen() -> Result<Self, DataPlaneError> {
        let listen = |kind| signal(kind).map_err(system("signals"));
        let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        // One that came before this is still pending, and is heard now.
        ending_signals().thread_unblock().map_err(system("signals"))?;
        Ok(Self { terminate, interrupt })
    }

    pub(super) async fn heard(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves what is open until it has ended, or until it has to.
pub(super) async fn end(workers: &Arc<Workers>, config: &Config, ending: &mut Ending) {
    let (open, deadline) = (workers.open_connections(), config.drain_timeout);
    info!(open, ?deadline, "draining: connections are served until none is left");
    let drained = drain(workers, deadline, ending.heard()).await;
    match drained {
        Drained::Quiet => info!("drained: no connection is left"),
        Drained::Deadline { left } => warn!(left, "drain deadline: the connections left were ended"),
        Drained::Now => {
            let left = workers.open_connections();
            workers.end_all(Reason::Drained);
            tokio::time::sleep(LAST_RECORDS).await;
            warn!(left, "told twice to end: the connections left were ended");
        }
    }
}
