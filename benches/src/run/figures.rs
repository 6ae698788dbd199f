//! What a load's measurement says: its figures, and their values.

use crate::load::{Measured, Shape};
use crate::results::Better;

use super::cells::Cell;

/// Bits of a byte.
const BITS: f64 = 8.0;

/// A figure without its samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) group: &'static str,
    pub(super) title: String,
    pub(super) unit: &'static str,
    pub(super) better: Better,
}

/// The values that a measurement gives, each with its figure.
pub(super) fn values(cell: &Cell, measured: &Measured) -> Vec<(Head, f64)> {
    let mut values = Vec::new();
    let mut push = |suffix: &str, what: &str, unit, better, value: f64| {
        if value.is_finite() {
            let head = Head {
                id: format!("{}-{suffix}", cell.id),
                group: cell.group.name(),
                title: format!("{what}, {}", cell.title),
                unit,
                better,
            };
            values.push((head, value));
        }
    };
    let operations = measured.operations as f64;
    match cell.shape {
        Shape::Bulk { .. } => {
            let bytes = measured.bytes as f64;
            push("rate", "throughput", "Gbit/s", Better::Higher, bytes * BITS / 1e9 / measured.seconds);
            if let Some(cpu) = measured.cpu_seconds {
                push("cpu", "CPU of both proxies", "CPU-s/GB", Better::Lower, cpu / (bytes / 1e9));
            }
        }
        Shape::Request { .. } | Shape::Schedule { .. } => {
            if matches!(cell.shape, Shape::Request { .. }) {
                push("rate", "requests", "1/s", Better::Higher, operations / measured.seconds);
            }
            if let Some(latency) = measured.latency {
                push("p50", "p50", "us", Better::Lower, latency.p50);
                push("p99", "p99", "us", Better::Lower, latency.p99);
                push("p999", "p99.9", "us", Better::Lower, latency.p999);
            }
            if let Some(cpu) = measured.cpu_seconds {
                push("cpu", "CPU of both proxies per request", "us", Better::Lower, cpu * 1e6 / operations);
            }
        }
        Shape::Connect { .. } => {
            push("rate", "new connections", "1/s", Better::Higher, operations / measured.seconds);
            if let Some(cpu) = measured.cpu_seconds {
                push(
                    "cpu",
                    "CPU of both proxies per connection",
                    "us",
                    Better::Lower,
                    cpu * 1e6 / operations,
                );
            }
            if let Some(latency) = measured.latency {
                push("p99", "p99 to the first answer", "us", Better::Lower, latency.p99);
            }
        }
        Shape::Hold { .. } | Shape::Count { .. } => {}
    }
    values
}

/// The suffix of the figure that [`added`] is made from.
pub(super) const MIDDLE: &str = "-p50";

/// The figure of what a candidate adds to the time that a message takes without any.
pub(super) fn added(p50: &Head) -> Option<Head> {
    let id = p50.id.strip_suffix(MIDDLE)?;
    let title = p50.title.strip_prefix("p50")?;
    Some(Head { id: format!("{id}-added"), title: format!("p50 added over plain{title}"), ..p50.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::arguments::Group;
    use super::super::cells::cells;
    use super::*;
    use crate::load::Latency;

    #[test]
    fn rates_and_costs_are_per_second_gigabyte_and_request() {
        let cells = cells(&[Group::Bulk, Group::Rr]);
        let measured = Measured {
            seconds: 2.0,
            cpu_seconds: Some(1.0),
            bytes: 2_000_000_000,
            operations: 10_000,
            latency: Some(Latency { p50: 1.0, p99: 2.0, p999: 3.0 }),
            lag_p99_us: None,
        };
        let of = |id: &str| {
            let cell = cells.iter().find(|cell| cell.id == id).unwrap();
            let values = values(cell, &measured);
            values.into_iter().map(|(head, value)| (head.id, value)).collect::<Vec<_>>()
        };
        assert_eq!(of("bulk-up-1"), [("bulk-up-1-rate".into(), 8.0), ("bulk-up-1-cpu".into(), 0.5)]);
        let requests = of("rr-128-32");
        assert_eq!(requests[0], ("rr-128-32-rate".into(), 5000.0));
        assert_eq!(requests[4], ("rr-128-32-cpu".into(), 100.0));
        assert!(of("open-128").iter().all(|(id, _)| id != "open-128-rate"));
    }

    #[test]
    fn nothing_measured_is_no_value() {
        let cells = cells(&[Group::Bulk]);
        assert_eq!(values(&cells[0], &Measured::default()), []);
    }

    #[test]
    fn what_is_added_is_a_figure_of_its_own() {
        let cells = cells(&[Group::Rr]);
        let latency = Some(Latency { p50: 1.0, p99: 2.0, p999: 3.0 });
        let measured = Measured { seconds: 1.0, operations: 1, latency, ..Measured::default() };
        let heads: Vec<_> =
            values(&cells[0], &measured).into_iter().filter_map(|(head, _)| added(&head)).collect();
        assert_eq!(heads.len(), 1);
        assert_eq!(heads[0].id, "rr-128-1-added");
        assert_eq!(heads[0].title, "p50 added over plain, 128 B, 1 connection");
    }
}
