//! The cluster of one moment, from objects as JSON.

use ringmail_policy::{Pod as PolicyPod, Route};
use serde_json::{Value, json};

use super::*;

fn read<T: serde::de::DeserializeOwned>(objects: &[Value]) -> Vec<T> {
    objects.iter().map(|object| serde_json::from_value(object.clone()).unwrap()).collect()
}

fn pod(name: &str, address: &str, in_mesh: bool) -> Value {
    let labels = if in_mesh { json!({"app": "a", "security.istio.io/tlsMode": "istio"}) } else { json!({}) };
    json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name, "labels": labels},
        "spec": {"containers": [], "serviceAccountName": "sa", "nodeName": "node"},
        "status": {"phase": "Running", "podIP": address},
    })
}

fn slice(service: &str, pods: &[(&str, bool)]) -> Value {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|(pod, ready)| {
            let address = match *pod {
                "p0" => "10.0.0.1",
                "p1" => "10.0.0.2",
                _ => "10.0.0.3",
            };
            json!({"addresses": [address], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": pod}})
        })
        .collect();
    json!({
        "metadata": {"namespace": "ns", "name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "tcp", "port": 10800}],
    })
}

fn policy(kind: &str, name: &str, spec: Value) -> Value {
    let group = if kind == "DestinationRule" { "networking.istio.io" } else { "security.istio.io" };
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": {"namespace": "ns", "name": name}, "spec": spec,
    })
}

fn snapshot(policies: &[Value]) -> Snapshot {
    let pods = [pod("p0", "10.0.0.1", true), pod("p1", "10.0.0.2", true), pod("bare", "10.0.0.3", false)];
    let service = |name: &str, address: &str| {
        json!({
            "metadata": {"namespace": "ns", "name": name},
            "spec": {"clusterIPs": [address], "ports": [{"name": "tcp", "port": 80, "targetPort": 10800}]},
        })
    };
    let services = [service("mixed", "10.96.0.1"), service("bare", "10.96.0.2")];
    let slices =
        [slice("mixed", &[("p0", true), ("p1", false), ("bare", true)]), slice("bare", &[("bare", true)])];
    let objects = Objects {
        pods: read(&pods),
        services: read(&services),
        slices: read(&slices),
        nodes: read(&[json!({"metadata": {"name": "node"}, "spec": {"podCIDR": "10.0.0.0/24"}})]),
        ranges: read(&[json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}})]),
        policies: read(policies),
    };
    Snapshot::new(Settings::new("cluster.local".parse().unwrap()), "Kubernetes", &objects)
}

fn route(snapshot: &Snapshot, to: &str) -> Route {
    let to: SocketAddr = to.parse().unwrap();
    let client = PolicyPod { namespace: "ns".into(), ..PolicyPod::default() };
    snapshot.outbound(&client, &[to.ip()]).route(to)
}

#[test]
fn a_pod_is_found_by_name_and_address_with_the_identity_it_must_present() {
    let snapshot = snapshot(&[]);
    let (workload, origin) = snapshot.workload_at("10.0.0.1".parse().unwrap()).unwrap();
    assert_eq!(workload.identity.to_string(), "spiffe://cluster.local/ns/ns/sa/sa");
    assert_eq!(origin.to_string(), "Pod ns/p0");
    assert_eq!(snapshot.pod("ns", "p0").unwrap().0, workload);
    assert!(snapshot.pod("ns", "p9").is_none() && snapshot.entry("ns", "p0").is_none());
}

#[test]
fn a_services_address_leads_to_the_endpoints_that_may_be_chosen() {
    let snapshot = snapshot(&[]);
    let address = "10.96.0.1".parse().unwrap();
    assert_eq!(snapshot.service_at(address), Some(("ns", "mixed")));
    let expected: Vec<SocketAddr> =
        vec!["10.0.0.3:10800".parse().unwrap(), "10.0.0.1:10800".parse().unwrap()];
    assert_eq!(snapshot.endpoints(("ns", "mixed"), 80, true), Some(expected.clone()));
    assert_eq!(snapshot.endpoints(("ns", "mixed"), 80, false), Some(Vec::new()));
    assert_eq!(snapshot.endpoints(("ns", "none"), 80, true), None);
    let Route::Service { endpoints, .. } = route(&snapshot, "10.96.0.1:80") else { panic!("no Service") };
    assert_eq!(endpoints.to_vec(), expected);
    assert!(matches!(route(&snapshot, "10.96.0.2:80"), Route::Outside { .. }));
}

#[test]
fn an_endpoint_that_is_no_workload_is_where_kube_proxy_sends_connections_and_no_sidecar_does() {
    let mut slice = slice("api", &[]);
    slice["endpoints"] = json!([{"addresses": ["192.0.2.9"]}]);
    let service = json!({
        "metadata": {"namespace": "ns", "name": "api"},
        "spec": {"clusterIPs": ["10.96.0.3"], "ports": [{"name": "tcp", "port": 443}]},
    });
    let objects = Objects { services: read(&[service]), slices: read(&[slice]), ..Objects::default() };
    let snapshot = Snapshot::new(Settings::new("cluster.local".parse().unwrap()), "Kubernetes", &objects);
    let expected: SocketAddr = "192.0.2.9:10800".parse().unwrap();
    assert_eq!(snapshot.endpoints(("ns", "api"), 443, true), Some(vec![expected]));
    assert_eq!(snapshot.endpoints(("ns", "api"), 80, true), Some(Vec::new()));
    assert!(matches!(route(&snapshot, "10.96.0.3:443"), Route::Outside { .. }));
}

#[test]
fn what_nobody_has_is_unknown_inside_the_clusters_ranges_and_outside_beyond_them() {
    let snapshot = snapshot(&[]);
    assert_eq!(route(&snapshot, "10.0.0.99:80"), Route::Unknown);
    assert_eq!(route(&snapshot, "10.96.7.7:80"), Route::Unknown);
    assert!(matches!(route(&snapshot, "192.0.2.7:80"), Route::Outside { .. }));
}

#[test]
fn policies_decide_and_what_cannot_be_read_is_told() {
    let rule = policy(
        "DestinationRule",
        "plain",
        json!({"host": "mixed", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}),
    );
    let broken = policy("PeerAuthentication", "broken", json!({"mtls": {"mode": "SOMETIMES"}}));
    let snapshot = snapshot(&[rule, broken, json!({"apiVersion": "v1", "kind": "Other", "metadata": {}})]);
    let Route::Outside { decided_by, .. } = route(&snapshot, "10.0.0.1:10800") else {
        panic!("not plaintext")
    };
    assert_eq!(decided_by.to_string(), "DestinationRule ns/plain");
    let notices = snapshot.notices();
    assert_eq!(notices.len(), 1);
    assert!(notices[0].fault && notices[0].name == "broken", "{notices:?}");
    assert!(notices[0].texts[0].starts_with("spec.mtls.mode: expected"), "{notices:?}");
}
