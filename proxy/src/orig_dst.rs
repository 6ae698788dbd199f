//! Where a captured connection wanted to go.
//!
//! The capture rules redirect a connection to the proxy's port; the kernel keeps the address it was
//! meant for. There is no fallback: a connection without one was not captured, somebody dialled the
//! proxy's port itself, and dialling on from there would loop or reach what was never asked for.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{config::Config, reason::Reason, record::Direction};

/// Why a connection has no destination that may be dialled.
#[derive(Debug, thiserror::Error)]
pub enum OrigDstError {
    /// The destination is not an address of this pod, so it is not this sidecar's to serve.
    #[error("original destination {destination} is not an address of this pod")]
    Foreign {
        /// What the kernel said.
        destination: SocketAddr,
    },
    /// The connection was made to the proxy's own listener.
    #[error("not captured: connected directly to the proxy's port {local}")]
    NotCaptured {
        /// The listener's address.
        local: SocketAddr,
    },
    /// The destination is one of the proxy's own ports on this pod.
    #[error("original destination {destination} is a port of this proxy")]
    Own {
        /// What the kernel said.
        destination: SocketAddr,
    },
    /// The kernel would not say.
    #[error("original destination of a connection from {peer}: {source}")]
    Unknown {
        /// Who connected.
        peer: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OrigDstError {
    /// The reason for the record.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Foreign { .. } => Reason::ForeignDestination,
            Self::NotCaptured { .. } | Self::Unknown { .. } => Reason::NoOriginalDestination,
            Self::Own { .. } => Reason::OwnAddress,
        }
    }
}

/// The addresses and ports that are this proxy's own.
#[derive(Clone, Debug)]
pub struct Own {
    addresses: Vec<IpAddr>,
    ports: [u16; 6],
}

impl Own {
    /// From the settings: the pod's addresses and every port this proxy listens on.
    pub fn new(config: &Config) -> Self {
        Self {
            addresses: config.pod_addresses.clone(),
            ports: [
                config.outbound_port,
                config.inbound_port,
                config.admin_port,
                config.stats_port,
                config.health_port,
                config.linkerd_admin_port,
            ],
        }
    }

    fn is_address(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || ip.is_unspecified() || self.addresses.contains(&ip)
    }

    /// Decides on what the kernel said. Pure, so that every case can be a row of a table.
    ///
    /// # Errors
    /// [`OrigDstError`] for anything that must not be dialled.
    pub fn check(
        &self,
        direction: Direction,
        local: SocketAddr,
        destination: SocketAddr,
    ) -> Result<SocketAddr, OrigDstError> {
        if destination == local {
            return Err(OrigDstError::NotCaptured { local });
        }
        let own_address = self.is_address(destination.ip());
        if own_address && self.ports.contains(&destination.port()) {
            return Err(OrigDstError::Own { destination });
        }
        if direction == Direction::Inbound && !own_address {
            return Err(OrigDstError::Foreign { destination });
        }
        Ok(destination)
    }
}

/// Asks the kernel where `stream` wanted to go and refuses what must not be dialled.
///
/// # Errors
/// [`OrigDstError`]; nothing was dialled.
pub fn original_destination(
    stream: &TcpStream,
    direction: Direction,
    own: &Own,
) -> Result<SocketAddr, OrigDstError> {
    let unknown = |source| OrigDstError::Unknown {
        peer: stream.peer_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))),
        source,
    };
    let local = canonical(stream.local_addr().map_err(unknown)?);
    let socket = SockRef::from(stream);
    let answer = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    let destination = match answer {
        Ok(address) => address.as_socket(),
        // No entry in the connection tracking: it was never redirected.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OrigDstError::NotCaptured { local });
        }
        Err(error) => return Err(unknown(error)),
    };
    let destination = destination.ok_or_else(|| unknown(io::ErrorKind::Unsupported.into()))?;
    own.check(direction, local, canonical(destination))
}

/// An IPv4 address in IPv6 clothes is the IPv4 address: policy must not be fooled by spelling.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        Own {
            addresses: vec!["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()],
            ports: [15001, 15006, 15000, 15020, 15021, 4191],
        }
    }

    #[test]
    fn only_a_captured_destination_that_cannot_loop_is_passed_on() {
        use Direction::{Inbound, Outbound};
        let rows: &[(Direction, &str, &str, Option<Reason>)] = &[
            (Inbound, "10.77.0.1:15006", "10.77.0.1:47500", None),
            (Inbound, "[fd77::1]:15006", "[fd77::1]:47500", None),
            (Inbound, "10.77.0.1:15006", "10.77.0.1:15006", Some(Reason::NoOriginalDestination)),
            (Inbound, "10.77.0.1:15006", "10.77.0.1:15001", Some(Reason::OwnAddress)),
            (Inbound, "10.77.0.1:15006", "127.0.0.1:15000", Some(Reason::OwnAddress)),
            (Inbound, "10.77.0.1:15006", "10.77.0.2:47500", Some(Reason::ForeignDestination)),
            (Inbound, "10.77.0.1:15006", "8.8.8.8:53", Some(Reason::ForeignDestination)),
            (Outbound, "127.0.0.1:15001", "10.77.0.2:47500", None),
            (Outbound, "127.0.0.1:15001", "10.77.0.2:15006", None),
            (Outbound, "127.0.0.1:15001", "127.0.0.1:15001", Some(Reason::NoOriginalDestination)),
            (Outbound, "127.0.0.1:15001", "10.77.0.1:15006", Some(Reason::OwnAddress)),
            (Outbound, "127.0.0.1:15001", "0.0.0.0:15001", Some(Reason::OwnAddress)),
            (Outbound, "[::1]:15001", "[fd77::1]:4191", Some(Reason::OwnAddress)),
        ];
        for (direction, local, destination, expected) in rows {
            let checked = own().check(*direction, local.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(checked.err().map(|error| error.reason()), *expected, "{direction:?} {destination}");
        }
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let mapped = "[::ffff:10.77.0.1]:15006".parse().unwrap();
        assert_eq!(canonical(mapped), "10.77.0.1:15006".parse().unwrap());
    }
}
