//! The time that counts: after the warm-up, for as long as was asked.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::measured::Measured;
use crate::cost::CpuClock;

/// Where a load is in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing counts yet.
    WarmUp,
    /// What happens counts.
    Measuring,
    /// Nothing counts any more.
    Over,
}

/// A window, which reads the CPU time of the proxies at its beginning and its end.
#[derive(Debug)]
pub(super) struct Window {
    opens: Instant,
    warm_up: Duration,
    measure: Duration,
    clock: Option<CpuClock>,
    phase: Phase,
    begun: Option<Mark>,
    ended: Option<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    cpu: Option<Duration>,
}

impl Window {
    /// One whose warm-up begins now.
    pub(super) fn new(warm_up: Duration, measure: Duration, clock: Option<CpuClock>) -> Self {
        let opens = Instant::now() + warm_up;
        Self { opens, warm_up, measure, clock, phase: Phase::WarmUp, begun: None, ended: None }
    }

    /// How long the warm-up and the measuring last.
    pub(super) fn lengths(&self) -> (Duration, Duration) {
        (self.warm_up, self.measure)
    }

    /// Begins to measure, for a load that knows by itself when.
    pub(super) fn open(&mut self) -> Result<()> {
        self.begun = Some(self.mark()?);
        self.phase = Phase::Measuring;
        Ok(())
    }

    /// Ends it.
    pub(super) fn close(&mut self) -> Result<()> {
        self.ended = Some(self.mark()?);
        self.phase = Phase::Over;
        Ok(())
    }

    /// Where it is now.
    pub(super) fn phase(&mut self, now: Instant) -> Result<Phase> {
        if self.phase == Phase::WarmUp && now >= self.opens {
            self.open()?;
        }
        if let (Phase::Measuring, Some(begun)) = (self.phase, self.begun)
            && now >= begun.at + self.measure
        {
            self.close()?;
        }
        Ok(self.phase)
    }

    /// How long until the next phase; none once it is over.
    pub(super) fn next_change(&self, now: Instant) -> Option<Duration> {
        let at = match (self.phase, self.begun) {
            (Phase::WarmUp, _) => self.opens,
            (Phase::Measuring, Some(begun)) => begun.at + self.measure,
            (Phase::Measuring, None) | (Phase::Over, _) => return None,
        };
        Some(at.saturating_duration_since(now))
    }

    /// What was measured, but for what the load itself counted.
    pub(super) fn measured(&self) -> Measured {
        let (Some(begun), Some(ended)) = (self.begun, self.ended) else {
            return Measured::default();
        };
        let cpu = begun.cpu.zip(ended.cpu).map(|(before, after)| after.saturating_sub(before).as_secs_f64());
        Measured { seconds: (ended.at - begun.at).as_secs_f64(), cpu_seconds: cpu, ..Measured::default() }
    }

    fn mark(&self) -> Result<Mark> {
        let cpu = self.clock.as_ref().map(CpuClock::read).transpose()?;
        Ok(Mark { at: Instant::now(), cpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_warms_up_measures_and_is_over() {
        let clock = CpuClock::Processes(vec![std::process::id()]);
        let measure = Duration::from_secs(60);
        let mut window = Window::new(Duration::from_millis(20), measure, Some(clock));
        let now = Instant::now();
        assert_eq!(window.phase(now).unwrap(), Phase::WarmUp);
        assert_eq!(window.measured().seconds, 0.0);
        assert!(window.next_change(now).unwrap() <= Duration::from_millis(20));
        assert_eq!(window.phase(now + Duration::from_millis(21)).unwrap(), Phase::Measuring);
        assert_eq!(window.phase(Instant::now() + measure).unwrap(), Phase::Over);
        let measured = window.measured();
        assert!(measured.seconds > 0.0 && measured.cpu_seconds.is_some(), "{measured:?}");
        assert_eq!(window.next_change(Instant::now()), None);
    }
}
