//! What the webhook tells Prometheus; labels come from closed sets.

use std::time::{Duration, SystemTime};

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};
use ringmail_ca::door::DoorMetrics;

/// A decision takes a millisecond and a question to the API server; up to the deadline of a review.
const BUCKETS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 8.0];

/// Series of the webhook, in whatever registry the process has.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) reviews: IntCounterVec,
    pub(crate) warnings: IntCounter,
    pub(crate) duration: Histogram,
    pub(crate) door: DoorMetrics,
    pub(crate) rejected: IntCounterVec,
    pub(crate) events: IntCounterVec,
    pub(crate) upkeep: IntCounterVec,
    leaf_expiry: Gauge,
    root_expiry: Gauge,
}

impl Metrics {
    /// Registers every series, with all labels at zero.
    ///
    /// # Errors
    /// Where a series of the same name is there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters =
            |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]);
        let metrics = Self {
            reviews: counters("ringmail_injector_reviews_total", "Reviews of pods, by verdict.", "verdict")?,
            warnings: IntCounter::new(
                "ringmail_injector_warnings_total",
                "Warnings told to whoever created a pod.",
            )?,
            duration: Histogram::with_opts(
                HistogramOpts::new("ringmail_injector_review_duration_seconds", "Time to answer a review.")
                    .buckets(BUCKETS.to_vec()),
            )?,
            door: DoorMetrics::register(registry, "ringmail_injector")?,
            rejected: counters(
                "ringmail_injector_rejected_total",
                "What was no review, by reason.",
                "reason",
            )?,
            events: counters(
                "ringmail_injector_events_total",
                "Events about what could not be honoured, by result.",
                "result",
            )?,
            upkeep: counters(
                "ringmail_injector_upkeep_total",
                "Looks at certificate and registration, by result.",
                "result",
            )?,
            leaf_expiry: Gauge::new(
                "ringmail_injector_serving_certificate_expiry_seconds",
                "Seconds until the serving certificate expires.",
            )?,
            root_expiry: Gauge::new(
                "ringmail_injector_root_expiry_seconds",
                "Seconds until the signing root expires.",
            )?,
        };
        for verdict in ["injected", "skipped", "refused", "unable"] {
            metrics.reviews.with_label_values(&[verdict]).inc_by(0);
        }
        for reason in Rejected::ALL {
            metrics.rejected.with_label_values(&[reason.as_str()]).inc_by(0);
        }
        for result in ["published", "failed", "dropped"] {
            metrics.events.with_label_values(&[result]).inc_by(0);
        }
        for result in ["done", "failed"] {
            metrics.upkeep.with_label_values(&[result]).inc_by(0);
        }
        registry.register(Box::new(metrics.reviews.clone()))?;
        registry.register(Box::new(metrics.warnings.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.rejected.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.upkeep.clone()))?;
        registry.register(Box::new(metrics.leaf_expiry.clone()))?;
        registry.register(Box::new(metrics.root_expiry.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn expiries(&self, leaf: SystemTime, root: SystemTime, now: SystemTime) {
        self.leaf_expiry.set(seconds_until(leaf, now));
        self.root_expiry.set(seconds_until(root, now));
    }

    pub(crate) fn reject(&self, reason: Rejected) {
        self.rejected.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn reviewed(&self, verdict: &str, took: Duration) {
        self.reviews.with_label_values(&[verdict]).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

/// Why a request got no review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    BodyTooLarge,
    BodyTooSlow,
    NotAReview,
    WrongRequest,
}

impl Rejected {
    const ALL: [Self; 4] = [Self::BodyTooLarge, Self::BodyTooSlow, Self::NotAReview, Self::WrongRequest];

    fn as_str(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::NotAReview => "not_a_review",
            Self::WrongRequest => "wrong_request",
        }
    }
}

/// Negative once it is past.
fn seconds_until(end: SystemTime, now: SystemTime) -> f64 {
    match end.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}
