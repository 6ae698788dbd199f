//! Ports that a workload's sidecar does not capture: connections to them reach whoever listens there, as they are.
//!
//! No policy has a say about them, because the sidecar that would enforce it never sees them; and nobody there could
//! answer mutual TLS.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// The sidecar's own ports, which no capture ever takes: Linkerd-shaped metrics, admin, the two that it captures to,
/// Istio-shaped metrics with readiness, readiness.
pub const SIDECAR_PORTS: [u16; 6] = [4191, 15000, 15001, 15006, 15020, 15021];

/// Ports that are left alone beside [`SIDECAR_PORTS`]; by default none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeftAlone {
    /// In order, and with a captured port between any two.
    ranges: Vec<RangeInclusive<u16>>,
}

impl LeftAlone {
    /// What a capture leaves alone that takes only `included` ports (`None` is all) without the `excluded`.
    pub fn by_capture(included: Option<&BTreeSet<u16>>, excluded: &BTreeSet<u16>) -> Self {
        let mut ranges: Vec<_> = excluded.iter().map(|port| *port..=*port).collect();
        if let Some(included) = included {
            let mut first = Some(1);
            for port in included {
                // Empty where the two are neighbours; those are dropped.
                ranges.extend(first.map(|first| first..=port.saturating_sub(1)));
                first = port.checked_add(1);
            }
            ranges.extend(first.map(|first| first..=u16::MAX));
        }
        ranges.into_iter().collect()
    }

    /// Whether `port` is among them.
    pub fn contains(&self, port: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&port))
    }

    /// The ports as ranges, in order, as few as there can be.
    pub(crate) fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.ranges
    }
}

impl FromIterator<RangeInclusive<u16>> for LeftAlone {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_by_key(|range| *range.start());
        let mut ranges = Vec::<RangeInclusive<u16>>::new();
        for range in sorted {
            match ranges.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                Some(_) | None => ranges.push(range),
            }
        }
        Self { ranges }
    }
}
