//! Defaults that depend on the machine or on other settings.

use std::{net::IpAddr, num::NonZero, thread};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage, unistd::gethostname};

use super::{
    kind,
    source::{Raw, Values},
};

/// The facts of the machine that some defaults are derived from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The host's name, in Kubernetes the pod's.
    pub hostname: String,
    /// Addresses of the interfaces, without loopback and link-local ones.
    pub addresses: Vec<IpAddr>,
    /// CPUs of the container's limit, at least 1.
    pub cpus: usize,
}

impl System {
    /// Asks the kernel. What it does not tell is empty, and one CPU.
    pub fn read() -> Self {
        Self {
            hostname: gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            addresses: addresses(),
            // Knows the affinity mask and the quota of the control group.
            cpus: thread::available_parallelism().map_or(1, NonZero::get),
        }
    }
}

fn addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let mut addresses: Vec<IpAddr> = interfaces
        .filter_map(|interface| interface.address.as_ref().and_then(ip_of))
        .filter(|ip| !ip.is_loopback() && !is_link_local(*ip))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

pub(super) fn hostname(values: &Values<'_>) -> Option<Raw> {
    Some(Raw::Scalar(values.system.hostname.clone()))
}

pub(super) fn addresses_of_interfaces(values: &Values<'_>) -> Option<Raw> {
    Some(Raw::List(values.system.addresses.iter().map(ToString::to_string).collect()))
}

pub(super) fn cpus(values: &Values<'_>) -> Option<Raw> {
    Some(Raw::Scalar(values.system.cpus.to_string()))
}

/// `None` where `pod_name` itself is at fault, which is told already.
pub(super) fn pod_name(values: &Values<'_>) -> Option<Raw> {
    (kind::TEXT.parse)(&values.effective("pod_name")?).ok().map(Raw::Scalar)
}

pub(super) fn host_of_ca_address(values: &Values<'_>) -> Option<Raw> {
    host_of("ca_address", values)
}

pub(super) fn host_of_discovery_address(values: &Values<'_>) -> Option<Raw> {
    host_of("discovery_address", values)
}

/// `None` where the address itself is at fault, which is told already.
fn host_of(address: &str, values: &Values<'_>) -> Option<Raw> {
    let uri = (kind::SERVER_ADDRESS.parse)(&values.effective(address)?).ok()?;
    // An IPv6 host stands in brackets in a URI but not in a certificate.
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    Some(Raw::Scalar(host.to_owned()))
}
