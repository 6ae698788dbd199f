//! What a closed loop counts: operations that end while the window measures, and how long each took.

use std::time::Instant;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::measured::{Measured, histogram, latency, note};
use super::request::nanoseconds;
use super::window::{Phase, Window};

/// The count so far.
pub(super) struct Tally {
    window: Window,
    operations: u64,
    times: Histogram<u64>,
}

impl Tally {
    pub(super) fn new(window: Window) -> Result<Self> {
        Ok(Self { window, operations: 0, times: histogram()? })
    }

    /// An operation that began at `begun` has ended; false once nothing counts any more.
    pub(super) fn done(&mut self, begun: Instant) -> Result<bool> {
        let now = Instant::now();
        match self.window.phase(now)? {
            Phase::WarmUp => Ok(true),
            Phase::Measuring => {
                self.operations += 1;
                note(&mut self.times, nanoseconds(now - begun));
                Ok(true)
            }
            Phase::Over => Ok(false),
        }
    }

    /// All of it.
    pub(super) fn measured(&self) -> Measured {
        let (operations, latency) = (self.operations, latency(&self.times));
        Measured { operations, latency, ..self.window.measured() }
    }
}
