//! The two kinds of lists that flags carry: ports and CIDRs, each also `*` for all and empty for none.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

/// A set of TCP ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Every port, written `*`.
    All,
    /// These ports, written with commas; may be empty.
    Only(BTreeSet<u16>),
}

/// A set of destinations of either family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cidrs {
    /// Every destination, written `*`.
    All,
    /// These networks, written with commas in the order given; may be empty.
    Only(Vec<IpNet>),
}

/// Why a list does not parse.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ValueError {
    /// Bits are set to the right of the prefix, so that what was meant is not clear.
    #[error("{found} has bits beyond its prefix, expected {expected}")]
    HostBits {
        /// What was read.
        found: IpNet,
        /// The network with those bits cleared.
        expected: IpNet,
    },
    /// Not an address or a network.
    #[error("{0:?} is not a CIDR, expected for example 10.0.0.0/8 or fd00::/8")]
    NotACidr(String),
    /// Not a port number.
    #[error("{0:?} is not a port, expected 1 to 65535")]
    NotAPort(String),
}

impl Ports {
    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(ports) => ports.contains(&port),
        }
    }
}

impl Cidrs {
    /// Whether the address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Only(networks) => networks.iter().any(|network| network.contains(&address)),
        }
    }
}

impl FromStr for Ports {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        entries(text).map(port).collect::<Result<_, _>>().map(Self::Only)
    }
}

impl FromStr for Cidrs {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        entries(text).map(cidr).collect::<Result<_, _>>().map(Self::Only)
    }
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    // An empty list is one empty entry to `split`; an empty entry in a longer list is a typing error.
    let text = text.trim();
    text.split(',').map(str::trim).filter(move |_| !text.is_empty())
}

fn port(text: &str) -> Result<u16, ValueError> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| ValueError::NotAPort(text.to_owned()))
}

fn cidr(text: &str) -> Result<IpNet, ValueError> {
    let found = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|_| ValueError::NotACidr(text.to_owned()))?,
    };
    if found.trunc() == found {
        Ok(found)
    } else {
        Err(ValueError::HostBits { found, expected: found.trunc() })
    }
}
