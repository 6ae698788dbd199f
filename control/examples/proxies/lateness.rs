//! How late this process itself is: what it says of a moment may be wrong by as much.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::sleep};

use crate::table::percentile;

/// Often enough to meet the moments in which others run in its place.
const PAUSE: Duration = Duration::from_millis(10);

/// A timer that says how much later it fired than it was to.
pub(crate) struct Lateness {
    timer: JoinHandle<()>,
    seen: Arc<Mutex<Vec<Duration>>>,
}

impl Lateness {
    pub(crate) fn begin() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&seen);
        let timer = tokio::spawn(async move {
            loop {
                let began = Instant::now();
                sleep(PAUSE).await;
                own.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(began.elapsed().saturating_sub(PAUSE));
            }
        });
        Self { timer, seen }
    }

    /// 99 of 100 times it was no later than this.
    pub(crate) fn end(self) -> Duration {
        self.timer.abort();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.sort();
        percentile(&seen, 99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_does_something_else_is_late() {
        let lateness = Lateness::begin();
        for _ in 0..3 {
            sleep(PAUSE).await;
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(lateness.end() > Duration::from_millis(80));
    }
}
