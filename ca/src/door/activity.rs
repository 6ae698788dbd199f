//! Whether a connection is in use.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// Requests in progress on one connection.
#[derive(Default)]
pub(super) struct Activity {
    in_progress: AtomicUsize,
    changed: Notify,
}

/// One request in progress, for as long as this lives.
pub struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        Busy(Arc::clone(self))
    }

    /// Returns once there has been no request in progress for `limit`.
    pub(super) async fn idle_for(&self, limit: Duration) {
        loop {
            let mut changed: Pin<&mut _> = pin!(self.changed.notified());
            if self.in_progress.load(Ordering::Relaxed) > 0 {
                changed.await;
            } else if timeout(limit, changed.as_mut()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}
