//! Requests and limits of what is added, and what they do to the pod's class of service.

use serde_json::{Value, json};

use super::annotations::{Overrides, Range};
use super::config::InjectConfig;
use super::quantity::Quantity;
use super::values;
use super::warning::Warning;

/// Measured: 0.3% of a CPU when idle, 1.4% with 64 connections that carry 6 MB/s together.
pub const DEFAULT_CPU_REQUEST: &str = "20m";
/// Measured: 22 MiB resident when idle (3.5 MiB of it its own, the rest the program, which sidecars of a node share), 28 MiB
/// with 64 connections at full speed.
pub const DEFAULT_MEMORY_REQUEST: &str = "32Mi";
/// Measured: with 1000 connections that all carry as much as they can, 54 MiB of its own and up to 165 MiB in the buffers
/// of its sockets, which count where cgroups are of version 2. There is no limit of CPU: a throttled sidecar looks like a
/// dead node to a ring.
pub const DEFAULT_MEMORY_LIMIT: &str = "256Mi";

/// One run, over before the application's own requests count. Measured: 3.2 MiB resident at most, 0.1 s of a CPU.
const INIT_CPU_REQUEST: &str = "10m";
const INIT_MEMORY_REQUEST: &str = "16Mi";
const INIT_MEMORY_LIMIT: &str = "64Mi";

/// Of the container that programs the capture.
pub(super) fn of_init() -> Value {
    json!({
        "requests": {"cpu": INIT_CPU_REQUEST, "memory": INIT_MEMORY_REQUEST},
        "limits": {"memory": INIT_MEMORY_LIMIT},
    })
}

/// Of the sidecar: the user's word, else the setting.
pub(super) fn of_sidecar(overrides: &Overrides, config: &InjectConfig, warnings: &mut Vec<Warning>) -> Value {
    let wanted = &overrides.resources;
    let set = |text: &Option<String>| text.as_deref().and_then(values::quantity);
    let cpu = (set(&config.proxy_cpu_request), set(&config.proxy_cpu_limit));
    let memory = (set(&config.proxy_memory_request), set(&config.proxy_memory_limit));
    let all = [
        ("cpu", range("cpu", &wanted.cpu, cpu, warnings)),
        ("memory", range("memory", &wanted.memory, memory, warnings)),
        ("ephemeral-storage", range("ephemeral-storage", &wanted.ephemeral_storage, (None, None), warnings)),
    ];
    let (mut requests, mut limits) = (json!({}), json!({}));
    for (name, range) in all {
        if let Some(request) = range.request {
            requests[name] = json!(request.text);
        }
        if let Some(limit) = range.limit {
            limits[name] = json!(limit.text);
        }
    }
    let mut resources = json!({});
    for (name, values) in [("requests", requests), ("limits", limits)] {
        if values != json!({}) {
            resources[name] = values;
        }
    }
    resources
}

/// The user's word beats the setting; the one that was not said gives way, since a request above its limit is refused.
fn range(
    name: &str,
    wanted: &Range,
    set: (Option<Quantity>, Option<Quantity>),
    warnings: &mut Vec<Warning>,
) -> Range {
    let request = wanted.request.clone().or(set.0);
    let limit = wanted.limit.clone().or(set.1);
    match (request, limit) {
        (Some(request), Some(limit)) if request.steps > limit.steps => {
            if wanted.limit.is_none() {
                return Range { limit: Some(request.clone()), request: Some(request) };
            }
            if wanted.request.is_some() {
                let text = format!(
                    "the request {} is above the limit {}, which holds for both",
                    request.text, limit.text
                );
                warnings.push(Warning::field(format!("the sidecar's {name}"), text));
            }
            Range { request: Some(limit.clone()), limit: Some(limit) }
        }
        (request, limit) => Range { request, limit },
    }
}

/// Whether a container with these resources leaves its pod in the class Guaranteed.
pub(super) fn is_guaranteed(resources: &Value) -> bool {
    let steps = |kind: &str, name: &str| {
        let text = resources.get(kind)?.get(name)?.as_str()?;
        values::quantity(text).map(|quantity| quantity.steps)
    };
    ["cpu", "memory"].into_iter().all(|name| {
        // Without a request the limit is the request.
        steps("limits", name)
            .is_some_and(|limit| steps("requests", name).is_none_or(|request| request == limit))
    })
}
