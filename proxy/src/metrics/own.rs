//! What neither Istio nor Linkerd has a metric for.

use std::{
    collections::HashMap,
    sync::atomic::Ordering,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    families::{Families, Labels, label},
    table,
};
use ringmail_process::log;

use crate::{
    admin::{State, readiness},
    discovery::Link,
    ledger::Page,
    reason::FaultClass,
    record::{Direction, Protection},
    telemetry,
};

/// Adds every family of this module.
pub(super) fn collect(families: &mut Families, state: &State, page: &Page) {
    connections(families, page);
    certificates(families, state);
    let snapshot = state.snapshots.borrow().clone();
    let version = snapshot.map_or(0, |snapshot| snapshot.version);
    families.count(&table::POLICY_VERSION, Labels::new(), version);
    families.count(&table::POLICY_APPLIED, Labels::new(), state.discovery_status.applied());
    families.count(&table::POLICY_REJECTED, Labels::new(), state.discovery_status.rejected());
    for (reason, count) in state.discovery_status.refused() {
        families.count(&table::RESOURCES_REFUSED, vec![label("reason", reason.as_str())], count);
    }
    families.count(&table::POLICY_STALE, Labels::new(), u64::from(state.discovery_status.is_stale()));
    if let Some(up) = up(&state.discovery_status.link()) {
        families.count(&table::DISCOVERY_UP, Labels::new(), u64::from(up));
    }
    families.count(&table::READY, Labels::new(), u64::from(readiness(state).is_ok()));
    families.count(&table::ACCEPT_PAUSED, Labels::new(), state.limits.paused.load(Ordering::Relaxed));
    families.count(&table::ACCESS_LOG_DROPPED, Labels::new(), state.access_log.dropped());
    families.count(&table::ACCESS_LOG_LEFT_OUT, Labels::new(), state.access_log.left_out());
    families.count(&table::LOG_LEFT_OUT, Labels::new(), log::left_out());
    families.count(&table::LOG_DROPPED, Labels::new(), telemetry::dropped());
    families.count(&table::FENCED, Labels::new(), u64::from(state.fence.is_closed()));
    families.count(&table::RESTARTS, Labels::new(), state.restarts);
}

fn up(link: &Link) -> Option<bool> {
    match link {
        Link::Down { .. } => Some(false),
        Link::None => None,
        Link::Up { .. } => Some(true),
    }
}

fn connections(families: &mut Families, page: &Page) {
    for direction in [Direction::Inbound, Direction::Outbound] {
        for class in FaultClass::ALL {
            families.count(&table::FAULTS, of_class(direction, class), 0);
        }
    }
    for (series, totals) in &page.totals {
        let direction = series.direction.as_str();
        for (reason, count) in totals.closed.iter().chain(&totals.failed) {
            let labels = vec![label("direction", direction), label("reason", reason.as_str())];
            families.count(&table::CLOSED, labels, *count);
            if let Some(class) = reason.fault_class() {
                families.count(&table::FAULTS, of_class(series.direction, class), *count);
            }
        }
        if totals.opened > 0 && series.protection != Protection::MutualTls {
            let labels = vec![label("direction", direction), label("reason", series.protection.as_str())];
            families.count(&table::PASSTHROUGH, labels, totals.opened);
        }
    }
    let mut open: HashMap<Direction, u64> =
        [(Direction::Inbound, 0), (Direction::Outbound, 0)].into_iter().collect();
    for live in &page.live {
        *open.entry(live.direction).or_default() += 1;
    }
    for (direction, count) in open {
        families.count(&table::OPEN, vec![label("direction", direction.as_str())], count);
    }
    for (direction, handshakes) in &page.handshakes {
        let labels = vec![label("direction", direction.as_str())];
        families.histogram(&table::HANDSHAKE, labels, handshakes.clone());
    }
}

fn of_class(direction: Direction, class: FaultClass) -> Labels {
    vec![label("direction", direction.as_str()), label("class", class.as_str())]
}

fn certificates(families: &mut Families, state: &State) {
    for (reason, count) in state.identity_status.errors() {
        families.count(&table::ISSUE_ERRORS, vec![label("reason", reason.as_str())], count);
    }
    if let Some(skew) = state.identity_status.clock_skew() {
        families.add(&table::CLOCK_SKEW, Labels::new(), skew);
    }
    let Some(credentials) = state.credentials.borrow().clone() else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact far beyond 2^53")]
    let expires = credentials.svid.not_after().as_secs() as f64;
    families.add(&table::CERTIFICATE_EXPIRY, Labels::new(), (expires - now).floor());
}
