//! The kubelet's questions go to the sidecar.
//!
//! The kubelet has no identity, so a STRICT port would refuse its probes and HTTP hooks. Each is sent to port 15020 of
//! the sidecar, which asks the application over loopback and answers as it did. What it is to ask travels in its
//! environment, in the shape in which Istio's agent has it. Probes that run a command stay as they are.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::sidecar::{SIDECAR_PORTS, STATS_PORT};
use super::warning::Warning;

/// By path on port 15020: what the sidecar asks, and how long it waits.
pub(super) type AppProbes = BTreeMap<String, Value>;

const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
const HOOKS: [(&str, &str); 2] = [("postStart", "poststart"), ("preStop", "prestop")];

/// What Kubernetes takes where a probe says nothing.
const DEFAULT_TIMEOUT_SECONDS: i64 = 1;

/// Sends every probe and hook of every container to the sidecar, and says what they asked.
pub(super) fn rewrite(pod: &mut Value, warnings: &mut Vec<Warning>) -> AppProbes {
    let mut asked = AppProbes::new();
    for container in containers(pod) {
        let Some(name) = container.get("name").and_then(Value::as_str).map(str::to_owned) else { continue };
        let ports = container.get("ports").cloned().unwrap_or_default();
        for (key, word) in PROBES {
            let Some(probe) = container.get_mut(key).and_then(Value::as_object_mut) else { continue };
            let path = format!("/app-health/{name}/{word}");
            let timeout = probe.get("timeoutSeconds").and_then(Value::as_i64).filter(|seconds| *seconds > 0);
            match handler(probe, &ports) {
                Ok(Some(mut handler)) => {
                    handler.insert(
                        "timeoutSeconds".to_owned(),
                        timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS).into(),
                    );
                    redirect(probe, &path);
                    asked.insert(path, Value::Object(handler));
                }
                Ok(None) => {}
                Err(fault) => warnings.push(left_alone(&name, key, &fault)),
            }
        }
        let Some(lifecycle) = container.get_mut("lifecycle").and_then(Value::as_object_mut) else { continue };
        for (key, word) in HOOKS {
            let Some(hook) = lifecycle.get_mut(key).and_then(Value::as_object_mut) else { continue };
            // A TCP hook is deprecated and never runs.
            if !hook.contains_key("httpGet") {
                continue;
            }
            let path = format!("/app-lifecycle/{name}/{word}");
            match handler(hook, &ports) {
                Ok(Some(handler)) => {
                    redirect(hook, &path);
                    asked.insert(path, Value::Object(handler));
                }
                Ok(None) => {}
                Err(fault) => warnings.push(left_alone(&name, key, &fault)),
            }
        }
    }
    asked
}

/// Gives every probe and hook back what it asked before.
pub(super) fn restore(pod: &mut Value, asked: &AppProbes) {
    for container in containers(pod) {
        let Some(name) = container.get("name").and_then(Value::as_str).map(str::to_owned) else { continue };
        for (key, word) in PROBES {
            let path = format!("/app-health/{name}/{word}");
            if let Some(probe) = container.get_mut(key).and_then(Value::as_object_mut) {
                restore_one(probe, asked.get(&path), &path);
            }
        }
        let Some(lifecycle) = container.get_mut("lifecycle").and_then(Value::as_object_mut) else { continue };
        for (key, word) in HOOKS {
            let path = format!("/app-lifecycle/{name}/{word}");
            if let Some(hook) = lifecycle.get_mut(key).and_then(Value::as_object_mut) {
                restore_one(hook, asked.get(&path), &path);
            }
        }
    }
}

fn restore_one(probe: &mut Map<String, Value>, asked: Option<&Value>, path: &str) {
    let get = probe.get("httpGet");
    let is_ours = get.is_some_and(|get| {
        get.get("path").and_then(Value::as_str) == Some(path)
            && get.get("port").and_then(Value::as_i64) == Some(i64::from(STATS_PORT))
    });
    let Some(asked) = asked.and_then(Value::as_object).filter(|_| is_ours) else { return };
    probe.remove("httpGet");
    for key in ["httpGet", "tcpSocket", "grpc"] {
        if let Some(handler) = asked.get(key) {
            probe.insert(key.to_owned(), handler.clone());
        }
    }
}

fn containers(pod: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut);
    let lists = spec.into_iter().flat_map(Map::iter_mut);
    let lists = lists.filter(|(key, _)| *key == "initContainers" || *key == "containers");
    lists.filter_map(|(_, list)| list.as_array_mut()).flatten().filter_map(Value::as_object_mut)
}

/// What the probe asks, with its port as a number; `None` where it is no affair of the sidecar's.
fn handler(probe: &Map<String, Value>, ports: &Value) -> Result<Option<Map<String, Value>>, String> {
    let (key, handler) = if let Some(get) = probe.get("httpGet") {
        // With a host the kubelet asks that host, not the pod.
        if get.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
            return Ok(None);
        }
        let Some(port) = port_of(get, ports)? else { return Ok(None) };
        let word =
            |key: &str, default: &str| get.get(key).and_then(Value::as_str).unwrap_or(default).to_owned();
        let mut saved = json!({"path": word("path", "/"), "port": port, "scheme": word("scheme", "HTTP")});
        if let Some(headers) = get.get("httpHeaders").filter(|headers| !headers.is_null()) {
            saved["httpHeaders"] = headers.clone();
        }
        ("httpGet", saved)
    } else if let Some(socket) = probe.get("tcpSocket") {
        if socket.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
            return Ok(None);
        }
        let Some(port) = port_of(socket, ports)? else { return Ok(None) };
        ("tcpSocket", json!({"port": port}))
    } else if let Some(grpc) = probe.get("grpc") {
        let Some(port) = port_of(grpc, ports)? else { return Ok(None) };
        let service = grpc.get("service").and_then(Value::as_str).unwrap_or_default();
        ("grpc", json!({"port": port, "service": service}))
    } else {
        return Ok(None);
    };
    Ok(Some(Map::from_iter([(key.to_owned(), handler)])))
}

/// The port that is asked; `None` for one of the sidecar's own, which is never captured.
fn port_of(handler: &Value, ports: &Value) -> Result<Option<i64>, String> {
    let asked = handler.get("port").unwrap_or(&Value::Null);
    let number = match asked {
        Value::Number(number) => number.as_i64(),
        Value::String(name) => named(name, ports).or_else(|| name.parse().ok()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match number.filter(|port| (1..=65535).contains(port)) {
        Some(port) if SIDECAR_PORTS.iter().any(|own| i64::from(*own) == port) => Ok(None),
        Some(port) => Ok(Some(port)),
        None => Err(format!(
            "port {asked}: expected a port from 1 to 65535 or the name of one of the container's"
        )),
    }
}

fn named(name: &str, ports: &Value) -> Option<i64> {
    let port =
        ports.as_array()?.iter().find(|port| port.get("name").and_then(Value::as_str) == Some(name))?;
    port.get("containerPort")?.as_i64()
}

fn redirect(probe: &mut Map<String, Value>, path: &str) {
    for key in ["httpGet", "tcpSocket", "grpc"] {
        probe.remove(key);
    }
    probe.insert("httpGet".to_owned(), json!({"path": path, "port": STATS_PORT}));
}

fn left_alone(container: &str, key: &str, fault: &str) -> Warning {
    Warning::field(format!("{key} of container {container}"), format!("{fault}; it is left as it is"))
}
