//! What this network namespace and this process look like: addresses by interface, and capabilities.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;

use crate::rules::Family;

/// Bit of `CAP_NET_ADMIN` in the capability sets of `/proc/self/status`.
const CAP_NET_ADMIN: u32 = 12;
/// Bit of `CAP_NET_RAW`: iptables-legacy opens a raw socket to reach the kernel.
const CAP_NET_RAW: u32 = 13;

/// The addresses of the network namespace, loopback and link-local ones left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    networks: Vec<IpNet>,
}

/// Which of the capabilities that iptables needs this process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// May change the network configuration.
    pub net_admin: bool,
    /// May open raw sockets.
    pub net_raw: bool,
}

impl Pod {
    /// Looks at the namespace that this thread is in.
    ///
    /// # Errors
    /// When the kernel does not list its interfaces.
    pub fn look() -> io::Result<Self> {
        let networks = getifaddrs()?.filter_map(|address| routable_network(&address)).collect();
        Ok(Self { networks })
    }

    /// Whether others can reach the pod by an address of this family.
    pub fn has_address(&self, family: Family) -> bool {
        self.networks.iter().any(|network| family.has(network))
    }

    /// For each address of the pod the next one in its network: a destination that has a route without any
    /// gateway, and is not the pod itself. Nobody needs to live there.
    pub fn neighbours(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let own = |address: &IpAddr| self.networks.iter().any(|network| network.addr() == *address);
        self.networks.iter().filter(move |network| family.has(network)).filter_map(move |network| {
            network.trunc().hosts().find(|host| *host != network.network() && !own(host))
        })
    }
}

impl Capabilities {
    /// Reads the effective set of this process; what cannot be read counts as held, because it is only used to
    /// explain a refusal that has happened.
    pub fn look() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
            .unwrap_or(u64::MAX);
        let holds = |bit: u32| effective & (1 << bit) != 0;
        Self { net_admin: holds(CAP_NET_ADMIN), net_raw: holds(CAP_NET_RAW) }
    }

    /// Names those that are missing, for example `NET_ADMIN and NET_RAW`; none if both are held.
    pub fn missing(self) -> Option<&'static str> {
        match (self.net_admin, self.net_raw) {
            (true, true) => None,
            (false, true) => Some("NET_ADMIN"),
            (true, false) => Some("NET_RAW"),
            (false, false) => Some("NET_ADMIN and NET_RAW"),
        }
    }
}

fn routable_network(interface: &InterfaceAddress) -> Option<IpNet> {
    if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
        return None;
    }
    let address = socket_address(interface.address.as_ref()?)?.ip();
    let network = match (address, interface.netmask.as_ref().and_then(socket_address).map(|mask| mask.ip())) {
        (IpAddr::V4(address), Some(IpAddr::V4(mask))) => {
            IpNet::from(Ipv4Net::with_netmask(address, mask).ok()?)
        }
        (IpAddr::V6(address), Some(IpAddr::V6(mask))) => {
            IpNet::from(Ipv6Net::with_netmask(address, mask).ok()?)
        }
        (address, Some(_) | None) => IpNet::from(address),
    };
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    (!is_link_local).then_some(network)
}

fn socket_address(storage: &nix::sys::socket::SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_in_the_pods_network_and_is_not_the_pod() {
        let pod = Pod { networks: vec!["10.0.0.1/30".parse().unwrap(), "fd00::7/64".parse().unwrap()] };
        assert_eq!(pod.neighbours(Family::V4).collect::<Vec<_>>(), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        let v6: Vec<IpAddr> = pod.neighbours(Family::V6).collect();
        assert!(v6.len() == 1 && v6[0] != "fd00::7".parse::<IpAddr>().unwrap(), "{v6:?}");
    }

    #[test]
    fn a_pod_with_a_whole_prefix_of_its_own_has_no_neighbour() {
        let pod = Pod { networks: vec!["10.1.2.3/32".parse().unwrap()] };
        assert_eq!(pod.neighbours(Family::V4).next(), None);
        assert!(pod.has_address(Family::V4) && !pod.has_address(Family::V6));
    }
}
