//! Families under construction: equal label sets are summed, and every pair stays in its place.
//!
//! The vectors of the prometheus crate sort labels by name; readers of Istio's and Linkerd's metrics
//! were written against their order, so the families are built by hand.

use std::{collections::BTreeMap, sync::Arc};

use prometheus::proto;

use super::table::{Kind, Metric};
use crate::ledger::{HANDSHAKE_BUCKETS, Handshakes};

/// The labels of one sample, in order.
pub(super) type Labels = Vec<(&'static str, Arc<str>)>;

/// One label.
pub(super) fn label(name: &'static str, value: impl AsRef<str>) -> (&'static str, Arc<str>) {
    (name, value.as_ref().into())
}

/// Samples by row and labels.
#[derive(Default)]
pub(super) struct Families(BTreeMap<&'static str, (&'static Metric, BTreeMap<Labels, Sample>)>);

enum Sample {
    Histogram(Handshakes),
    Number(f64),
}

impl Families {
    /// Adds to the sample with these labels.
    pub(super) fn add(&mut self, row: &'static Metric, labels: Labels, value: f64) {
        match self.samples(row).entry(labels).or_insert(Sample::Number(0.0)) {
            Sample::Number(number) => *number += value,
            // A row has one kind, so this cannot be reached with a row of the table.
            Sample::Histogram(_) => {}
        }
    }

    /// Adds a whole number to the sample with these labels.
    #[expect(clippy::cast_precision_loss, reason = "the exposition format has floats only, exact up to 2^53")]
    pub(super) fn count(&mut self, row: &'static Metric, labels: Labels, value: u64) {
        self.add(row, labels, value as f64);
    }

    /// Sets the histogram with these labels.
    pub(super) fn histogram(&mut self, row: &'static Metric, labels: Labels, handshakes: Handshakes) {
        self.samples(row).insert(labels, Sample::Histogram(handshakes));
    }

    /// In the crate's own form, ordered by name.
    pub(super) fn into_proto(self) -> Vec<proto::MetricFamily> {
        self.0.into_values().map(|(row, samples)| family(row, samples)).collect()
    }

    fn samples(&mut self, row: &'static Metric) -> &mut BTreeMap<Labels, Sample> {
        &mut self.0.entry(row.name).or_insert_with(|| (row, BTreeMap::new())).1
    }
}

fn family(row: &Metric, samples: BTreeMap<Labels, Sample>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(row.name.to_owned());
    family.set_help(row.doc.to_owned());
    family.set_field_type(match row.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
        Kind::Histogram => proto::MetricType::HISTOGRAM,
    });
    family
        .set_metric(samples.into_iter().map(|(labels, sample)| metric(row.kind, labels, &sample)).collect());
    family
}

fn metric(kind: Kind, labels: Labels, sample: &Sample) -> proto::Metric {
    let pairs = labels.into_iter().map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_string());
        pair
    });
    let mut metric = proto::Metric::from_label(pairs.collect());
    match (kind, sample) {
        (Kind::Gauge, Sample::Number(number)) => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(*number);
            metric.set_gauge(gauge);
        }
        (Kind::Counter | Kind::Histogram, Sample::Number(number)) => {
            let mut counter = proto::Counter::default();
            counter.set_value(*number);
            metric.set_counter(counter);
        }
        (Kind::Counter | Kind::Gauge | Kind::Histogram, Sample::Histogram(handshakes)) => {
            metric.set_histogram(cumulative(handshakes));
        }
    }
    metric
}

fn cumulative(handshakes: &Handshakes) -> proto::Histogram {
    let mut histogram = proto::Histogram::default();
    let mut below = 0;
    let mut buckets = Vec::with_capacity(HANDSHAKE_BUCKETS.len());
    for (bound, count) in HANDSHAKE_BUCKETS.iter().zip(handshakes.buckets) {
        below += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        buckets.push(bucket);
    }
    histogram.set_bucket(buckets);
    histogram.set_sample_count(handshakes.buckets.iter().sum());
    histogram.set_sample_sum(handshakes.sum.as_secs_f64());
    histogram
}
