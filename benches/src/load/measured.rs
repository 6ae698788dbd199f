//! What a load has measured, as it is handed from the client's process to the one that runs the rounds.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest time told apart from longer ones: a minute is an outage.
const LONGEST_NS: u64 = 60_000_000_000;

/// Three digits: a percentile is right to a thousandth.
const DIGITS: u8 = 3;

/// What a load has measured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Measured {
    /// How long was measured.
    pub seconds: f64,
    /// The CPU time of the proxies meanwhile, where it was asked for.
    pub cpu_seconds: Option<f64>,
    /// Bytes of payload that were carried.
    pub bytes: u64,
    /// Messages answered, or connections made.
    pub operations: u64,
    /// How long each took.
    pub latency: Option<Latency>,
    /// How late the 99th of 100 messages was sent, in microseconds, where they were sent on schedule.
    pub lag_p99_us: Option<f64>,
}

impl Measured {
    /// Reads what a client printed.
    pub fn parse(printed: &str) -> Result<Self> {
        let line = printed.lines().last().context("the load printed nothing")?;
        serde_json::from_str(line).with_context(|| format!("read what the load printed: {line}"))
    }
}

/// Percentiles, in microseconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Latency {
    /// The middle.
    pub p50: f64,
    /// Of 100, one is longer.
    pub p99: f64,
    /// Of 1000, one is longer.
    pub p999: f64,
}

/// A histogram of nanoseconds.
pub(super) fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).context("make a histogram")
}

/// Notes a time; a longer one than can be told apart counts as the longest.
pub(super) fn note(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record(ns);
}

/// A percentile in microseconds.
pub(super) fn percentile_us(histogram: &Histogram<u64>, percent: f64) -> f64 {
    histogram.value_at_quantile(percent / 100.0) as f64 / 1000.0
}

/// The percentiles of a histogram; none when it is empty.
pub(super) fn latency(histogram: &Histogram<u64>) -> Option<Latency> {
    let at = |percent| percentile_us(histogram, percent);
    (!histogram.is_empty()).then(|| Latency { p50: at(50.0), p99: at(99.0), p999: at(99.9) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_two_thousandths() {
        let mut times = histogram().unwrap();
        assert_eq!(latency(&times), None);
        for microseconds in 1..=1000_u64 {
            note(&mut times, microseconds * 1000);
        }
        let latency = latency(&times).unwrap();
        for (read, expected) in [(latency.p50, 500.0), (latency.p99, 990.0), (latency.p999, 999.0)] {
            assert!((read - expected).abs() <= expected / 500.0, "{read} for {expected}");
        }
    }

    #[test]
    fn what_was_printed_is_read_from_its_last_line() {
        let measured = Measured { seconds: 1.5, bytes: 7, ..Measured::default() };
        let printed = format!("held\n{}\n", serde_json::to_string(&measured).unwrap());
        assert_eq!(Measured::parse(&printed).unwrap(), measured);
        assert!(Measured::parse("").unwrap_err().to_string().contains("nothing"));
        assert!(Measured::parse("no json").unwrap_err().to_string().contains("no json"));
    }
}
