//! Ports that a pod's capture leaves alone, from the pod as the injector made it to what its clients are told.

use ringmail_policy::{Destination as Told, OutsideReason, Route, SIDECAR_PORTS};

use super::*;
use crate::inject::{Cluster, InjectConfig, Namespace, Outcome, Request, inject};

const ADDRESS: &str = "10.0.0.1";

/// The pod as it runs after an injection that somebody asked for with these annotations.
fn injected(annotations: &[(&str, &str)]) -> serde_json::Value {
    let mut pod = objects::pod_json("a", "p", 1, &[ADDRESS]);
    pod["metadata"]["labels"] = json!({ "app": "p" });
    pod["spec"] = json!({ "nodeName": "node", "containers": [{ "name": "app", "image": "app" }] });
    for (name, value) in annotations {
        pod["metadata"]["annotations"][name] = json!(value);
    }
    let labels = [("istio-injection".to_owned(), "enabled".to_owned())].into();
    let namespace = Namespace { name: "a".to_owned(), labels, ..Namespace::default() };
    let cluster = Cluster { native_sidecars: true, ..Cluster::default() };
    let request = Request { pod: &pod, namespace: &namespace, workload: None, cluster };
    match inject(&request, &InjectConfig::default()) {
        Outcome::Injected(injected) => injected.pod,
        other @ (Outcome::Refused(_) | Outcome::Skipped(_)) => panic!("{other:?}"),
    }
}

/// What a client decides that was told of the pod, for one port.
fn route(world: &World, port: u16) -> Route {
    let workload = workloads(world, ADDRESS).remove("Kubernetes//Pod/a/p").unwrap();
    let message = destination(world, ADDRESS, Some(&Pod { namespace: "b".to_owned(), ..Pod::default() }));
    Told::from_wire(&workload, &message, &settings()).unwrap().route(port)
}

fn is_left_alone(world: &World, port: u16) -> bool {
    match route(world, port) {
        Route::Mesh { .. } => false,
        Route::Outside { reason: OutsideReason::NotCaptured, decided_by, .. } => {
            assert_eq!(decided_by.to_string(), "Pod a/p");
            true
        }
        other @ (Route::Outside { .. } | Route::Refused { .. } | Route::Service { .. } | Route::Unknown) => {
            panic!("{other:?}")
        }
    }
}

/// Every way to say so that the injector honours, under a mesh that is STRICT.
#[test]
fn what_an_injected_pod_does_not_capture_is_dialled_as_it_is() {
    let strict =
        || policy(Kind::PeerAuthentication, "istio-system", "p", 1, json!({ "mtls": { "mode": "STRICT" } }));
    for (annotations, left, captured) in [
        (&[][..], &[][..], &[80, 15002][..]),
        (&[("traffic.sidecar.istio.io/excludeInboundPorts", "80,90")], &[80, 90], &[81, 89, 91]),
        (&[("traffic.sidecar.istio.io/includeInboundPorts", "80")], &[79, 81, 65535], &[80]),
        (&[("traffic.sidecar.istio.io/includeInboundPorts", "*")], &[], &[80]),
        (&[("traffic.sidecar.istio.io/includeInboundPorts", "")], &[1, 80, 65535], &[]),
        (&[("config.linkerd.io/skip-inbound-ports", "80,90-92")], &[80, 90, 91, 92], &[89, 93]),
        (&[("config.linkerd.io/opaque-ports", "80")], &[], &[80]),
        (&[("traffic.sidecar.istio.io/excludeOutboundPorts", "80")], &[], &[80]),
    ] {
        let world = world([objects::pod_of(&injected(annotations)), strict()]);
        for port in left.iter().chain(&SIDECAR_PORTS) {
            assert!(is_left_alone(&world, *port), "{annotations:?} {port}");
        }
        for port in captured {
            assert!(!is_left_alone(&world, *port), "{annotations:?} {port}");
        }
    }
}

/// What runs does not change with an annotation, and who may label a pod may not say what others send it.
#[test]
fn neither_a_later_annotation_nor_a_label_leaves_a_port_alone() {
    let excluded = "traffic.sidecar.istio.io/excludeInboundPorts";
    let mut pod = injected(&[]);
    pod["metadata"]["annotations"][excluded] = json!("80");
    pod["metadata"]["labels"][excluded] = json!("80");
    assert!(!is_left_alone(&world([objects::pod_of(&pod)]), 80));
    let mut pod = injected(&[(excluded, "80")]);
    pod["metadata"]["annotations"].as_object_mut().unwrap().remove(excluded);
    assert!(is_left_alone(&world([objects::pod_of(&pod)]), 80));
    // Another container's arguments say nothing.
    pod["spec"]["initContainers"][0]["name"] = json!("other");
    assert!(!is_left_alone(&world([objects::pod_of(&pod)]), 80));
}

#[test]
fn a_pod_that_is_replaced_by_one_with_other_rules_is_told_anew() {
    let excluding = injected(&[("traffic.sidecar.istio.io/excludeInboundPorts", "80")]);
    let mut world = world([objects::pod_of(&injected(&[]))]);
    assert!(!is_left_alone(&world, 80));
    let dirty = world.apply([objects::pod_of(&excluding)]);
    assert!(dirty.addresses.contains(&address(ADDRESS)));
    assert!(is_left_alone(&world, 80));
}
