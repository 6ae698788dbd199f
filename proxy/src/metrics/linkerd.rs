//! Linkerd's TCP metrics, so that its dashboards and `viz` queries keep working.
//!
//! Every connection has two legs: `src` is downstream of the proxy, `dst` upstream. The leg on the
//! application's side never leaves the pod and says `loopback`. An identity is written as Linkerd names
//! it, `<service account>.<namespace>.serviceaccount.identity.linkerd.<trust domain>`.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use ringmail_identity::SpiffeId;
use ringmail_policy::{Kind, Mode, Origin, OutsideReason, Workload};

use super::{
    families::{Families, Labels, label},
    table,
};
use crate::{
    admin::State,
    ledger::{Page, Series, Totals},
    reason::Reason,
    record::{Direction, Protection},
    snapshot::Snapshot,
};

/// The pod label by which Linkerd's own control plane tells its namespace.
const CONTROL_PLANE_LABEL: &str = "linkerd.io/control-plane-ns";
/// Only pods of a Deployment's ReplicaSet carry it.
const DEPLOYMENT_LABEL: &str = "pod-template-hash";
const RESET: &str = "ECONNRESET";
const TIMED_OUT: &str = "ETIMEDOUT";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leg {
    Source,
    Destination,
}

/// Adds every family of this module.
pub(super) fn collect(families: &mut Families, state: &State, page: &Page) {
    let snapshot = state.snapshots.borrow().clone();
    for (series, totals) in &page.totals {
        for leg in [Leg::Source, Leg::Destination] {
            transport(families, series, totals, leg, snapshot.as_deref());
        }
        if series.direction == Direction::Inbound {
            authorization(families, series, totals, snapshot.as_deref());
        }
        errors(families, series, totals);
    }
    certificates(families, state);
}

fn transport(
    families: &mut Families,
    series: &Series,
    totals: &Totals,
    leg: Leg,
    snapshot: Option<&Snapshot>,
) {
    if totals.opened == 0 {
        return;
    }
    let labels = transport_labels(series, leg, snapshot);
    let (read, written) = match leg {
        Leg::Source => (totals.from_downstream, totals.to_downstream),
        Leg::Destination => (totals.to_downstream, totals.from_downstream),
    };
    let closed: u64 = totals.closed.values().sum();
    families.count(&table::TCP_OPEN, labels.clone(), totals.opened);
    families.count(&table::TCP_OPEN_NOW, labels.clone(), totals.opened.saturating_sub(closed));
    families.count(&table::TCP_READ, labels.clone(), read);
    families.count(&table::TCP_WRITE, labels.clone(), written);
    for (reason, count) in &totals.closed {
        let mut labels = labels.clone();
        labels.push(label("errno", errno(*reason, series.direction, leg)));
        families.count(&table::TCP_CLOSE, labels, *count);
    }
}

fn transport_labels(series: &Series, leg: Leg, snapshot: Option<&Snapshot>) -> Labels {
    let peer = match leg {
        Leg::Source => "src",
        Leg::Destination => "dst",
    };
    let mut labels = vec![label("direction", series.direction.as_str()), label("peer", peer)];
    match (series.direction, leg) {
        (Direction::Inbound, Leg::Source) => {
            target(&mut labels, series.destination);
            client_tls(&mut labels, series);
            server(&mut labels, series.destination, snapshot);
        }
        (Direction::Inbound, Leg::Destination) => no_tls(&mut labels, "loopback"),
        (Direction::Outbound, Leg::Source) => {
            target(&mut labels, series.destination);
            no_tls(&mut labels, "loopback");
        }
        (Direction::Outbound, Leg::Destination) => {
            target(&mut labels, series.destination);
            server_tls(&mut labels, series);
            if let Some(peer) = &series.peer_workload {
                destination(&mut labels, &peer.0);
            }
        }
    }
    labels
}

fn target(labels: &mut Labels, address: Option<SocketAddr>) {
    let Some(address) = address else { return };
    labels.push(label("target_addr", address.to_string()));
    labels.push(label("target_ip", address.ip().to_string()));
    labels.push(label("target_port", address.port().to_string()));
}

fn no_tls(labels: &mut Labels, reason: &str) {
    labels.push(label("tls", "no_identity"));
    labels.push(label("no_tls_reason", reason));
}

fn client_tls(labels: &mut Labels, series: &Series) {
    match series.protection {
        Protection::MutualTls => {
            labels.push(label("tls", "true"));
            labels.push(label("client_id", linkerd_id(series.peer_identity.as_ref())));
        }
        Protection::ModeDisable => no_tls(labels, "port_skipped"),
        Protection::Outside(_) | Protection::Permissive | Protection::Undecided => {
            no_tls(labels, "no_tls_from_remote");
        }
    }
}

fn server_tls(labels: &mut Labels, series: &Series) {
    match series.protection {
        Protection::MutualTls => {
            labels.push(label("tls", "true"));
            labels.push(label("server_id", linkerd_id(series.peer_identity.as_ref())));
        }
        Protection::Outside(
            OutsideReason::NoMeshEndpoint | OutsideReason::NoSidecar | OutsideReason::NotInMesh,
        )
        | Protection::Undecided => {
            no_tls(labels, "not_provided_by_service_discovery");
        }
        Protection::Outside(
            OutsideReason::DestinationRuleDisable
            | OutsideReason::Itself
            | OutsideReason::NotCaptured
            | OutsideReason::PortModeDisable,
        )
        | Protection::ModeDisable
        | Protection::Permissive => no_tls(labels, "port_skipped"),
    }
}

fn linkerd_id(id: Option<&SpiffeId>) -> String {
    let Some(id) = id else { return String::new() };
    match (id.service_account(), id.namespace()) {
        (Some(account), Some(namespace)) => {
            format!("{account}.{namespace}.serviceaccount.identity.linkerd.{}", id.trust_domain())
        }
        (Some(_) | None, None) | (None, Some(_)) => id.as_str().to_owned(),
    }
}

/// What decides the port's mode, in the place of Linkerd's Server resource. Without any, its name is
/// that of Linkerd's default policy which does the same.
fn server(labels: &mut Labels, address: Option<SocketAddr>, snapshot: Option<&Snapshot>) {
    let (Some(address), Some(snapshot)) = (address, snapshot) else { return };
    let decision = snapshot.inbound.mode(address.port());
    let (group, kind, name) = match decision.decided_by {
        Origin::Default(_) => match decision.mode {
            Mode::Strict => ("", "default".to_owned(), "all-authenticated".into()),
            Mode::Disable | Mode::Permissive => ("", "default".to_owned(), "all-unauthenticated".into()),
        },
        Origin::Resource { kind, name, .. } => (kind.group(), kind.as_str().to_ascii_lowercase(), name),
    };
    labels.push(label("srv_group", group));
    labels.push(label("srv_kind", kind));
    labels.push(label("srv_name", name));
    labels.push(label("srv_port", address.port().to_string()));
}

fn destination(labels: &mut Labels, workload: &Workload) {
    let owner = |kind: &'static str, is_kind: bool| is_kind.then(|| label(kind, &workload.workload_name));
    let control_plane = workload.labels.get(CONTROL_PLANE_LABEL);
    labels.extend(control_plane.map(|namespace| label("dst_control_plane_ns", namespace)));
    labels.extend(owner("dst_deployment", workload.labels.contains_key(DEPLOYMENT_LABEL)));
    labels.push(label("dst_namespace", &workload.namespace));
    labels.push(label("dst_pod", &workload.name));
    labels.push(label("dst_serviceaccount", &workload.service_account));
    labels.extend(owner("dst_statefulset", has_ordinal(workload)));
}

/// Pods of a StatefulSet are named after it, with their number.
fn has_ordinal(workload: &Workload) -> bool {
    let ordinal = workload.name.strip_prefix(&workload.workload_name).and_then(|rest| rest.strip_prefix('-'));
    ordinal.is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn authorization(families: &mut Families, series: &Series, totals: &Totals, snapshot: Option<&Snapshot>) {
    let labels = || {
        let mut labels = Labels::new();
        target(&mut labels, series.destination);
        server(&mut labels, series.destination, snapshot);
        authorized_by(&mut labels, series.decided_by.as_deref());
        client_tls(&mut labels, series);
        labels
    };
    let ends = |ends: &[Reason], of: &std::collections::HashMap<Reason, u64>| -> u64 {
        ends.iter().filter_map(|reason| of.get(reason)).sum()
    };
    let denied = ends(&[Reason::PolicyDenied, Reason::PlaintextRefused], &totals.failed);
    let terminated = ends(&[Reason::AuthorizationChanged, Reason::ModeChanged], &totals.closed);
    let rows = [
        (&table::AUTHZ_ALLOW, totals.opened),
        (&table::AUTHZ_DENY, denied),
        (&table::AUTHZ_TERMINATE, terminated),
    ];
    for (row, count) in rows {
        // Also of a folded series, which has no destination any more.
        if count > 0 && snapshot.is_some() {
            families.count(row, labels(), count);
        }
    }
}

/// From the text `AuthorizationPolicy <namespace>/<name> ...` of the record; a default has no labels.
fn authorized_by(labels: &mut Labels, decided_by: Option<&str>) {
    let kind = Kind::AuthorizationPolicy;
    let resource = decided_by.and_then(|text| text.strip_prefix(kind.as_str())?.strip_prefix(' '));
    let Some((_, name)) = resource.and_then(|text| text.split(' ').next()?.split_once('/')) else { return };
    labels.push(label("authz_group", kind.group()));
    labels.push(label("authz_kind", kind.as_str().to_ascii_lowercase()));
    labels.push(label("authz_name", name));
}

fn errors(families: &mut Families, series: &Series, totals: &Totals) {
    let row = match series.direction {
        Direction::Inbound => &table::INBOUND_ERRORS,
        Direction::Outbound => &table::OUTBOUND_ERRORS,
    };
    for (reason, count) in totals.closed.iter().chain(&totals.failed) {
        if let Some(error) = error(*reason) {
            families.count(row, vec![label("error", error)], *count);
        }
    }
}

/// Linkerd's word for the error; `None` where nothing failed.
fn error(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Complete | Reason::Drained => None,
        Reason::ApplicationReset
        | Reason::BlackHoled
        | Reason::DialFailed
        | Reason::DialRefused
        | Reason::DialTimeout
        | Reason::DialUnreachable
        | Reason::HandshakeEof
        | Reason::PeerFailed
        | Reason::PeerRefused
        | Reason::RemoteReset
        | Reason::StreamCut => Some("io"),
        Reason::HandshakeTimeout => Some("tls detection timeout"),
        Reason::AuthorizationChanged
        | Reason::Certificate(_)
        | Reason::DeniedByPeer
        | Reason::IdentityMismatch
        | Reason::ModeChanged
        | Reason::NoClientCertificate
        | Reason::NoPolicy
        | Reason::PlaintextRefused
        | Reason::PolicyDenied
        | Reason::RootRemoved => Some("unauthorized"),
        Reason::NoOriginalDestination | Reason::OwnAddress => Some("loop detected"),
        Reason::Aborted
        | Reason::DestinationRuleUnsupported
        | Reason::Fenced
        | Reason::ForeignDestination
        | Reason::HalfCloseTimeout
        | Reason::HandshakeFailed
        | Reason::HandshakeRefusedByPeer
        | Reason::LimitConnectionsPerSource
        | Reason::NoCredentials
        | Reason::OutsideRefused
        | Reason::TlsFailed
        | Reason::TlsVersionRefused
        | Reason::UnknownDestination => Some("unexpected"),
    }
}

/// The error of this leg, as the system names it; empty where the leg itself did not fail.
fn errno(reason: Reason, direction: Direction, leg: Leg) -> &'static str {
    let application = match direction {
        Direction::Inbound => Leg::Destination,
        Direction::Outbound => Leg::Source,
    };
    let own = leg == application;
    if reason == Reason::ApplicationReset && own || reason == Reason::RemoteReset && !own {
        RESET
    } else if reason == Reason::BlackHoled && !own {
        TIMED_OUT
    } else {
        ""
    }
}

fn certificates(families: &mut Families, state: &State) {
    let status = &state.identity_status;
    let failed = status.errors().iter().map(|(_, count)| count).sum();
    families.count(&table::CERT_REFRESHES, vec![label("result", "ok")], status.refreshes_ok());
    families.count(&table::CERT_REFRESHES, vec![label("result", "error")], failed);
    if let Some(at) = status.last_refresh() {
        families.count(&table::CERT_REFRESH, Labels::new(), seconds(at));
    }
    if let Some(credentials) = state.credentials.borrow().clone() {
        let expires = credentials.svid.not_after().as_secs();
        families.count(&table::CERT_EXPIRATION, Labels::new(), expires);
        families.count(&table::CERT_EXPIRATION_OLD, Labels::new(), expires);
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
