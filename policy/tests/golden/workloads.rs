//! WorkloadEntry.

use ringmail_policy::{Outbound, Workload};

use super::*;

fn workload(documents: &[String]) -> Workload {
    let outbound = Outbound::compile(&set(documents), &settings());
    Workload::clone(outbound.workload("10.0.0.1".parse().unwrap()).unwrap())
}

/// WorkloadEntry reference, serviceAccount: "The service account associated with the workload if a sidecar is
/// present in the workload."
#[test]
fn an_entry_gives_the_identity_of_its_service_account() {
    let named = workload(&[workload_entry("gold/a", "{address: 10.0.0.1, serviceAccount: node}")]);
    assert_eq!(named.identity, id("cluster.local/ns/gold/sa/node"));
    let unnamed = workload(&[workload_entry("gold/a", "{address: 10.0.0.1}")]);
    assert_eq!(unnamed.identity, id("cluster.local/ns/gold/sa/default"));
    assert_eq!(unnamed.service_account, "default");
}

/// Canonical service page: the name comes from `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app` or
/// the workload, the revision from the matching labels or is `latest`.
#[test]
fn metric_labels_come_from_the_labels_in_istios_order() {
    let labels = ["service.istio.io/canonical-name: a", "app.kubernetes.io/name: b", "app: c"];
    for (from, expected) in [(0, "a"), (1, "b"), (2, "c"), (3, "node-1")] {
        let labels = labels[from..].join(", ");
        let known =
            workload(&[workload_entry("ns/node-1", &format!("{{address: 10.0.0.1, labels: {{{labels}}}}}"))]);
        assert_eq!(known.canonical_service, expected);
        assert_eq!(known.service_host(THIN), format!("{expected}.ns.svc.cluster.local"));
        assert_eq!(known.canonical_revision, "latest");
    }
    let revisions = ["service.istio.io/canonical-revision: a", "app.kubernetes.io/version: b", "version: c"];
    for (from, expected) in [(0, "a"), (1, "b"), (2, "c")] {
        let labels = revisions[from..].join(", ");
        let known =
            workload(&[workload_entry("ns/x", &format!("{{address: 10.0.0.1, labels: {{{labels}}}}}"))]);
        assert_eq!(known.canonical_revision, expected);
    }
    let rest = "{address: 10.0.0.1, network: n1, locality: eu/a, labels: {app: ignite, version: v2, \
                 service.istio.io/workload-name: deploy, topology.istio.io/cluster: k1}}";
    let known = workload(&[workload_entry("ns/x", rest)]);
    assert_eq!((known.workload_name.as_str(), known.name.as_str()), ("deploy", "x"));
    assert_eq!((known.app.as_deref(), known.version.as_deref()), (Some("ignite"), Some("v2")));
    assert_eq!((known.network.as_deref(), known.cluster.as_deref()), (Some("n1"), Some("k1")));
    assert_eq!(known.locality.as_deref(), Some("eu/a"));
}

/// Istio's conversion of entries: labels of the metadata are added to those of the spec and win.
#[test]
fn labels_of_the_metadata_count() {
    let entry = workload_entry("ns/x", "{address: 10.0.0.1, labels: {app: spec, a: b}}")
        .replace("name: x", "labels: {app: meta, security.istio.io/tlsMode: istio}, name: x");
    let known = workload(&[entry]);
    assert!(known.in_mesh);
    assert_eq!((known.labels["app"].as_str(), known.labels["a"].as_str()), ("meta", "b"));
}

/// Design: an address belongs to whoever got it last; a pod that is gone must not lend its identity.
#[test]
fn the_youngest_entry_holds_a_disputed_address() {
    let entry = |name: &str| workload_entry(name, "{address: 10.0.0.1}");
    let (old, young) = (created(3, &entry("ns/z")), created(9, &entry("ns/a")));
    for set in [[old.clone(), young.clone()], [young, old]] {
        assert_eq!(workload(&set).name, "a");
        let outbound = Outbound::compile(&super::set(&set), &settings());
        assert!(reported(outbound.reports(), "z", "same address 10.0.0.1"));
    }
    assert_eq!(workload(&[entry("ns/first"), entry("ns/last")]).name, "last");
}

/// WorkloadEntry reference, address: "Address associated with the network endpoint without the port." Names and
/// sockets are no addresses of connections.
#[test]
fn an_entry_without_an_ip_address_is_reported() {
    for spec in ["{address: db.example.com}", "{address: 'unix:///run/x'}", "{network: far}", "{}"] {
        let set = set(&[workload_entry("ns/x", spec)]);
        assert!(reported(set.reports(), "x", "ignored"), "{spec}");
    }
    assert!(
        faults(&workload_entry("ns/x", "{address: 10.0.0.300}"))[0].to_string().contains("an IP address")
    );
}

#[test]
fn a_source_is_in_the_mesh_when_its_entry_has_a_sidecar() {
    let set = [
        workload_entry("ns/a", "{address: 10.0.0.1, labels: {security.istio.io/tlsMode: istio}}"),
        workload_entry("ns/b", "{address: 10.0.0.3}"),
    ];
    let outbound = Outbound::compile(&super::set(&set), &settings());
    assert!(outbound.in_mesh("10.0.0.1".parse().unwrap()));
    assert!(outbound.in_mesh("::ffff:10.0.0.1".parse().unwrap()));
    assert!(!outbound.in_mesh("10.0.0.3".parse().unwrap()));
    assert!(!outbound.in_mesh("10.0.0.4".parse().unwrap()));
}

/// Istio takes such an entry for one with a sidecar; here the label alone says so, and the difference is reported.
#[test]
fn a_service_account_without_the_label_is_outside_the_mesh_and_reported() {
    let entry = |labels: &str| {
        let spec = format!("{{address: 10.0.0.1, serviceAccount: node, labels: {{{labels}}}}}");
        [workload_entry("ns/x", &spec)]
    };
    assert!(!workload(&entry("")).in_mesh);
    assert!(reported(set(&entry("")).reports(), "x", "outside the mesh"));
    for value in ["istio", "disabled"] {
        let labelled = entry(&format!("security.istio.io/tlsMode: {value}"));
        assert!(set(&labelled).reports().is_empty(), "{value}");
    }
}

#[test]
fn a_namespace_or_service_account_that_fits_no_identity_is_a_fault() {
    assert_eq!(faults(&workload_entry("ns/x", "{address: 10.0.0.1, serviceAccount: 'a/b'}")).len(), 1);
    assert!(!faults(&workload_entry("n%2e/x", "{address: 10.0.0.1}")).is_empty());
}
