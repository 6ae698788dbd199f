//! Which addresses of this machine to connect from: control takes so many connections from one.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, ensure};
use nix::ifaddrs::getifaddrs;

/// Connections that control takes from one address, where its settings do not say otherwise.
const PER_SOURCE: usize = 512;

/// The addresses that are named, or else all that the machine has, as far as `server` can be reached from them.
pub(crate) fn choose(named: &[IpAddr], server: IpAddr, connections: usize) -> anyhow::Result<Vec<IpAddr>> {
    let found = if named.is_empty() { own()? } else { named.to_vec() };
    let like: Vec<_> = found.into_iter().filter(|source| source.is_ipv4() == server.is_ipv4()).collect();
    let wanted = connections.div_ceil(PER_SOURCE);
    ensure!(
        like.len() >= wanted,
        "{connections} connections to {server} from {like:?}: expected {wanted} own addresses, for control takes \
         {PER_SOURCE} connections from one (--source, or run in the network namespace of a node)"
    );
    Ok(like)
}

fn own() -> anyhow::Result<Vec<IpAddr>> {
    let interfaces = getifaddrs().context("the machine's addresses cannot be read")?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    let reaching: BTreeSet<_> = addresses.filter(|address| reaches(*address)).collect();
    Ok(reaching.into_iter().collect())
}

/// Whether others can answer to it.
fn reaches(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_servers_family_are_taken_and_too_few_are_told() {
        let named = ["10.200.0.1", "fd00::1", "10.244.0.1"].map(|text| text.parse().unwrap());
        let server = "10.244.0.9".parse().unwrap();
        assert_eq!(choose(&named, server, 1024).unwrap(), [named[0], named[2]]);
        let error = choose(&named, server, 1025).unwrap_err().to_string();
        assert!(error.contains("from [10.200.0.1, 10.244.0.1]: expected 3 own addresses"), "{error}");
        assert!(choose(&named, "fd00::9".parse().unwrap(), 1000).is_err());
    }

    #[test]
    fn loopback_and_link_local_addresses_lead_nowhere() {
        for (address, expected) in [
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("fe80::1", false),
            ("10.0.0.1", true),
            ("fd00::1", true),
        ] {
            assert_eq!(reaches(address.parse().unwrap()), expected, "{address}");
        }
    }
}
