//! Linkerd's annotations, which a pod also inherits from its namespace.

use super::super::values::{self, CIDR_LIST, PORT_RANGES};
use super::{Reader, unhonoured};

const FAMILIES: [&str; 3] = ["config.linkerd.io/", "config.alpha.linkerd.io/", "config.beta.linkerd.io/"];

/// Whether a pod has the annotation where only its namespace does.
pub(super) fn is_inherited(name: &str) -> bool {
    FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Reads one annotation, if it is one of Linkerd's.
pub(super) fn annotation(reader: &mut Reader<'_>, name: &str, value: &str) {
    if !is_inherited(name) {
        if name == "linkerd.io/inject" && value == "ingress" {
            unhonoured::warn(reader, name, value);
        }
        return;
    }
    let what = name.rsplit('/').next().unwrap_or_default();
    if !capture(reader, name, what, value) && !sidecar(reader, name, what, value) {
        unhonoured::warn(reader, name, value);
    }
}

fn capture(reader: &mut Reader<'_>, name: &str, what: &str, value: &str) -> bool {
    match what {
        "skip-inbound-ports" => {
            let ports = reader.or_refuse(name, value, values::port_ranges(value), PORT_RANGES);
            reader.overrides.capture.skip_inbound_ports = ports.unwrap_or_default();
        }
        "skip-outbound-ports" => {
            let ports = reader.or_refuse(name, value, values::port_ranges(value), PORT_RANGES);
            reader.overrides.capture.exclude_outbound_ports.extend(ports.unwrap_or_default());
        }
        // By source alone, as Linkerd's own init does.
        "skip-subnets" => {
            let ranges = reader.or_refuse(name, value, values::cidr_list(value), CIDR_LIST);
            reader.overrides.capture.skip_sources = ranges.unwrap_or_default();
        }
        // Every port is opaque here.
        "opaque-ports" => {}
        _ => return false,
    }
    true
}

fn sidecar(reader: &mut Reader<'_>, name: &str, what: &str, value: &str) -> bool {
    let as_set = "the injector's setting holds";
    match what {
        "proxy-cpu-request" => reader.quantity(name, value, |all| &mut all.cpu.request),
        "proxy-cpu-limit" => reader.quantity(name, value, |all| &mut all.cpu.limit),
        "proxy-memory-request" => reader.quantity(name, value, |all| &mut all.memory.request),
        "proxy-memory-limit" => reader.quantity(name, value, |all| &mut all.memory.limit),
        "proxy-ephemeral-storage-request" => {
            reader.quantity(name, value, |all| &mut all.ephemeral_storage.request);
        }
        "proxy-ephemeral-storage-limit" => {
            reader.quantity(name, value, |all| &mut all.ephemeral_storage.limit)
        }
        "proxy-image" => reader.image(name, value),
        "proxy-enable-native-sidecar" => reader.native(name, value),
        "proxy-await" => reader.hold(name, value),
        "shutdown-grace-period" => reader.drain(name, value),
        "proxy-log-level" => {
            let level = reader.or_warn(name, value, values::log_filter(value), ("a log filter", as_set));
            reader.overrides.log_level = level.or(reader.overrides.log_level.take());
        }
        "proxy-log-format" => {
            let format = match value {
                "plain" => Some("text"),
                "json" => Some("json"),
                _ => None,
            };
            let format = reader.or_warn(name, value, format, ("plain or json", as_set));
            reader.overrides.log_format = format;
        }
        "access-log" => {
            let format = match value {
                "apache" => Some("text"),
                "json" => Some("json"),
                "none" => Some("off"),
                _ => None,
            };
            reader.overrides.access_log =
                reader.or_warn(name, value, format, ("apache, json or none", as_set));
        }
        "image-pull-policy" => {
            let policy = ["Always", "IfNotPresent", "Never"].into_iter().find(|policy| *policy == value);
            let expected = ("Always, IfNotPresent or Never", as_set);
            reader.overrides.pull_policy = reader.or_warn(name, value, policy, expected);
        }
        _ => return false,
    }
    true
}
