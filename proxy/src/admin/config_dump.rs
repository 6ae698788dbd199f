//! `/config_dump`: what the proxy decides by. Settings hold paths, not secrets, so all of them are shown.

use std::collections::BTreeSet;

use ringmail_policy::{ModeDecision, ServicePort, Workload};
use serde_json::{Map, Value, json};

use super::{State, certs::system_time};
use crate::{config::SETTINGS, record::Direction, snapshot::Snapshot};

pub(super) fn answer(state: &State) -> Value {
    let settings: Map<String, Value> =
        SETTINGS.iter().map(|setting| (setting.name.to_owned(), setting.show(&state.config))).collect();
    let snapshot = state.snapshots.borrow().clone();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "settings": settings,
        "policy": policy(state, snapshot.as_deref()),
        "workloads": snapshot.as_deref().map(workloads),
    })
}

fn policy(state: &State, snapshot: Option<&Snapshot>) -> Value {
    let status = &state.discovery_status;
    let error = status.last_error();
    json!({
        "version": snapshot.map(|snapshot| snapshot.version),
        "applied": status.applied(),
        "rejected": status.rejected(),
        "last_error": error.as_ref().map(|error| &error.text),
        "last_error_at": error.as_ref().map(|error| system_time(error.at)),
        "reports": status.reports().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "modes": snapshot.map(|snapshot| modes(state, snapshot)),
        "inbound": snapshot.map(|snapshot| debug_lines(&snapshot.inbound)),
    })
}

/// The mode of each port that was asked for since the start.
fn modes(state: &State, snapshot: &Snapshot) -> Vec<Value> {
    let page = state.read_ledgers();
    let inbound = page.totals.keys().filter(|series| series.direction == Direction::Inbound);
    let ports: BTreeSet<u16> = inbound.filter_map(|series| series.destination).map(|to| to.port()).collect();
    let row = |port: u16| {
        let ModeDecision { mode, decided_by } = snapshot.inbound.mode(port);
        json!({ "port": port, "mode": mode.as_str(), "decided_by": decided_by.to_string() })
    };
    ports.into_iter().map(row).collect()
}

/// The compiled decisions as they are, line by line: for whoever compares them with the resources.
fn debug_lines(inbound: &ringmail_policy::Inbound) -> Vec<String> {
    format!("{inbound:#?}").lines().map(str::to_owned).collect()
}

fn workloads(snapshot: &Snapshot) -> Vec<Value> {
    let mut workloads: Vec<&Workload> = snapshot.outbound.workloads().map(|workload| &**workload).collect();
    workloads.sort_unstable_by_key(|workload| (&workload.namespace, &workload.name));
    workloads.into_iter().map(workload).collect()
}

fn service_port(port: &ServicePort) -> Value {
    json!({ "service": port.host, "port": port.port, "target_port": port.target_port })
}

fn workload(workload: &Workload) -> Value {
    json!({
        "namespace": workload.namespace,
        "name": workload.name,
        "workload": workload.workload_name,
        "addresses": workload.addresses,
        "identity": workload.identity.as_str(),
        "in_mesh": workload.in_mesh,
        "service": workload.canonical_host(),
        "service_ports": workload.services.iter().map(service_port).collect::<Vec<_>>(),
    })
}
