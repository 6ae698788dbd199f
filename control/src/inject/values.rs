//! Values of annotations: lists of ports and networks, durations, switches, names of images.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::quantity::Quantity;

/// How many ports one annotation may come to with its ranges written out: each is a rule in the pod's kernel.
pub(super) const MAX_PORTS: usize = 1024;

/// The longest interface name that Linux knows.
const MAX_INTERFACE_NAME: usize = 15;

/// A century is beyond any pod.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// All, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chosen<T> {
    All,
    Only(T),
}

pub(super) const PORTS: &str = "ports from 1 to 65535 with commas between them, or *";
pub(super) const PORT_LIST: &str = "ports from 1 to 65535 with commas between them";
pub(super) const PORT_RANGES: &str =
    "ports or ranges from 1 to 65535 with commas between them, 1024 ports in all at most";
pub(super) const CIDRS: &str = "networks such as 10.0.0.0/8 with commas between them, or *";
pub(super) const CIDR_LIST: &str = "networks such as 10.0.0.0/8 with commas between them";
pub(super) const INTERFACES: &str = "names of interfaces with commas between them";

/// The entries of a list; none in an empty one, and empty ones in between are passed over as the field does.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

pub(super) fn ports(text: &str) -> Option<Chosen<BTreeSet<u16>>> {
    if text.trim() == "*" { Some(Chosen::All) } else { port_list(text).map(Chosen::Only) }
}

pub(super) fn port_list(text: &str) -> Option<BTreeSet<u16>> {
    any_ports(text).filter(|ports| ports.len() <= MAX_PORTS)
}

/// However many there are.
pub(super) fn any_ports(text: &str) -> Option<BTreeSet<u16>> {
    entries(text).map(port).collect()
}

/// As Linkerd writes them: `4222,6222-6224`.
pub(super) fn port_ranges(text: &str) -> Option<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for entry in entries(text) {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        let (first, last) = (port(first.trim())?, port(last.trim())?);
        if first > last {
            return None;
        }
        ports.extend(first..=last);
    }
    (ports.len() <= MAX_PORTS).then_some(ports)
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

pub(super) fn cidrs(text: &str) -> Option<Chosen<Vec<String>>> {
    if text.trim() == "*" { Some(Chosen::All) } else { cidr_list(text).map(Chosen::Only) }
}

/// Networks in the spelling that `ringmail-init` takes: without bits beyond the prefix, which iptables drops as well.
pub(super) fn cidr_list(text: &str) -> Option<Vec<String>> {
    let networks: Option<BTreeSet<String>> = entries(text).map(cidr).collect();
    networks.filter(|networks| networks.len() <= MAX_PORTS).map(|networks| networks.into_iter().collect())
}

fn cidr(text: &str) -> Option<String> {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let prefix = prefix.map(str::parse::<u32>).transpose().ok()?;
    Some(match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(v4) => {
            let prefix = prefix.filter(|prefix| *prefix <= 32).or(prefix.is_none().then_some(32))?;
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            format!("{}/{prefix}", std::net::Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let prefix = prefix.filter(|prefix| *prefix <= 128).or(prefix.is_none().then_some(128))?;
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            format!("{}/{prefix}", std::net::Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    })
}

pub(super) fn interfaces(text: &str) -> Option<BTreeSet<String>> {
    let is_name = |name: &&str| {
        name.len() <= MAX_INTERFACE_NAME
            && !name.starts_with('-')
            && name.chars().all(|c| c.is_ascii_graphic() && !"/+!\"'\\".contains(c))
    };
    entries(text).map(|name| Some(name).filter(is_name).map(str::to_owned)).collect()
}

/// As Go writes them: `120s`, `1m30s`, `500ms`, `1.5h`; above zero.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        let seconds = match &rest[end..unit_end] {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * seconds;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total).ok().filter(|total| !total.is_zero() && *total <= MAX_DURATION)
}

pub(super) fn switch(text: &str) -> Option<bool> {
    match text.trim() {
        "true" | "enabled" => Some(true),
        "false" | "disabled" => Some(false),
        _ => None,
    }
}

pub(super) fn quantity(text: &str) -> Option<Quantity> {
    Quantity::parse(text.trim())
}

pub(super) fn seconds(text: &str) -> Option<i32> {
    text.trim().parse().ok().filter(|seconds| *seconds >= 0)
}

/// A name that a container runtime could pull, as far as its letters go.
pub(super) fn image(text: &str) -> Option<&str> {
    let is_reference = (1..=255).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c));
    is_reference.then_some(text)
}

/// A filter of `tracing`, as Linkerd's proxy takes: `warn,ringmail_proxy=debug`.
pub(super) fn log_filter(text: &str) -> Option<String> {
    text.parse::<tracing_subscriber::filter::Targets>().ok().map(|_| text.to_owned())
}

/// Envoy's words for levels.
pub(super) fn log_level(text: &str) -> Option<String> {
    Some(
        match text {
            "trace" => "trace",
            "debug" => "debug",
            "info" => "info",
            "warning" | "warn" => "warn",
            "error" | "critical" => "error",
            "off" => "off",
            _ => return None,
        }
        .to_owned(),
    )
}
