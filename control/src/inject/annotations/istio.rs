//! Istio's annotations.

use serde_json::Value;

use super::super::proxy_config;
use super::super::sidecar::MOUNT_PATHS;
use super::super::values::{self, CIDR_LIST, CIDRS, INTERFACES, PORT_LIST, PORTS};
use super::super::warning::Warning;
use super::{Reader, unhonoured};

const FAMILIES: [&str; 8] = [
    "sidecar.istio.io/",
    "status.sidecar.istio.io/",
    "readiness.status.sidecar.istio.io/",
    "proxy.istio.io/",
    "inject.istio.io/",
    "prometheus.istio.io/",
    "ambient.istio.io/",
    "istio.io/reroute-virtual-interfaces",
];

/// Reads one annotation, if it is one of Istio's.
pub(super) fn annotation(reader: &mut Reader<'_>, name: &str, value: &str) {
    if let Some(what) = name.strip_prefix("traffic.sidecar.istio.io/") {
        if !traffic(reader, name, what, value) {
            unhonoured::warn(reader, name, value);
        }
        return;
    }
    let is_ours = FAMILIES.iter().any(|family| name.starts_with(family));
    if is_ours && !sidecar(reader, name, value) && !readiness(reader, name, value) {
        unhonoured::warn(reader, name, value);
    }
}

fn traffic(reader: &mut Reader<'_>, name: &str, what: &str, value: &str) -> bool {
    match what {
        "includeInboundPorts" => {
            let ports = reader.or_refuse(name, value, values::ports(value), PORTS);
            reader.overrides.capture.include_inbound_ports = ports;
        }
        "excludeInboundPorts" => {
            let ports = reader.or_refuse(name, value, values::port_list(value), PORT_LIST);
            reader.overrides.capture.exclude_inbound_ports.extend(ports.unwrap_or_default());
        }
        "includeOutboundPorts" => {
            let ports = reader.or_refuse(name, value, values::ports(value), PORTS);
            reader.overrides.capture.include_outbound_ports = ports.unwrap_or_default();
        }
        "excludeOutboundPorts" => {
            let ports = reader.or_refuse(name, value, values::port_list(value), PORT_LIST);
            reader.overrides.capture.exclude_outbound_ports.extend(ports.unwrap_or_default());
        }
        "includeOutboundIPRanges" => {
            let ranges = reader.or_refuse(name, value, values::cidrs(value), CIDRS);
            reader.overrides.capture.include_outbound_ranges = ranges;
        }
        "excludeOutboundIPRanges" => {
            let ranges = reader.or_refuse(name, value, values::cidr_list(value), CIDR_LIST);
            reader.overrides.capture.exclude_outbound_ranges = ranges.unwrap_or_default();
        }
        "excludeInterfaces" => {
            let names = reader.or_refuse(name, value, values::interfaces(value), INTERFACES);
            reader.overrides.capture.exclude_interfaces = names.unwrap_or_default();
        }
        _ => return false,
    }
    true
}

fn sidecar(reader: &mut Reader<'_>, name: &str, value: &str) -> bool {
    let expected_switch = ("true or false", "true holds");
    match name {
        // Decided by before; the status is an earlier injection's, which has been taken out.
        "sidecar.istio.io/inject" | "sidecar.istio.io/status" => {}
        "sidecar.istio.io/proxyCPU" => reader.quantity(name, value, |all| &mut all.cpu.request),
        "sidecar.istio.io/proxyCPULimit" => reader.quantity(name, value, |all| &mut all.cpu.limit),
        "sidecar.istio.io/proxyMemory" => reader.quantity(name, value, |all| &mut all.memory.request),
        "sidecar.istio.io/proxyMemoryLimit" => reader.quantity(name, value, |all| &mut all.memory.limit),
        "sidecar.istio.io/proxyImage" => reader.image(name, value),
        "sidecar.istio.io/proxyImageType" => reader.image_type(name, value),
        "sidecar.istio.io/nativeSidecar" => reader.native(name, value),
        "sidecar.istio.io/logLevel" => {
            let expected =
                ("trace, debug, info, warning, error, critical or off", "the injector's setting holds");
            if let Some(level) = reader.or_warn(name, value, values::log_level(value), expected) {
                reader.overrides.log_level = Some(level);
            }
        }
        "sidecar.istio.io/rewriteAppHTTPProbers" => {
            let rewrite = reader.or_warn(name, value, values::switch(value), expected_switch);
            reader.overrides.rewrite_probes = rewrite;
        }
        "sidecar.istio.io/userVolume" => {
            let volumes = reader.or_warn(name, value, named_list(value, "name"), USER_LIST);
            reader.overrides.user_volumes = volumes.unwrap_or_default();
        }
        "sidecar.istio.io/userVolumeMount" => user_mounts(reader, name, value),
        "proxy.istio.io/config" => proxy_config::read(reader, name, value),
        _ => return false,
    }
    true
}

const USER_LIST: (&str, &str) =
    ("JSON, a list of mappings with a name or a mapping by name", "nothing is added");

fn readiness(reader: &mut Reader<'_>, name: &str, value: &str) -> bool {
    let Some(what) = name.strip_prefix("readiness.status.sidecar.istio.io/") else { return false };
    let least = match what {
        "initialDelaySeconds" => 0,
        "periodSeconds" | "failureThreshold" => 1,
        _ => return false,
    };
    let number = values::seconds(value).filter(|number| *number >= least);
    let number = reader.or_warn(name, value, number, ("a number", "the injector's own holds"));
    let readiness = &mut reader.overrides.readiness;
    match what {
        "initialDelaySeconds" => readiness.initial_delay = number,
        "periodSeconds" => readiness.period = number,
        _ => readiness.failures = number,
    }
    true
}

/// What the sidecar itself keeps there must not be covered.
fn user_mounts(reader: &mut Reader<'_>, name: &str, value: &str) {
    let mounts = reader.or_warn(name, value, named_list(value, "name"), USER_LIST).unwrap_or_default();
    for mount in mounts {
        match mount.get("mountPath").and_then(Value::as_str) {
            Some(path) if !covers_ours(path) => reader.overrides.user_mounts.push(mount),
            Some(_) | None => {
                let expected = "a mountPath that is not the sidecar's own";
                reader.warnings.push(Warning::annotation(
                    name,
                    &mount.to_string(),
                    expected,
                    "it is left out",
                ));
            }
        }
    }
}

fn covers_ours(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let is_within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path.is_empty()
        || !path.starts_with('/')
        || path.contains("..")
        || MOUNT_PATHS.iter().any(|ours| is_within(path, ours) || is_within(ours, path))
}

/// A list of mappings with names, or a mapping from names to mappings: Istio's template takes both.
fn named_list(value: &str, key: &str) -> Option<Vec<Value>> {
    match serde_json::from_str(value).ok()? {
        Value::Array(list) => {
            list.iter().all(|entry| entry.get(key).is_some_and(Value::is_string)).then_some(list)
        }
        Value::Object(by_name) => by_name
            .into_iter()
            .map(|(name, mut entry)| {
                entry.as_object_mut()?.insert(key.to_owned(), Value::String(name));
                Some(entry)
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
