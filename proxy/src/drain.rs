//! How the data plane ends: it goes on serving until nobody needs it.
//!
//! A sidecar that stops before its application cuts the application's goodbye. So a drain keeps both
//! directions and new connections going until no connection is left, or until the deadline: then what
//! is left gets a FIN, and a moment later the process ends, which resets the rest. A connection is left as long as
//! one of its legs is: with its record closed, an alert or the last bytes may still be on their way.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{reason::Reason, worker::Workers};

/// How often the open connections are counted during a drain.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

/// How long no connection may be open before the drain believes it: an application that is leaving
/// still dials its neighbours, one after the other, to say so.
const QUIET: Duration = Duration::from_secs(1);

/// How long the FINs of the deadline may take before the process ends.
const FIN_GRACE: Duration = Duration::from_secs(2);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nobody needed the data plane any more.
    Quiet,
    /// The deadline passed; this many connections were ended.
    Deadline {
        /// Connections that were still open.
        left: usize,
    },
    /// A second request said: now.
    Now,
}

/// Drains: see the module. `now` is ready when the wait shall be cut short.
pub async fn drain(workers: &Arc<Workers>, deadline: Duration, now: impl Future<Output = ()>) -> Drained {
    tokio::select! {
        () = quiet(workers) => return Drained::Quiet,
        () = sleep(deadline) => {}
        () = now => return Drained::Now,
    }
    let left = workers.open_connections();
    workers.end_all(Reason::Drained);
    let gone = Instant::now() + FIN_GRACE;
    while workers.open_connections() > 0 && Instant::now() < gone {
        sleep(COUNT_INTERVAL).await;
    }
    Drained::Deadline { left }
}

async fn quiet(workers: &Workers) {
    let mut since = None;
    loop {
        if workers.open_connections() == 0 {
            let since = *since.get_or_insert_with(Instant::now);
            if since.elapsed() >= QUIET {
                return;
            }
        } else {
            since = None;
        }
        sleep(COUNT_INTERVAL).await;
    }
}
