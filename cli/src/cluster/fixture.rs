//! A cluster as JSON: a ring of three in namespace `ignite`, a pod with exclusions and one without a sidecar.

use ringmail_control::discovery::snapshot::Objects;
use ringmail_control::inject::{self, Cluster, InjectConfig, Namespace, Outcome, Request};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Mesh, MeshFile, Supposed};

/// What is in the cluster; more can be put in before it is looked at.
pub(crate) struct Fixture {
    pub(crate) pods: Vec<Value>,
    pub(crate) services: Vec<Value>,
    pub(crate) slices: Vec<Value>,
    pub(crate) policies: Vec<Value>,
    pub(crate) nodes: Vec<Value>,
}

/// The namespace of the ring, which asks for Istio's sidecar.
pub(crate) fn namespace() -> Namespace {
    let labels = [("istio-injection".to_owned(), "enabled".to_owned())];
    Namespace { name: "ignite".to_owned(), labels: labels.into(), ..Namespace::default() }
}

/// A cluster of our days.
pub(crate) const CLUSTER: Cluster =
    Cluster { native_sidecars: true, istio_injects: false, linkerd_injects: false };

/// The pod with a sidecar, as the webhook makes it; what asks for none stays as it is.
pub(crate) fn injected(pod: Value) -> Value {
    let namespace = namespace();
    let request = Request { pod: &pod, namespace: &namespace, workload: None, cluster: CLUSTER };
    match inject::inject(&request, &InjectConfig::default()) {
        Outcome::Injected(injected) => injected.pod,
        Outcome::Skipped(_) => pod,
        Outcome::Refused(refusal) => panic!("{refusal}"),
    }
}

/// A pod that runs and is ready.
pub(crate) fn pod(name: &str, address: &str, metadata: Value, ports: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "ignite", "uid": name},
        "spec": {
            "serviceAccountName": "ignite", "nodeName": "node1",
            "containers": [{"name": "ignite", "image": "ignite", "ports": ports}],
        },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "initContainerStatuses": [{
                "name": "istio-proxy", "ready": true, "started": true, "restartCount": 0, "image": "", "imageID": "",
                "state": {"running": {}},
            }],
        },
    });
    if let (Some(into), Some(more)) = (pod["metadata"].as_object_mut(), metadata.as_object()) {
        into.extend(more.clone());
    }
    injected(pod)
}

/// A policy of the namespace of the ring.
pub(crate) fn policy(kind: &str, name: &str, spec: Value) -> Value {
    let group = match kind {
        "AuthorizationPolicy" | "PeerAuthentication" => "security.istio.io",
        _ => "networking.istio.io",
    };
    let metadata = json!({"name": name, "namespace": "ignite", "creationTimestamp": "2024-01-01T00:00:00Z"});
    json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": metadata, "spec": spec})
}

fn service(name: &str, address: &str, ports: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ignite"},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "selector": {"app": "ignite"}, "ports": ports,
        },
    })
}

fn slice(service: &str, ports: Value) -> Value {
    let endpoint = |number: u8| {
        let pod = json!({"kind": "Pod", "name": format!("ignite-{number}")});
        json!({"addresses": [format!("10.0.0.{number}")], "conditions": {"ready": true}, "targetRef": pod})
    };
    json!({
        "metadata": {"name": service, "namespace": "ignite", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": [endpoint(0), endpoint(1), endpoint(2)], "ports": ports,
    })
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let ring = json!([
            {"containerPort": 47500, "name": "tcp-discovery"},
            {"containerPort": 10800, "name": "tcp-thin"},
        ]);
        let node = |number: u8| {
            let name = format!("ignite-{number}");
            pod(&name, &format!("10.0.0.{number}"), json!({"labels": {"app": "ignite"}}), ring.clone())
        };
        let excluding = json!({"annotations": {
            "traffic.sidecar.istio.io/excludeInboundPorts": "8080",
            "traffic.sidecar.istio.io/excludeOutboundPorts": "10800",
        }});
        let bare = json!({"labels": {"sidecar.istio.io/inject": "false"}});
        let web = json!([{"containerPort": 8080}]);
        let thin = json!([{"name": "tcp-thin", "port": 10800}]);
        let discovery = json!([{"name": "tcp-discovery", "port": 47500}]);
        Self {
            pods: vec![
                node(0),
                node(1),
                node(2),
                pod("excluding", "10.0.0.8", excluding, web),
                pod("bare", "10.0.0.9", bare, json!([])),
            ],
            services: vec![
                service("ignite", "10.96.0.1", thin.clone()),
                service("ignite-headless", "None", discovery.clone()),
            ],
            slices: vec![slice("ignite", thin), slice("ignite-headless", discovery)],
            policies: Vec::new(),
            nodes: vec![json!({
                "metadata": {"name": "node1"},
                "spec": {"podCIDR": "10.0.0.0/24"},
                "status": {"addresses": [
                    {"type": "InternalIP", "address": "10.200.0.1"}, {"type": "Hostname", "address": "node1"},
                ]},
            })],
        }
    }

    /// With these policies.
    pub(crate) fn with(policies: impl IntoIterator<Item = Value>) -> Self {
        Self { policies: policies.into_iter().collect(), ..Self::new() }
    }

    /// What follows from it.
    pub(crate) fn mesh(&self, supposed: &Supposed) -> Mesh {
        let objects = Objects {
            pods: read(&self.pods),
            services: read(&self.services),
            slices: read(&self.slices),
            nodes: read(&self.nodes),
            ranges: Vec::new(),
            policies: read(&self.policies),
        };
        Mesh::new(MeshFile::default(), objects, supposed).unwrap()
    }
}

fn read<T: DeserializeOwned>(objects: &[Value]) -> Vec<T> {
    objects.iter().map(|object| serde_json::from_value(object.clone()).unwrap()).collect()
}
