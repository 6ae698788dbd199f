//! How fast a client may ask. One that is faster waits, and is not cut off: a scan of the application's is no fault of
//! its proxy.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Names that may come at once: everything that a proxy holds when it comes back, twice over.
const BURST: f64 = 32.0 * 1024.0;
/// Names per second after that.
const RATE: f64 = 1000.0;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    tokens: f64,
    at: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { tokens: BURST, at: Instant::now() }
    }
}

impl Pace {
    /// Whether the next request may be read.
    pub(crate) fn is_open(&self) -> bool {
        self.left(Instant::now()) > 0.0
    }

    /// Pays for `names`; more than is left is owed.
    pub(crate) fn spend(&mut self, names: usize) {
        let now = Instant::now();
        let names = u32::try_from(names).unwrap_or(u32::MAX);
        self.tokens = self.left(now) - f64::from(names);
        self.at = now;
    }

    /// Until the next request may be read.
    pub(crate) async fn wait(&self) {
        let owed = (-self.tokens).max(0.0) + 1.0;
        sleep_until(self.at + Duration::from_secs_f64(owed / RATE)).await;
    }

    fn left(&self, now: Instant) -> f64 {
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() * RATE;
        (self.tokens + refilled).min(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_for_too_much_waits_until_it_is_paid_for() {
        let mut pace = Pace::default();
        pace.spend(32 * 1024 - 1);
        assert!(pace.is_open());
        pace.spend(201);
        assert!(!pace.is_open());
        let began = Instant::now();
        pace.wait().await;
        assert!(pace.is_open());
        assert!((0.15..2.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    }
}
