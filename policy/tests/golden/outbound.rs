//! DestinationRule, and the choice where none says anything.

use std::net::SocketAddr;

use ringmail_policy::{Answer, Outbound, OutsideReason, RefusedReason, Route};

use super::*;

const HOST: &str = "ignite.ignite.svc.cluster.local";
const MESH: &str = "mesh";

/// An entry of Ignite with a sidecar at 10.0.0.1.
fn entry() -> String {
    workload_entry(
        "ignite/node-1",
        "{address: 10.0.0.1, labels: {app: ignite, security.istio.io/tlsMode: istio}}",
    )
}

/// The same without a sidecar, at 10.0.0.7.
fn bare() -> String {
    workload_entry("ignite/bare", "{address: 10.0.0.7, labels: {app: ignite}}")
}

fn rule(name: &str, host: &str, policy: &str) -> String {
    destination_rule(name, &format!("{{host: '{host}', trafficPolicy: {policy}}}"))
}

fn disable(name: &str, host: &str) -> String {
    rule(name, host, "{tls: {mode: DISABLE}}")
}

/// What is done, and what decides, for the pod as client.
fn route(documents: &[String], destination: &str) -> (&'static str, String) {
    route_for(documents, destination, &pod())
}

fn route_for(documents: &[String], destination: &str, client: &Pod) -> (&'static str, String) {
    let outbound = Outbound::compile_for(&set(documents), &settings(), client);
    let destination: SocketAddr = destination.parse().unwrap();
    let decided = outbound.route(destination);
    assert_eq!(
        wire::unlabelled(wire::arrived(&outbound).route(destination)),
        wire::unlabelled(decided.clone())
    );
    told(decided)
}

fn told(route: Route) -> (&'static str, String) {
    match route {
        Route::Mesh { decided_by, .. } => (MESH, decided_by.to_string()),
        Route::Outside { reason, decided_by, .. } => (reason.as_str(), decided_by.to_string()),
        Route::Refused { reason, decided_by, .. } => (reason.as_str(), decided_by.to_string()),
        Route::Service { service, .. } => ("service", service.host.clone()),
        Route::Unknown => ("unknown", String::new()),
    }
}

fn decided(documents: &[String]) -> &'static str {
    route(documents, "10.0.0.1:10800").0
}

/// Mutual TLS migration task: "Istio automatically configures workload sidecars to use mutual TLS when calling
/// other workloads." Those are the ones with the label that injection sets.
#[test]
fn a_workload_with_a_sidecar_is_reached_over_mutual_tls() {
    assert_eq!(route(&[entry()], "10.0.0.1:10800"), (MESH, "WorkloadEntry ignite/node-1".to_owned()));
    assert_eq!(route(&[bare()], "10.0.0.7:10800"), ("no_sidecar", "WorkloadEntry ignite/bare".to_owned()));
    let disabled =
        workload_entry("ignite/x", "{address: 10.0.0.1, labels: {security.istio.io/tlsMode: disabled}}");
    assert_eq!(decided(&[disabled]), "no_sidecar");
}

/// Design: an address of the cluster about which nothing is known is asked for, never sent in plaintext.
#[test]
fn an_unknown_address_is_outside_only_beyond_the_clusters_ranges() {
    assert_eq!(route(&[entry()], "10.0.0.99:10800").0, "unknown");
    assert_eq!(route(&[entry()], "[fd00::1]:10800").0, "unknown");
    assert_eq!(route(&[entry()], "[::ffff:10.0.0.99]:10800").0, "unknown");
    let outside = ("not_in_mesh", "no workload is known at the address".to_owned());
    assert_eq!(route(&[entry()], "203.0.113.7:443"), outside);
    assert_eq!(route(&[entry()], "[::ffff:10.0.0.1]:10800").0, MESH);
}

/// Design: discovery is asked once and not waited for in vain where no answer could put the address into the mesh.
#[test]
fn without_an_answer_only_an_address_that_nobody_knows_beyond_the_ranges_is_outside() {
    let mut outbound = Outbound::on_demand(settings().mesh_ranges);
    let unanswered = |outbound: &Outbound, destination: &str| {
        told(outbound.route_unanswered(destination.parse().unwrap()))
    };
    let outside = |because: &str| ("not_in_mesh", because.to_owned());
    let vain = || outside("outside the cluster's ranges, and discovery has not answered");
    assert_eq!(unanswered(&outbound, "10.0.0.99:10800").0, "unknown");
    assert_eq!(unanswered(&outbound, "203.0.113.7:443"), vain());
    outbound.insert("203.0.113.7".parse().unwrap(), Answer::Nobody);
    assert_eq!(unanswered(&outbound, "203.0.113.7:443"), outside("no workload is known at the address"));
    outbound.forget("203.0.113.7".parse().unwrap());
    assert_eq!(unanswered(&outbound, "203.0.113.7:443"), vain());
    outbound.set_mesh_ranges(vec!["203.0.113.0/24".parse().unwrap()]);
    assert_eq!(unanswered(&outbound, "203.0.113.7:443").0, "unknown");
    assert_eq!(unanswered(&outbound, "10.0.0.99:10800"), vain());
}

#[test]
fn every_workload_that_is_known_is_listed() {
    let outbound = Outbound::compile(&set(&[entry(), bare()]), &settings());
    let mut names: Vec<_> = outbound.workloads().map(|workload| workload.name.clone()).collect();
    names.sort();
    assert_eq!(names, ["bare", "node-1"]);
    assert_eq!(outbound.destinations().count(), 2);
}

/// Trust domain migration task: during a migration a server may present either name.
#[test]
fn the_peer_may_have_the_identity_under_each_name_of_the_trust_domain() {
    let mut settings = settings();
    settings.trust_domain_aliases = vec!["old-td".parse().unwrap()];
    let outbound = Outbound::compile(&set(&[entry()]), &settings);
    let Route::Mesh { identities, workload, .. } = outbound.route("10.0.0.1:1".parse().unwrap()) else {
        panic!("not in the mesh");
    };
    assert_eq!(*identities, [id("cluster.local/ns/ignite/sa/default"), id("old-td/ns/ignite/sa/default")]);
    assert_eq!(workload.name, "node-1");
}

/// Design: a port that the destination serves in plaintext is spoken to in plaintext.
#[test]
fn a_port_that_the_destination_disables_is_plaintext() {
    let ports = "{selector: {matchLabels: {app: ignite}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}";
    let set = [entry(), peer_authentication("ignite/pods", ports)];
    let plain = ("port_mode_disable", "PeerAuthentication ignite/pods port 8080".to_owned());
    assert_eq!(route(&set, "10.0.0.1:8080"), plain);
    assert_eq!(route(&set, "10.0.0.1:10800").0, MESH);
    let elsewhere = peer_authentication("elsewhere/default", "{mtls: {mode: DISABLE}}");
    assert_eq!(route(&[entry(), elsewhere], "10.0.0.1:8080").0, MESH);
}

/// Understanding TLS configuration page: automatic mutual TLS holds only where no DestinationRule configures the
/// mode explicitly.
#[test]
fn an_explicit_rule_overrides_the_automatic_choice() {
    let set = [entry(), disable("ignite/dr", HOST)];
    let told = ("destination_rule_disable", "DestinationRule ignite/dr".to_owned());
    assert_eq!(route(&set, "10.0.0.1:10800"), told);
    let mutual = rule("ignite/dr", HOST, "{tls: {mode: ISTIO_MUTUAL}}");
    let off = peer_authentication("ignite/default", "{mtls: {mode: DISABLE}}");
    assert_eq!(decided(&[entry(), mutual.clone(), off]), MESH);
    assert_eq!(route(&[bare(), mutual], "10.0.0.7:1"), (MESH, "DestinationRule ignite/dr".to_owned()));
}

/// DestinationRule reference, portLevelSettings: "Traffic settings specified at the destination-level will not be
/// inherited when overridden by port-level settings".
#[test]
fn port_settings_replace_the_rules_own_whole() {
    let ports = "{tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 10800}, tls: {mode: ISTIO_MUTUAL}}, \
                  {port: {number: 47500}}, {port: {number: 10800}, tls: {mode: DISABLE}}]}";
    let set = [bare(), rule("ignite/dr", HOST, ports)];
    assert_eq!(route(&set, "10.0.0.7:10800"), (MESH, "DestinationRule ignite/dr port 10800".to_owned()));
    assert_eq!(route(&set, "10.0.0.7:47500").0, "no_sidecar");
    assert_eq!(route(&set, "10.0.0.7:8080").0, "destination_rule_disable");
    assert!(reported(super::set(&set).reports(), "dr", "port 10800 already has settings"));
}

/// DestinationRule reference, ClientTLSSettings: DISABLE is the first mode, and so the one that is not written.
#[test]
fn tls_without_a_mode_is_plaintext_and_reported_and_no_tls_is_automatic() {
    let set = [entry(), rule("ignite/dr", HOST, "{tls: {}}")];
    assert_eq!(decided(&set), "destination_rule_disable");
    assert!(reported(super::set(&set).reports(), "dr", "means DISABLE"));
    for policy in ["null", "{}", "{tls: null}"] {
        assert_eq!(decided(&[entry(), rule("ignite/dr", HOST, policy)]), MESH, "{policy}");
    }
}

/// Istio's merging of rules for one host: a rule without a traffic policy takes that of the next one.
#[test]
fn a_rule_without_a_traffic_policy_leaves_its_host_to_the_next_oldest() {
    let set = [entry(), rule("ignite/a", HOST, "null"), disable("ignite/b", HOST), disable("ignite/c", "*")];
    assert_eq!(route(&set, "10.0.0.1:1").1, "DestinationRule ignite/b");
    let alone = [entry(), rule("ignite/a", HOST, "null"), disable("ignite/c", "*")];
    assert_eq!(decided(&alone), MESH, "a more specific host, even of an empty rule");
}

/// DestinationRule reference, TLSmode SIMPLE and MUTUAL: TLS that the sidecar would originate with the
/// application's own certificates. What is not supported is refused, never sent in plaintext.
#[test]
fn simple_and_mutual_are_refused_and_reported() {
    for mode in ["SIMPLE", "MUTUAL"] {
        let set = [entry(), bare(), rule("ignite/dr", HOST, &format!("{{tls: {{mode: {mode}}}}}"))];
        let refused = ("tls_origination", "DestinationRule ignite/dr".to_owned());
        assert_eq!(route(&set, "10.0.0.1:10800"), refused);
        assert_eq!(route(&set, "10.0.0.7:10800"), refused);
        assert!(reported(super::set(&set).reports(), "dr", &format!("tls mode {mode} is not supported")));
    }
}

/// DestinationRule reference, host: short names are looked up relative to the rule's own namespace, "Istio will
/// interpret the short name based on the namespace of the rule, not the service".
#[test]
fn hosts_are_full_names_short_names_or_wildcards() {
    for (host, names) in [
        (HOST, true),
        ("ignite", true),
        ("other", false),
        ("ignite.ignite", false),
        ("*.ignite.svc.cluster.local", true),
        ("*.other.svc.cluster.local", false),
        ("*.local", true),
        ("*", true),
    ] {
        assert_eq!(decided(&[entry(), disable("ignite/dr", host)]) != MESH, names, "{host}");
    }
    assert_eq!(
        decided(&[entry(), disable("istio-system/dr", "ignite")]),
        MESH,
        "relative to another namespace"
    );
}

/// DestinationRule reference: of several rules for a host the most specific host name holds, and of one host name
/// the first created.
#[test]
fn the_most_specific_host_wins_then_the_oldest() {
    let mutual = "{tls: {mode: ISTIO_MUTUAL}}";
    let set =
        [disable("ignite/a", "*"), disable("ignite/b", "*.local"), rule("ignite/c", HOST, mutual), entry()];
    assert_eq!(route(&set, "10.0.0.1:1"), (MESH, "DestinationRule ignite/c".to_owned()));
    let wide = [disable("ignite/a", "*.local"), rule("ignite/b", "*.svc.cluster.local", mutual), entry()];
    assert_eq!(route(&wide, "10.0.0.1:1").1, "DestinationRule ignite/b");
    let young = created(9, &disable("ignite/a", HOST));
    let old = created(3, &rule("ignite/b", HOST, mutual));
    let set = [young, old, entry()];
    assert_eq!(route(&set, "10.0.0.1:1").1, "DestinationRule ignite/b");
    let outbound = Outbound::compile_for(&super::set(&set), &settings(), &pod());
    assert!(reported(outbound.reports(), "a", "shadowed"));
    assert!(!reported(outbound.reports(), "b", ""));
}

/// Traffic management best practices, cross-namespace configuration, the lookup path: "client namespace, service
/// namespace, Istio configuration root".
#[test]
fn rules_are_looked_up_at_the_client_then_the_service_then_the_root() {
    let mut client = pod();
    client.namespace = "clients".to_owned();
    let rules = [disable("clients/dr", "*"), disable("ignite/dr", HOST), disable("istio-system/dr", HOST)];
    let decides = |rules: &[String]| {
        let documents = [&[entry()], rules].concat();
        route_for(&documents, "10.0.0.1:1", &client).1
    };
    assert_eq!(decides(&rules), "DestinationRule clients/dr");
    assert_eq!(decides(&rules[1..]), "DestinationRule ignite/dr");
    assert_eq!(decides(&rules[2..]), "DestinationRule istio-system/dr");
    assert_eq!(decides(&[disable("elsewhere/dr", HOST)]), "WorkloadEntry ignite/node-1");
    let anyone = Outbound::compile(&set(&[vec![entry()], rules.to_vec()].concat()), &settings());
    let Route::Outside { reason, decided_by, .. } = anyone.route("10.0.0.1:1".parse().unwrap()) else {
        panic!("not outside");
    };
    assert_eq!(reason, OutsideReason::DestinationRuleDisable);
    assert_eq!(decided_by.to_string(), "DestinationRule ignite/dr");
}

/// DestinationRule reference, exportTo: "The value \".\" is reserved and defines an export to the same namespace
/// that the destination rule is declared in."
#[test]
fn a_rule_reaches_only_clients_it_is_exported_to() {
    let mut client = pod();
    client.namespace = "clients".to_owned();
    for (export, reaches) in [("['*']", true), ("['.']", false), ("[clients]", true), ("[other]", false)] {
        let spec = format!("{{host: {HOST}, exportTo: {export}, trafficPolicy: {{tls: {{mode: DISABLE}}}}}}");
        let set = [entry(), destination_rule("ignite/dr", &spec)];
        assert_eq!(route_for(&set, "10.0.0.1:1", &client).0 != MESH, reaches, "{export}");
        let own = export != "[clients]" && export != "[other]";
        assert_eq!(route(&set, "10.0.0.1:1").0 != MESH, own, "{export} for a client of the rule's namespace");
        let anyone = Outbound::compile(&super::set(&set), &settings());
        let outside = matches!(anyone.route("10.0.0.1:1".parse().unwrap()), Route::Outside { .. });
        assert_eq!(outside, export == "['*']", "{export} for a client that is not known");
    }
}

/// DestinationRule reference, workloadSelector: "Criteria used to select the specific set of pods/VMs on which this
/// DestinationRule configuration should be applied."
#[test]
fn a_rule_with_a_selector_means_the_clients_it_selects() {
    let rule = |app: &str| {
        let spec = "trafficPolicy: {tls: {mode: DISABLE}}";
        destination_rule(
            "ignite/dr",
            &format!("{{host: {HOST}, workloadSelector: {{matchLabels: {{app: {app}}}}}, {spec}}}"),
        )
    };
    assert_eq!(decided(&[entry(), rule("ignite")]), "destination_rule_disable");
    assert_eq!(decided(&[entry(), rule("other")]), MESH);
}

#[test]
fn every_reason_has_its_own_name() {
    let mut names: Vec<_> = OutsideReason::ALL.iter().map(|(reason, _)| reason.as_str()).collect();
    names.extend(RefusedReason::ALL.iter().map(|(reason, _)| reason.as_str()));
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), OutsideReason::ALL.len() + RefusedReason::ALL.len());
}
