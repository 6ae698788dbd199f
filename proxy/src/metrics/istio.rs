//! Istio's TCP metrics, so that its dashboards, Kiali's graph and its lock icon keep working.
//!
//! `sent` is what the proxy sent downstream and `received` what it read from there, as in Envoy. A value
//! that is not known is `unknown`; principals come from the handshake only, never from discovery.

use std::{collections::BTreeMap, sync::Arc};

use ringmail_identity::SpiffeId;
use ringmail_policy::Workload;

use super::{
    families::{Families, Labels, label},
    table,
};
use crate::{
    admin::State,
    config::Config,
    credentials::own_id,
    ledger::{Page, Series},
    record::{Direction, Protection},
    snapshot::Snapshot,
};

const UNKNOWN: &str = "unknown";
const LATEST: &str = "latest";
/// Kubernetes' default domain of Services, as policy uses it for every other workload's host.
const CLUSTER_DOMAIN: &str = "cluster.local";
const NO_FLAGS: &str = "-";
/// Envoy's names for where a connection without a Service goes.
const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";

/// Labels that name a canonical service and revision, first one first, as in Istio.
const CANONICAL_NAMES: [&str; 3] = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
const CANONICAL_REVISIONS: [&str; 3] =
    ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];

/// What Istio's labels say of one end.
#[derive(Clone)]
struct End {
    workload: Arc<str>,
    namespace: Arc<str>,
    canonical_service: Arc<str>,
    canonical_revision: Arc<str>,
    principal: Arc<str>,
    app: Arc<str>,
    version: Arc<str>,
    cluster: Arc<str>,
    service: Arc<str>,
    service_name: Arc<str>,
}

/// Adds every family of this module.
pub(super) fn collect(families: &mut Families, state: &State, page: &Page) {
    let config = &*state.config;
    let build = vec![label("component", "proxy"), label("tag", env!("CARGO_PKG_VERSION"))];
    families.count(&table::ISTIO_BUILD, build, 1);
    let own = Own::new(config, state.snapshots.borrow().as_deref());
    for (series, totals) in &page.totals {
        let labels = |flags: &str| labels(series, &own, config, flags);
        if totals.opened > 0 {
            families.count(&table::ISTIO_OPENED, labels(NO_FLAGS), totals.opened);
            families.count(&table::ISTIO_SENT, labels(NO_FLAGS), totals.to_downstream);
            families.count(&table::ISTIO_RECEIVED, labels(NO_FLAGS), totals.from_downstream);
        }
        for (reason, count) in &totals.closed {
            families.count(&table::ISTIO_CLOSED, labels(reason.response_flags()), *count);
        }
        for (reason, count) in &totals.failed {
            families.count(&table::ISTIO_FAILED, labels(reason.response_flags()), *count);
        }
    }
}

fn labels(series: &Series, own: &Own, config: &Config, flags: &str) -> Labels {
    let mut own = own.end(series);
    if series.protection == Protection::MutualTls {
        own.principal = own_id(config).map_or(UNKNOWN.into(), |id| id.as_str().into());
    }
    let peer = peer_end(series, config);
    let (reporter, source, destination) = match series.direction {
        Direction::Inbound => ("destination", peer, own),
        Direction::Outbound => ("source", own, peer),
    };
    vec![
        label("reporter", reporter),
        ("source_workload", source.workload),
        ("source_canonical_service", source.canonical_service),
        ("source_canonical_revision", source.canonical_revision),
        ("source_workload_namespace", source.namespace),
        ("source_principal", source.principal),
        ("source_app", source.app),
        ("source_version", source.version),
        ("source_cluster", source.cluster),
        ("destination_workload", destination.workload),
        ("destination_workload_namespace", Arc::clone(&destination.namespace)),
        ("destination_principal", destination.principal),
        ("destination_app", destination.app),
        ("destination_version", destination.version),
        ("destination_service", destination.service),
        ("destination_canonical_service", destination.canonical_service),
        ("destination_canonical_revision", destination.canonical_revision),
        ("destination_service_name", destination.service_name),
        ("destination_service_namespace", destination.namespace),
        ("destination_cluster", destination.cluster),
        label("request_protocol", "tcp"),
        label("response_flags", flags),
        label("connection_security_policy", security_policy(series)),
    ]
}

/// As ztunnel, mutual TLS is said on both sides; as Envoy, plaintext is only said by who received it.
fn security_policy(series: &Series) -> &'static str {
    match (series.protection, series.direction) {
        (Protection::MutualTls, Direction::Inbound | Direction::Outbound) => "mutual_tls",
        (Protection::ModeDisable | Protection::Permissive, Direction::Inbound) => "none",
        (Protection::ModeDisable | Protection::Permissive, Direction::Outbound)
        | (Protection::Outside(_) | Protection::Undecided, Direction::Inbound | Direction::Outbound) => {
            UNKNOWN
        }
    }
}

/// The pod itself: what the settings say, and where they have no word, what discovery tells the peers of it.
struct Own {
    end: End,
    known: Option<Arc<Workload>>,
}

impl Own {
    fn new(config: &Config, snapshot: Option<&Snapshot>) -> Self {
        let outbound = snapshot.map(|snapshot| &snapshot.outbound);
        let known = outbound
            .and_then(|known| config.pod_addresses.iter().find_map(|address| known.workload(*address)))
            .cloned();
        let of = known.as_deref();
        let canonical_service = first_label(&config.labels, &CANONICAL_NAMES)
            .or(of.map(|known| &*known.canonical_service))
            .unwrap_or(&config.workload);
        let canonical_revision = first_label(&config.labels, &CANONICAL_REVISIONS)
            .or(of.map(|known| &*known.canonical_revision))
            .unwrap_or(LATEST);
        let or_unknown = |key: &str, known: Option<&str>| {
            first_label(&config.labels, &[key]).or(known).unwrap_or(UNKNOWN).into()
        };
        let end = End {
            workload: config.workload.as_str().into(),
            namespace: config.namespace.as_str().into(),
            canonical_service: canonical_service.into(),
            canonical_revision: canonical_revision.into(),
            principal: UNKNOWN.into(),
            app: or_unknown("app", of.and_then(|known| known.app.as_deref())),
            version: or_unknown("version", of.and_then(|known| known.version.as_deref())),
            cluster: config.cluster.as_str().into(),
            service_name: canonical_service.into(),
            service: format!("{canonical_service}.{}.svc.{CLUSTER_DOMAIN}", config.namespace).into(),
        };
        Self { end, known }
    }

    /// As the end of the connections of `series`: inbound they came to a port of one of the pod's Services.
    fn end(&self, series: &Series) -> End {
        let mut end = self.end.clone();
        if let (Some(known), Direction::Inbound) = (&self.known, series.direction) {
            (end.service, end.service_name) = service_of(known, series);
        }
        end
    }
}

fn peer_end(series: &Series, config: &Config) -> End {
    let identity = series.peer_identity.as_ref();
    let principal = identity.map_or(UNKNOWN, SpiffeId::as_str).into();
    match &series.peer_workload {
        Some(peer) => known_end(&peer.0, principal, config, series),
        None => End {
            // A verified identity says the namespace also where discovery knows nothing.
            namespace: identity.and_then(SpiffeId::namespace).unwrap_or(UNKNOWN).into(),
            canonical_revision: LATEST.into(),
            principal,
            service_name: without_service(series.protection).into(),
            workload: UNKNOWN.into(),
            canonical_service: UNKNOWN.into(),
            app: UNKNOWN.into(),
            version: UNKNOWN.into(),
            cluster: UNKNOWN.into(),
            service: UNKNOWN.into(),
        },
    }
}

fn known_end(workload: &Workload, principal: Arc<str>, config: &Config, series: &Series) -> End {
    let (service, service_name) = service_of(workload, series);
    let or_unknown = |value: &Option<String>| value.as_deref().unwrap_or(UNKNOWN).into();
    End {
        workload: workload.workload_name.as_str().into(),
        namespace: workload.namespace.as_str().into(),
        canonical_service: workload.canonical_service.as_str().into(),
        canonical_revision: workload.canonical_revision.as_str().into(),
        principal,
        app: or_unknown(&workload.app),
        version: or_unknown(&workload.version),
        cluster: workload.cluster.as_deref().unwrap_or(&config.cluster).into(),
        service,
        service_name,
    }
}

/// Host and name of the Service whose port was connected to.
fn service_of(workload: &Workload, series: &Series) -> (Arc<str>, Arc<str>) {
    let host = match series.destination {
        Some(destination) => workload.service_host(destination.port()),
        None => workload.canonical_host().into(),
    };
    let name = host.split('.').next().unwrap_or(UNKNOWN).into();
    (Arc::from(&*host), name)
}

fn without_service(protection: Protection) -> &'static str {
    match protection {
        Protection::Outside(_) => PASSTHROUGH_CLUSTER,
        Protection::Undecided => BLACK_HOLE_CLUSTER,
        Protection::ModeDisable | Protection::MutualTls | Protection::Permissive => UNKNOWN,
    }
}

fn first_label<'a>(labels: &'a BTreeMap<String, String>, keys: &[&str]) -> Option<&'a str> {
    keys.iter().filter_map(|key| labels.get(*key)).map(String::as_str).find(|value| !value.is_empty())
}
