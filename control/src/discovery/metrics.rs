//! What discovery tells Prometheus. Labels come from closed sets only, so that no client can add a series.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};
use ringmail_ca::door::DoorMetrics;
use ringmail_xds::{
    Resource, discovery::DeltaDiscoveryResponse, ringmail, security::Authorization, workload::Address,
};

use super::world::Sizes;

/// From a watch's word to an answer on its way: a batch takes up to 50 ms, and a slow reader any time.
const QUEUE_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Every type that is served, with its label.
const TYPES: [(&str, &str); 4] = [
    (Address::TYPE_URL, "address"),
    (ringmail::Destination::TYPE_URL, "destination"),
    (Authorization::TYPE_URL, "authorization"),
    (ringmail::Inbound::TYPE_URL, "inbound"),
];

/// How a stream was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// The token proves nothing.
    Token,
    /// The cluster is not known yet, or the API server gives no answer about the token.
    NotReady,
    /// Too many streams.
    Full,
    /// Another method.
    Method,
}

impl Refused {
    const ALL: [Self; 4] = [Self::Token, Self::NotReady, Self::Full, Self::Method];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::NotReady => "not_ready",
            Self::Full => "full",
            Self::Method => "method",
        }
    }
}

/// All series of discovery.
#[derive(Debug)]
pub(crate) struct Metrics {
    streams: IntGauge,
    door: DoorMetrics,
    refused_streams: IntCounterVec,
    pushes: IntCounterVec,
    resources: IntCounterVec,
    bytes: IntCounterVec,
    nacks: IntCounterVec,
    slow: IntCounter,
    queue: Histogram,
    updates: IntCounter,
    held: IntGaugeVec,
    watch_faults: IntCounterVec,
    faulty_policies: IntGauge,
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

impl Metrics {
    /// Registers every series, with all labels of closed sets at zero.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help)?);
        let counter = |name: &str, help: &str| registered(registry, IntCounter::new(name, help)?);
        let counters = |name: &str, help: &str, label: &str| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), &[label])?)
        };
        let held =
            IntGaugeVec::new(Opts::new("ringmail_discovery_held", "Objects held, by kind."), &["kind"])?;
        let queue = HistogramOpts::new(
            "ringmail_discovery_queue_seconds",
            "Time from the word of a watch until the last answer that follows from it is on its way to one proxy.",
        );
        let metrics = Self {
            streams: gauge("ringmail_discovery_streams", "Streams open.")?,
            door: DoorMetrics::register(registry, "ringmail_discovery")?,
            refused_streams: counters(
                "ringmail_discovery_refused_streams_total",
                "Streams refused, by reason.",
                "reason",
            )?,
            pushes: counters("ringmail_discovery_pushes_total", "Answers sent, by type.", "type")?,
            resources: counters("ringmail_discovery_resources_total", "Resources sent, by type.", "type")?,
            bytes: counters("ringmail_discovery_bytes_total", "Bytes of resources sent, by type.", "type")?,
            nacks: counters(
                "ringmail_discovery_nacks_total",
                "Answers that a proxy refused, by type.",
                "type",
            )?,
            slow: counter("ringmail_discovery_slow_readers_total", "Streams ended because nobody read.")?,
            queue: registered(registry, Histogram::with_opts(queue.buckets(QUEUE_BUCKETS.to_vec()))?)?,
            updates: counter("ringmail_discovery_updates_total", "Changes of the cluster taken up.")?,
            held: registered(registry, held)?,
            watch_faults: counters(
                "ringmail_discovery_watch_faults_total",
                "Failures of watches, by kind.",
                "kind",
            )?,
            faulty_policies: gauge("ringmail_discovery_faulty_policies", "Policies that cannot be read.")?,
        };
        for (_, label) in TYPES {
            for family in [&metrics.pushes, &metrics.resources, &metrics.bytes, &metrics.nacks] {
                family.with_label_values(&[label]);
            }
        }
        for reason in Refused::ALL {
            metrics.refused_streams.with_label_values(&[reason.as_str()]);
        }
        Ok(metrics)
    }

    /// Counts a stream until the answer is dropped.
    pub(crate) fn stream(&self) -> Counted {
        Counted::new(self.streams.clone())
    }

    /// Those of the listener.
    pub(crate) fn door(&self) -> DoorMetrics {
        self.door.clone()
    }

    pub(crate) fn refused_stream(&self, reason: Refused) {
        self.refused_streams.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn pushed(&self, answer: &DeltaDiscoveryResponse) {
        let Some(label) = label(&answer.type_url) else { return };
        self.pushes.with_label_values(&[label]).inc();
        self.resources.with_label_values(&[label]).inc_by(count(answer.resources.len()));
        let bytes =
            answer.resources.iter().filter_map(|resource| Some(resource.resource.as_ref()?.value.len()));
        self.bytes.with_label_values(&[label]).inc_by(count(bytes.sum()));
    }

    pub(crate) fn refused(&self, type_url: &str) {
        if let Some(label) = label(type_url) {
            self.nacks.with_label_values(&[label]).inc();
        }
    }

    pub(crate) fn slow(&self) {
        self.slow.inc();
    }

    pub(crate) fn queued(&self, time: Duration) {
        self.queue.observe(time.as_secs_f64());
    }

    pub(crate) fn applied(&self, updates: usize, sizes: &Sizes) {
        self.updates.inc_by(count(updates));
        for (kind, size) in [
            ("pods", sizes.pods),
            ("workloads", sizes.workloads),
            ("services", sizes.services),
            ("endpoint_slices", sizes.slices),
            ("policies", sizes.policies),
        ] {
            self.held.with_label_values(&[kind]).set(i64::try_from(size).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn watch_fault(&self, kind: &'static str) {
        self.watch_faults.with_label_values(&[kind]).inc();
    }

    pub(crate) fn faulty(&self, policies: usize) {
        self.faulty_policies.set(i64::try_from(policies).unwrap_or(i64::MAX));
    }
}

fn label(type_url: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|(known, _)| *known == type_url).map(|(_, label)| label)
}

fn count(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// Something that is counted for as long as it is there.
#[derive(Debug)]
pub(crate) struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
