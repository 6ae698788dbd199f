//! Ports that the destination's sidecar does not capture: plaintext, because nobody there answers mutual TLS.

use std::collections::BTreeSet;

use ringmail_policy::{Destination, LeftAlone, Route, SIDECAR_PORTS};

use super::wire::{destination, node};
use super::*;

const NOT_CAPTURED: &str = "not_captured";
const MESH: &str = "mesh";
/// A port that a pod's capture leaves out.
const EXCLUDED: u16 = 9100;

fn only(port: u16) -> LeftAlone {
    LeftAlone::from_iter([port..=port])
}

/// What is done at Ignite's pod that leaves alone what `left_alone` says, decided here and after the journey to a
/// proxy.
fn route(documents: &[String], left_alone: &LeftAlone, in_mesh: bool, port: u16) -> &'static str {
    let mut facts = node();
    facts.left_alone = left_alone.clone();
    if !in_mesh {
        facts.labels.remove("security.istio.io/tlsMode");
    }
    let sent = destination(&set(documents), facts.workload(&settings().trust_domain).unwrap());
    let read = Destination::from_wire(&sent.workload().to_wire(), &sent.to_wire(), &settings()).unwrap();
    assert_eq!(name(&read.route(port)), name(&sent.route(port)));
    name(&sent.route(port))
}

fn name(route: &Route) -> &'static str {
    match route {
        Route::Mesh { .. } => MESH,
        Route::Outside { reason, .. } => reason.as_str(),
        Route::Refused { reason, .. } => reason.as_str(),
        Route::Service { .. } | Route::Unknown => "no workload",
    }
}

fn told(mode: &str) -> [String; 1] {
    [destination_rule("ignite/dr", &format!("{{host: '*', trafficPolicy: {{tls: {{mode: {mode}}}}}}}"))]
}

/// Istio, ports used by the sidecar: those of readiness and of the merged telemetry are served by the sidecar itself,
/// in plaintext.
#[test]
fn the_sidecars_own_ports_are_plaintext_whatever_any_policy_says() {
    let strict = peer_authentication("istio-system/default", "{mtls: {mode: STRICT}}");
    for documents in
        [&[][..], &[strict], &told("ISTIO_MUTUAL"), &told("DISABLE"), &told("SIMPLE"), &told("MUTUAL")]
    {
        for port in SIDECAR_PORTS {
            assert_eq!(route(documents, &LeftAlone::default(), true, port), NOT_CAPTURED, "{documents:?}");
        }
    }
    // Its neighbour must stay closed, so that it is captured.
    assert_eq!(route(&[], &LeftAlone::default(), true, 15002), MESH);
}

#[test]
fn without_a_sidecar_no_port_is_a_sidecars() {
    for port in [15020, EXCLUDED] {
        assert_eq!(route(&[], &only(EXCLUDED), false, port), "no_sidecar");
        assert_eq!(route(&told("ISTIO_MUTUAL"), &only(EXCLUDED), false, port), MESH);
    }
}

/// Istio, resource annotations, excludeInboundPorts: "A comma separated list of inbound ports to be excluded from
/// redirection to Envoy." PeerAuthentication is enforced by who is not asked.
#[test]
fn an_excluded_port_is_plaintext_whatever_mode_its_workload_is_served_in() {
    for mode in ["STRICT", "PERMISSIVE", "DISABLE"] {
        let set = [peer_authentication("ignite/default", &format!("{{mtls: {{mode: {mode}}}}}"))];
        assert_eq!(route(&set, &only(EXCLUDED), true, EXCLUDED), NOT_CAPTURED, "{mode}");
        let captured = if mode == "DISABLE" { "port_mode_disable" } else { MESH };
        assert_eq!(route(&set, &only(EXCLUDED), true, THIN), captured, "{mode}");
        assert_eq!(route(&set, &LeftAlone::default(), true, EXCLUDED), captured, "{mode}");
    }
}

/// Understanding TLS configuration page: an explicit mode overrides the automatic choice. It is asked for by whoever
/// rules over the clients, and a pod cannot talk them out of it.
#[test]
fn a_rule_that_names_the_mode_holds_for_an_excluded_port_too() {
    for (mode, expected) in [
        ("DISABLE", "destination_rule_disable"),
        ("ISTIO_MUTUAL", MESH),
        ("SIMPLE", "tls_origination"),
        ("MUTUAL", "tls_origination"),
    ] {
        assert_eq!(route(&told(mode), &only(EXCLUDED), true, EXCLUDED), expected, "{mode}");
    }
    let unset = [destination_rule("ignite/dr", "{host: '*', trafficPolicy: {}}")];
    assert_eq!(route(&unset, &only(EXCLUDED), true, EXCLUDED), NOT_CAPTURED);
}

#[test]
fn what_a_capture_leaves_alone_is_what_it_does_not_include_and_what_it_excludes() {
    let ports = |ports: &[u16]| ports.iter().copied().collect::<BTreeSet<u16>>();
    for (included, excluded, expected) in [
        (None, ports(&[]), vec![]),
        (None, ports(&[1, 2, 4, 65535]), vec![1..=2, 4..=4, 65535..=65535]),
        (Some(ports(&[])), ports(&[]), vec![1..=65535]),
        (Some(ports(&[1, 80, 65535])), ports(&[]), vec![2..=79, 81..=65534]),
        (Some(ports(&[80, 81])), ports(&[81, 90]), vec![1..=79, 81..=65535]),
    ] {
        let left_alone = LeftAlone::by_capture(included.as_ref(), &excluded);
        assert_eq!(left_alone, LeftAlone::from_iter(expected), "{included:?} {excluded:?}");
    }
}

/// An entry cannot say how its sidecar captures, so that nothing but the sidecar's own ports is left out; whoever may
/// label it says nothing by it.
#[test]
fn an_entry_leaves_alone_the_sidecars_own_ports_and_no_other() {
    let entry = workload_entry(
        "ignite/node-1",
        "{address: 10.0.0.1, labels: {security.istio.io/tlsMode: istio, \
         traffic.sidecar.istio.io/excludeInboundPorts: '9100'}}",
    );
    let outbound = ringmail_policy::Outbound::compile(&set(&[entry]), &settings());
    let at = |port| outbound.route(([10, 0, 0, 1], port).into());
    assert_eq!(name(&at(EXCLUDED)), MESH);
    let Route::Outside { reason, workload: Some(workload), decided_by } = at(15020) else {
        panic!("not outside: {:?}", at(15020));
    };
    assert_eq!((reason.as_str(), &*workload.name), (NOT_CAPTURED, "node-1"));
    assert_eq!(decided_by.to_string(), "WorkloadEntry ignite/node-1");
}
