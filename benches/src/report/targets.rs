//! What Ringmail promises of itself, as a table, and what a run says of each promise.
//!
//! A verdict is computed from the rounds and never typed: `met` and `missed` need the whole interval on one side.

use super::candidates::{OURS, best_tls_peer};
use super::headings::heading;
use super::numbers::{estimate, quantity, ratio};
use super::statistics::Estimate;
use crate::results::{Figure, Results};

/// One promise for each of some figures.
struct Target {
    figures: &'static [&'static str],
    against: Against,
    bound: Bound,
}

/// What the figure is divided by.
enum Against {
    /// The best of those with TLS, by the median of the figure.
    BestTlsPeer,
    /// One candidate.
    Candidate(&'static str),
    /// Nothing: the figure itself is bounded.
    Nothing,
}

/// The side that is promised.
#[derive(Clone, Copy)]
enum Bound {
    Above(f64),
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

const BULK_CPU: &[&str] = &["bulk-up-1-cpu", "bulk-up-8-cpu", "bulk-down-1-cpu", "bulk-down-8-cpu"];
const LATENCY: &[&str] =
    &["rr-128-1-p50", "rr-128-1-p99", "rr-128-1-p999", "rr-128-32-p50", "rr-128-32-p99", "rr-128-32-p999"];
const NEW_X25519: &[&str] = &["conn-8-x25519-rate", "conn-64-x25519-rate"];
const NEW_X25519_ML_KEM: &[&str] = &["conn-8-x25519mlkem768-rate", "conn-64-x25519mlkem768-rate"];
const IGNITE_RATES: &[&str] = &[
    "ignite-put-100-1-rate",
    "ignite-put-100-16-rate",
    "ignite-put-1024-1-rate",
    "ignite-put-1024-16-rate",
    "ignite-put-65536-1-rate",
    "ignite-put-65536-16-rate",
    "ignite-get-100-1-rate",
    "ignite-get-100-16-rate",
    "ignite-get-1024-1-rate",
    "ignite-get-1024-16-rate",
    "ignite-get-65536-1-rate",
    "ignite-get-65536-16-rate",
];

/// The promises, for both proxies of a pair together.
const TARGETS: [Target; 17] = [
    Target { figures: BULK_CPU, against: Against::Candidate("ztunnel"), bound: Bound::AtMost(0.70) },
    Target { figures: BULK_CPU, against: Against::Candidate("haproxy-plain"), bound: Bound::AtMost(0.6) },
    Target { figures: BULK_CPU, against: Against::Candidate("relay-copy"), bound: Bound::AtMost(1.4) },
    Target {
        figures: &["bulk-up-1-rate", "bulk-down-1-rate"],
        against: Against::BestTlsPeer,
        bound: Bound::AtLeast(1.4),
    },
    Target {
        figures: &["bulk-up-8-rate", "bulk-down-8-rate"],
        against: Against::BestTlsPeer,
        bound: Bound::AtLeast(1.7),
    },
    Target { figures: &["rr-128-32-cpu"], against: Against::BestTlsPeer, bound: Bound::AtMost(0.9) },
    Target {
        figures: &["rr-128-32-cpu"],
        against: Against::Candidate("haproxy-plain"),
        bound: Bound::AtMost(1.05),
    },
    Target { figures: LATENCY, against: Against::BestTlsPeer, bound: Bound::Below(1.0) },
    Target {
        figures: NEW_X25519_ML_KEM,
        against: Against::Candidate("linkerd2-proxy"),
        bound: Bound::AtLeast(1.2),
    },
    Target { figures: NEW_X25519, against: Against::Candidate("envoy"), bound: Bound::AtLeast(1.4) },
    Target { figures: NEW_X25519, against: Against::Candidate("haproxy"), bound: Bound::AtLeast(2.5) },
    Target { figures: &["idle-1000", "idle-9000"], against: Against::Nothing, bound: Bound::AtMost(8.0) },
    Target { figures: &["base-memory"], against: Against::Nothing, bound: Bound::AtMost(10.0) },
    Target { figures: &["binary-size"], against: Against::Nothing, bound: Bound::AtMost(8.0) },
    Target { figures: &["syscalls-rr"], against: Against::Nothing, bound: Bound::AtMost(12.0) },
    Target { figures: IGNITE_RATES, against: Against::Candidate("plain"), bound: Bound::AtLeast(0.9) },
    Target { figures: IGNITE_RATES, against: Against::Candidate("ignite-tls"), bound: Bound::Above(1.0) },
];

/// What a run says of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Kept, with the whole interval.
    Met,
    /// Not kept, with the whole interval.
    Missed,
    /// Nothing: the figure or the peer is not in the results.
    NotMeasured,
    /// The rounds do not say: the bound is within the interval, or there were too few of them for one.
    Open,
}

impl Verdict {
    /// Its words.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::NotMeasured => "not measured",
            Self::Open => "open",
        }
    }
}

/// One promise for one figure, with what was reached.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What a reader knows the figure by; its id where it was not measured.
    pub(super) figure: String,
    /// The promise in words.
    pub(super) target: String,
    /// What was reached in words.
    pub(super) reached: String,
    /// What follows.
    pub(super) verdict: Verdict,
    /// How many times better than the target: 1 is the target itself, whichever side is good.
    pub(super) better_than_target: Option<Estimate>,
}

/// Every promise, judged.
pub(super) fn judge(results: &Results) -> Vec<Row> {
    TARGETS.iter().flat_map(|target| target.figures.iter().map(|id| target.judge(id, results))).collect()
}

impl Target {
    fn judge(&self, id: &str, results: &Results) -> Row {
        let figure = results.figures.iter().find(|figure| figure.id == id);
        let unit = figure.map_or("", |figure| figure.unit.as_str());
        let reached = figure.and_then(|figure| self.reached(figure));
        Row {
            figure: figure.map_or_else(
                || format!("`{id}`"),
                |figure| format!("{}: {}", heading(&figure.group), figure.title),
            ),
            target: self.words(unit),
            verdict: reached.as_ref().map_or(Verdict::NotMeasured, |reached| self.verdict(&reached.estimate)),
            better_than_target: reached.as_ref().map(|reached| self.bound.margin(&reached.estimate)),
            reached: reached.map_or_else(|| "-".to_owned(), |reached| reached.words),
        }
    }

    fn words(&self, unit: &str) -> String {
        let (words, value) = match self.bound {
            Bound::Above(value) => ("above", value),
            Bound::AtLeast(value) => ("at least", value),
            Bound::AtMost(value) => ("at most", value),
            Bound::Below(value) => ("below", value),
        };
        let whom = match self.against {
            Against::Nothing => return format!("{words} {value} {unit}").trim_end().to_owned(),
            Against::BestTlsPeer => "the best peer with TLS",
            Against::Candidate(name) => name,
        };
        if (value - 1.0).abs() < f64::EPSILON {
            format!("{words} {whom}")
        } else {
            format!("{words} {value} x {whom}")
        }
    }

    fn reached(&self, figure: &Figure) -> Option<Reached> {
        let peer = match self.against {
            Against::Nothing => {
                let estimated = Estimate::of(figure.samples.get(OURS)?)?;
                return Some(Reached { words: estimate(&estimated, quantity), estimate: estimated });
            }
            Against::BestTlsPeer => best_tls_peer(figure)?,
            Against::Candidate(name) => name,
        };
        let ours = figure.samples.get(OURS)?;
        let estimated = Estimate::of_ratio(ours, figure.samples.get(peer)?)?;
        Some(Reached { words: format!("{} x {peer}", estimate(&estimated, ratio)), estimate: estimated })
    }

    fn verdict(&self, reached: &Estimate) -> Verdict {
        let ends = match (reached.interval, &self.against) {
            (Some(interval), _) => [interval.low, interval.high],
            // What is no ratio, such as memory or the size of a file, varies little: its rounds must agree.
            (None, Against::Nothing) => [reached.extremes.low, reached.extremes.high],
            (None, Against::BestTlsPeer | Against::Candidate(_)) => return Verdict::Open,
        };
        match ends.map(|end| self.bound.holds(end)) {
            [true, true] => Verdict::Met,
            [false, false] => Verdict::Missed,
            [true, false] | [false, true] => Verdict::Open,
        }
    }
}

impl Bound {
    fn value(self) -> f64 {
        match self {
            Self::Above(value) | Self::AtLeast(value) | Self::AtMost(value) | Self::Below(value) => value,
        }
    }

    fn margin(self, reached: &Estimate) -> Estimate {
        let multiple = reached.divided_by(self.value());
        match self {
            Self::Above(_) | Self::AtLeast(_) => multiple,
            Self::AtMost(_) | Self::Below(_) => multiple.inverted(),
        }
    }

    fn holds(self, reached: f64) -> bool {
        match self {
            Self::Above(value) => reached > value,
            Self::AtLeast(value) => reached >= value,
            Self::AtMost(value) => reached <= value,
            Self::Below(value) => reached < value,
        }
    }
}

struct Reached {
    estimate: Estimate,
    words: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::statistics::Interval;

    fn between(low: f64, high: f64) -> Estimate {
        let extremes = Interval { low, high };
        Estimate { value: f64::midpoint(low, high), interval: Some(extremes), extremes, rounds: 15 }
    }

    fn few(low: f64, high: f64) -> Estimate {
        Estimate { interval: None, rounds: 3, ..between(low, high) }
    }

    #[test]
    fn a_verdict_needs_the_whole_interval_on_one_side() {
        let target =
            Target { figures: &[], against: Against::Candidate("ztunnel"), bound: Bound::AtMost(0.7) };
        for (reached, expected) in [
            (between(0.6, 0.7), Verdict::Met),
            (between(0.69, 0.71), Verdict::Open),
            (between(0.71, 0.8), Verdict::Missed),
            (few(0.1, 0.1), Verdict::Open),
        ] {
            assert_eq!(target.verdict(&reached), expected, "{reached:?}");
        }
        assert_eq!(target.words("CPU-s/GB"), "at most 0.7 x ztunnel");
    }

    #[test]
    fn bounds_hold_on_their_side_and_strict_ones_not_at_the_end() {
        for (bound, holds) in [
            (Bound::Above(1.0), [false, false, true]),
            (Bound::AtLeast(1.0), [false, true, true]),
            (Bound::AtMost(1.0), [true, true, false]),
            (Bound::Below(1.0), [true, false, false]),
        ] {
            assert_eq!([0.9, 1.0, 1.1].map(|reached| bound.holds(reached)), holds);
            let margin = bound.margin(&between(1.5, 2.5));
            assert_eq!(margin.value > 1.0, holds[2], "{margin:?}");
            assert!(margin.interval.is_some_and(|interval| interval.low < interval.high));
        }
    }

    #[test]
    fn what_is_no_ratio_is_judged_by_few_rounds_that_agree() {
        let target = Target { figures: &[], against: Against::Nothing, bound: Bound::AtMost(8.0) };
        assert_eq!(target.verdict(&few(7.5, 7.9)), Verdict::Met);
        assert_eq!(target.verdict(&few(7.9, 8.1)), Verdict::Open);
        assert_eq!(target.verdict(&few(8.1, 8.1)), Verdict::Missed);
        assert_eq!(target.words("MB"), "at most 8 MB");
    }
}
