//! Objects as the API server has them.

use ringmail_policy::{Kind, Settings};
use serde_json::{Value, json};

use super::super::*;

pub(in super::super::super) fn settings() -> Settings {
    let mut settings = Settings::new("cluster.local".parse().unwrap());
    settings.mesh_ranges = vec!["10.0.0.0/24".parse().unwrap()];
    settings
}

/// A time on the day of this number.
fn created(age: u8) -> String {
    format!("2024-01-{age:02}T00:00:00Z")
}

pub(in super::super::super) fn pod_json(namespace: &str, name: &str, age: u8, addresses: &[&str]) -> Value {
    let ips: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("{namespace}-{name}-{age}"),
            "creationTimestamp": created(age),
            "labels": { "security.istio.io/tlsMode": "istio", "app": name },
        },
        "spec": { "nodeName": "node", "hostNetwork": false, "containers": [] },
        "status": { "phase": "Running", "podIPs": ips },
    })
}

pub(in super::super::super) fn pod_of(json: &Value) -> Update {
    let pod = PodInfo::of(&serde_json::from_value(json.clone()).unwrap());
    Update::Pod(pod.key.clone(), Some(pod))
}

pub(in super::super::super) fn pod(namespace: &str, name: &str, age: u8, addresses: &[&str]) -> Update {
    pod_of(&pod_json(namespace, name, age, addresses))
}

pub(in super::super::super) fn service(
    namespace: &str,
    name: &str,
    age: u8,
    addresses: &[&str],
    ports: &[(&str, u16)],
) -> Update {
    let ports: Vec<_> = ports.iter().map(|(name, port)| json!({ "name": name, "port": port })).collect();
    let addresses = if addresses.is_empty() { vec!["None"] } else { addresses.to_vec() };
    let json = json!({
        "metadata": { "namespace": namespace, "name": name, "creationTimestamp": created(age) },
        "spec": { "clusterIPs": addresses, "ports": ports },
    });
    let service = ServiceInfo::of(&serde_json::from_value(json).unwrap());
    Update::Service(service.key.clone(), Some(service))
}

fn slice(namespace: &str, name: &str, service: &str, ports: &[(&str, u16)], endpoints: Vec<Value>) -> Update {
    let ports: Vec<_> = ports.iter().map(|(name, port)| json!({ "name": name, "port": port })).collect();
    let json = json!({
        "metadata": {
            "namespace": namespace, "name": name, "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    });
    let slice = SliceInfo::of(&serde_json::from_value(json).unwrap());
    Update::Slice(ObjectKey::new(namespace, name), slice)
}

/// A slice of endpoints, each a pod's name with a UID of age 1, or an address.
pub(in super::super::super) fn endpoints(
    namespace: &str,
    name: &str,
    service: &str,
    ports: &[(&str, u16)],
    endpoints: &[(&str, bool)],
) -> Update {
    let endpoint = |(pod, ready): &(&str, bool)| {
        let mut endpoint = json!({ "addresses": ["192.0.2.1"], "conditions": { "ready": ready } });
        if pod.contains('.') {
            endpoint["addresses"] = json!([pod]);
        } else {
            let uid = format!("{namespace}-{pod}-1");
            endpoint["targetRef"] = json!({ "kind": "Pod", "name": pod, "uid": uid });
        }
        endpoint
    };
    slice(namespace, name, service, ports, endpoints.iter().map(endpoint).collect())
}

/// A slice of one pod that is being deleted and still serves.
pub(in super::super::super) fn leaving(
    namespace: &str,
    name: &str,
    service: &str,
    ports: &[(&str, u16)],
    pod: &str,
) -> Update {
    let endpoint = json!({
        "addresses": ["192.0.2.1"],
        "conditions": { "ready": false, "serving": true, "terminating": true },
        "targetRef": { "kind": "Pod", "name": pod },
    });
    slice(namespace, name, service, ports, vec![endpoint])
}

pub(in super::super::super) fn object(kind: Kind, namespace: &str, name: &str) -> PolicyKey {
    PolicyKey { kind, object: ObjectKey::new(namespace, name) }
}

pub(in super::super::super) fn policy(
    kind: Kind,
    namespace: &str,
    name: &str,
    age: u8,
    spec: Value,
) -> Update {
    let api_version = format!("{}/v1", kind.group());
    let json = json!({
        "apiVersion": api_version,
        "kind": kind.as_str(),
        "metadata": { "namespace": namespace, "name": name, "creationTimestamp": created(age) },
        "spec": spec,
    });
    let uid = format!("{namespace}-{name}");
    let age = Age { seconds: i64::from(age), uid: uid.clone() };
    Update::Policy(object(kind, namespace, name), Some(PolicyObject { uid, api_version, age, json }))
}
