//! What the CA tells Prometheus.
//!
//! Labels come from closed sets only, so that no caller can add a series. The `citadel_server_*`
//! names are the ones that dashboards of the field already query.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use ringmail_process::log;

use crate::audit::Reason;
use crate::door::DoorMetrics;

/// Issuing takes tens of microseconds with P-256 and milliseconds with RSA; a request that waits
/// for its body is seen up to the request deadline.
const ISSUE_BUCKETS: [f64; 10] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1, 1.0, 10.0];

/// All series of the CA.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    issued: IntCounter,
    refused: IntCounterVec,
    duration: Histogram,
    root_expiry_seconds: Gauge,
    signer_expiry_seconds: Gauge,
    serving_expiry_seconds: Gauge,
    door: DoorMetrics,
    reloads: IntCounterVec,
    bundle_writes: IntCounterVec,
    citadel_requests: IntCounter,
    citadel_issued: IntCounter,
    citadel_root_expiry: Gauge,
    log_left_out: IntCounter,
    ready: IntGauge,
}

/// The ends of validity that are shown as gauges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiries {
    pub(crate) root: SystemTime,
    pub(crate) signer: SystemTime,
    pub(crate) serving: SystemTime,
}

impl Metrics {
    /// Registers every series, with all labels at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            issued: counter(&registry, "ringmail_ca_issued_total", "Certificates issued.")?,
            refused: counters(
                &registry,
                "ringmail_ca_refused_total",
                "Requests refused, by reason.",
                "reason",
            )?,
            duration: histogram(
                &registry,
                "ringmail_ca_issue_duration_seconds",
                "Time to decide a request.",
            )?,
            root_expiry_seconds: gauge(
                &registry,
                "ringmail_ca_root_expiry_seconds",
                "Seconds until the first root of the bundle expires.",
            )?,
            signer_expiry_seconds: gauge(
                &registry,
                "ringmail_ca_signer_expiry_seconds",
                "Seconds until the signing chain expires.",
            )?,
            serving_expiry_seconds: gauge(
                &registry,
                "ringmail_ca_serving_certificate_expiry_seconds",
                "Seconds until the serving certificate expires.",
            )?,
            door: DoorMetrics::register(&registry, "ringmail_ca")?,
            reloads: counters(
                &registry,
                "ringmail_ca_reloads_total",
                "Changed files taken into use or refused, by result.",
                "result",
            )?,
            bundle_writes: counters(
                &registry,
                "ringmail_ca_bundle_writes_total",
                "ConfigMaps with the bundle written or not, by result.",
                "result",
            )?,
            citadel_requests: counter(&registry, "citadel_server_csr_count", "CSRs received.")?,
            citadel_issued: counter(
                &registry,
                "citadel_server_success_cert_issuance_count",
                "Certificates issued.",
            )?,
            citadel_root_expiry: gauge(
                &registry,
                "citadel_server_root_cert_expiry_timestamp",
                "Unix time at which the first root of the bundle expires.",
            )?,
            log_left_out: counter(
                &registry,
                "ringmail_ca_log_left_out_total",
                "Lines of the log that were summed up beyond ten a second.",
            )?,
            ready: registered(
                &registry,
                IntGauge::new("ringmail_ca_ready", "1 while certificates can be issued, else 0.")?,
            )?,
            registry,
        };
        metrics.show_zeros();
        Ok(metrics)
    }

    fn show_zeros(&self) {
        for reason in Reason::ALL {
            self.refused.with_label_values(&[reason.as_str()]).inc_by(0);
        }
        for result in ["applied", "refused"] {
            self.reloads.with_label_values(&[result]).inc_by(0);
            self.bundle_writes.with_label_values(&[result]).inc_by(0);
        }
    }

    pub(crate) fn issued(&self, took: Duration) {
        self.issued.inc();
        self.citadel_requests.inc();
        self.citadel_issued.inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, reason: Reason, took: Duration) {
        self.refused.with_label_values(&[reason.as_str()]).inc();
        self.citadel_requests.inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Those of the listener.
    pub(crate) fn door(&self) -> DoorMetrics {
        self.door.clone()
    }

    pub(crate) fn reloaded(&self, applied: bool) {
        let result = if applied { "applied" } else { "refused" };
        self.reloads.with_label_values(&[result]).inc();
    }

    pub(crate) fn bundle_written(&self, applied: bool) {
        let result = if applied { "applied" } else { "refused" };
        self.bundle_writes.with_label_values(&[result]).inc();
    }

    pub(crate) fn ready(&self, is_ready: bool) {
        self.ready.set(i64::from(is_ready));
    }

    /// The text format, with the expiry gauges as of `now`; a CA that still starts has none.
    pub(crate) fn render(
        &self,
        expiries: Option<Expiries>,
        now: SystemTime,
    ) -> Result<String, prometheus::Error> {
        if let Some(expiries) = expiries {
            self.root_expiry_seconds.set(seconds_until(expiries.root, now));
            self.signer_expiry_seconds.set(seconds_until(expiries.signer, now));
            self.serving_expiry_seconds.set(seconds_until(expiries.serving, now));
            self.citadel_root_expiry.set(seconds_until(expiries.root, UNIX_EPOCH).round());
        }
        self.log_left_out.inc_by(log::left_out().saturating_sub(self.log_left_out.get()));
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Negative once `end` is past, so that an alert on a threshold also sees what has expired.
fn seconds_until(end: SystemTime, now: SystemTime) -> f64 {
    match end.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}

fn registered<C>(registry: &Registry, collector: C) -> Result<C, prometheus::Error>
where
    C: prometheus::core::Collector + Clone + 'static,
{
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::new(name, help)?)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), &[label])?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    registered(registry, Gauge::new(name, help)?)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(ISSUE_BUCKETS.to_vec());
    registered(registry, Histogram::with_opts(options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_root_is_shown_as_negative_seconds() {
        let metrics = Metrics::new().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let past = UNIX_EPOCH + Duration::from_secs(900);
        let text = metrics.render(Some(Expiries { root: past, signer: now, serving: now }), now).unwrap();
        assert!(text.contains("ringmail_ca_root_expiry_seconds -100\n"), "{text}");
        assert!(text.contains("citadel_server_root_cert_expiry_timestamp 900\n"), "{text}");
    }

    #[test]
    fn every_reason_is_a_series_from_the_start() {
        let now = SystemTime::now();
        let text = Metrics::new().unwrap().render(None, now).unwrap();
        for reason in Reason::ALL {
            assert!(text.contains(&format!("refused_total{{reason=\"{}\"}} 0\n", reason.as_str())), "{text}");
        }
    }
}
