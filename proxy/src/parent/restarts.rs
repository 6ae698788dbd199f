//! How soon a data plane that died is started again. Pure: times in, pauses out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Deaths that are looked back at.
const WINDOW: Duration = Duration::from_secs(60);
/// Deaths within the window that cost no pause. What kills a data plane again and again is usually one
/// connection that its application keeps dialling; all others are best served by being back at once.
const FREE_DEATHS: usize = 30;
/// The first pause after that, doubled with each further death.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause: a ring rides out a sidecar that is away for 4 s, so starting must fit in as well.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The deaths so far.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    deaths: VecDeque<Instant>,
    total: u64,
}

impl Restarts {
    /// Counts a death and answers how long to wait before the next start.
    pub(super) fn died(&mut self, now: Instant) -> Duration {
        self.total += 1;
        self.deaths.push_back(now);
        while self.deaths.front().is_some_and(|death| now.saturating_duration_since(*death) > WINDOW) {
            self.deaths.pop_front();
        }
        let Some(excess) = self.deaths.len().checked_sub(FREE_DEATHS + 1) else { return Duration::ZERO };
        let doublings = u32::try_from(excess).unwrap_or(u32::MAX).min(u32::BITS - 1);
        FIRST_PAUSE.saturating_mul(1 << doublings).min(MAX_PAUSE)
    }

    /// All deaths since the parent started: how often a data plane was started again.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_deaths_are_free_and_then_pauses_double_up_to_a_bound() {
        let now = Instant::now();
        let mut restarts = Restarts::default();
        for _ in 0..FREE_DEATHS {
            assert_eq!(restarts.died(now), Duration::ZERO);
        }
        let pauses: Vec<u128> = (0..8).map(|_| restarts.died(now).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(restarts.total(), 38);
    }

    #[test]
    fn a_minute_without_a_death_makes_them_free_again() {
        let now = Instant::now();
        let mut restarts = Restarts::default();
        for _ in 0..100 {
            restarts.died(now);
        }
        assert_eq!(restarts.died(now + WINDOW + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(restarts.total(), 101);
    }

    #[test]
    fn any_number_of_deaths_is_bounded() {
        let now = Instant::now();
        let mut restarts = Restarts::default();
        for _ in 0..1000 {
            assert!(restarts.died(now) <= MAX_PAUSE);
        }
    }
}
