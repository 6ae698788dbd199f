//! The lists that flags carry, with commas between the entries and empty for none. Ports and CIDRs may also be
//! `*` for all.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

/// The longest interface name that Linux knows (`IFNAMSIZ` less its NUL), in bytes.
const MAX_INTERFACE_NAME: usize = 15;

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

/// Users by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uids(pub(super) BTreeSet<u32>);

/// Interfaces by full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interfaces(pub(super) BTreeSet<String>);

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
    /// Not a name that iptables would take literally.
    #[error(
        "{0:?} is not an interface name, expected 1 to {MAX_INTERFACE_NAME} characters without spaces, quotes, \
         `/`, `+` or `!`"
    )]
    NotAnInterface(String),
    /// Not a user number.
    #[error("{0:?} is not a uid, expected a number up to 4294967294")]
    NotAUid(String),
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

impl FromStr for Uids {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        entries(text).map(uid).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Interfaces {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        entries(text).map(interface).collect::<Result<_, _>>().map(Self)
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

fn uid(text: &str) -> Result<u32, ValueError> {
    // The highest number means "no user" to the kernel.
    text.parse().ok().filter(|uid| *uid != u32::MAX).ok_or_else(|| ValueError::NotAUid(text.to_owned()))
}

/// `+` is the wildcard of iptables and `!` its negation; a name with either would mean more than it says.
fn interface(text: &str) -> Result<String, ValueError> {
    let is_name = (1..=MAX_INTERFACE_NAME).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_graphic() && !"/+!\"'\\".contains(c))
        && !text.starts_with('-');
    if is_name { Ok(text.to_owned()) } else { Err(ValueError::NotAnInterface(text.to_owned())) }
}
