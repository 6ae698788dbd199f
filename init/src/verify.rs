//! Proof that the rules in place do what they are for.
//!
//! Outbound is tried: a connect to an address where nobody answers must arrive on the proxy's outbound port with
//! its original destination. Inbound can only be read back, since a pod's own packets never pass PREROUTING
//! as others' do; [`crate::apply`] has done that by then. The guard is tried on both ports: a connect that
//! nobody accepts must go unanswered. A process that is itself exempt from capture cannot try, and says so.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::unistd::{getegid, geteuid};
use socket2::SockRef;
use thiserror::Error;

use crate::config::{Cidrs, Ports, Settings};
use crate::pod::Pod;
use crate::rules::Family;

/// How long a redirected connect may take: it never leaves the machine, so this is for a very busy one.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long a connect to a closed port is watched for a refusal, which comes over loopback within microseconds.
const REFUSAL_DEADLINE: Duration = Duration::from_millis(100);
/// Connections of others that may arrive on the probe's listener before the probe's own.
const MAX_STRANGERS: usize = 64;
/// The port that is tried when every port is captured: discard, which no mesh peer serves.
const PROBE_PORT: u16 = 9;

/// Destinations that RFC 5737 and RFC 3849 keep for documentation: no network routes them.
const DOCUMENTATION: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// What was found about outbound capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outbound {
    /// A listener that was there before answered; what it saw as destination is not known here.
    AnsweredByProxy(SocketAddr),
    /// The connect arrived on the outbound port with this as its original destination.
    Redirected(SocketAddr),
    /// It could not be tried.
    NotTried(NotTried),
}

/// What was found about the guard of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// A process listens there: the guard has nothing to do now.
    PortInUse,
    /// A connect went unanswered, as it should.
    Silent,
}

/// Why outbound capture could not be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTried {
    /// The settings exempt the user or group that this process runs as.
    ExemptProcess,
    /// The settings capture no destination that could be tried.
    NothingCaptured,
    /// No captured destination has a route.
    NoRoute,
}

/// Why the rules in place do not hold.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// A connect to a port of the proxy without listener was answered with a refusal.
    #[error(
        "closed-port guard: a connect to port {port}, where nobody listens, was refused; expected silence"
    )]
    Refused {
        /// The proxy's port.
        port: u16,
    },
    /// The connect that must be redirected was not.
    #[error("outbound: a connect to {destination} did not arrive on port {port}: {outcome}")]
    NotRedirected {
        /// What was dialled.
        destination: SocketAddr,
        /// Where it should have arrived.
        port: u16,
        /// What happened to it.
        outcome: String,
    },
    /// It was redirected, but its original destination is lost, so no proxy could route it.
    #[error("outbound: a connect to {expected} arrived with {found} as its original destination")]
    OriginalDestination {
        /// What was dialled.
        expected: SocketAddr,
        /// What the kernel says was dialled.
        found: String,
    },
    /// The probe itself failed.
    #[error("{step}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl NotTried {
    /// The reason as words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ExemptProcess => "this process runs as a user or group that the settings exempt",
            Self::NothingCaptured => "the settings capture no destination of this family",
            Self::NoRoute => "no captured destination has a route",
        }
    }
}

/// Tries one captured connect.
///
/// # Errors
/// [`VerifyError`] when the connect goes anywhere but to the proxy's outbound port.
pub fn outbound(settings: &Settings, family: Family, pod: &Pod) -> Result<Outbound, VerifyError> {
    if is_exempt(settings) {
        return Ok(Outbound::NotTried(NotTried::ExemptProcess));
    }
    let destinations = destinations(settings, family, pod);
    if destinations.is_empty() {
        return Ok(Outbound::NotTried(NotTried::NothingCaptured));
    }
    let listener = match TcpListener::bind((loopback(family), settings.outbound_port)) {
        Ok(listener) => Some(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        Err(source) => return Err(VerifyError::Io { step: "bind of the outbound port", source }),
    };
    let Some(destination) = destinations.into_iter().find(has_route) else {
        return Ok(Outbound::NotTried(NotTried::NoRoute));
    };
    let port = settings.outbound_port;
    match TcpStream::connect_timeout(&destination, CONNECT_DEADLINE) {
        Ok(stream) => arrived(listener.as_ref(), stream, destination, port),
        Err(error) => Err(VerifyError::NotRedirected { destination, port, outcome: error.to_string() }),
    }
}

/// Tries the guard of one of the proxy's ports, over loopback, where the refusal passes OUTPUT as it does for any
/// other peer.
///
/// # Errors
/// [`VerifyError::Refused`] when the kernel refuses aloud.
pub fn guard(family: Family, port: u16) -> Result<Guard, VerifyError> {
    match TcpStream::connect_timeout(&SocketAddr::new(loopback(family), port), REFUSAL_DEADLINE) {
        Ok(_) => Ok(Guard::PortInUse),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Guard::Silent),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(VerifyError::Refused { port }),
        Err(source) => Err(VerifyError::Io { step: "connect to a port of the proxy", source }),
    }
}

/// Whether the namespace has a loopback address of the family: with IPv6 switched off it has none, and nothing
/// can be tried.
pub fn has_loopback(family: Family) -> bool {
    TcpListener::bind((loopback(family), 0)).is_ok()
}

fn arrived(
    listener: Option<&TcpListener>,
    stream: TcpStream,
    expected: SocketAddr,
    port: u16,
) -> Result<Outbound, VerifyError> {
    let Some(listener) = listener else { return Ok(Outbound::AnsweredByProxy(expected)) };
    let io = |step| move |source| VerifyError::Io { step, source };
    let own = stream.local_addr().map_err(io("address of the probe"))?;
    listener.set_nonblocking(true).map_err(io("probe listener"))?;
    for _ in 0..MAX_STRANGERS {
        let (accepted, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            // The handshake is over, so a connection that is not here went somewhere else.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(source) => return Err(VerifyError::Io { step: "accept of the probe", source }),
        };
        if peer == own {
            let outcome = check_original(&accepted, expected);
            // The probe's end goes first, and by a reset: a connection of the outbound port that lingers in
            // TIME_WAIT would keep the proxy from binding it.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(io("end of the probe"))?;
            drop(stream);
            return outcome;
        }
    }
    let outcome = "somebody else answered it".to_owned();
    Err(VerifyError::NotRedirected { destination: expected, port, outcome })
}

fn check_original(accepted: &TcpStream, expected: SocketAddr) -> Result<Outbound, VerifyError> {
    let socket = SockRef::from(accepted);
    let found = match expected {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    match found.map(|address| address.as_socket()) {
        Ok(Some(found)) if found.ip() == expected.ip() && found.port() == expected.port() => {
            Ok(Outbound::Redirected(expected))
        }
        Ok(found) => {
            let found = found.map_or_else(|| "no address".to_owned(), |found| found.to_string());
            Err(VerifyError::OriginalDestination { expected, found })
        }
        Err(error) => Err(VerifyError::OriginalDestination { expected, found: error.to_string() }),
    }
}

/// Captured destinations worth trying, those that no network routes first. A pod without a default route reaches
/// only its neighbours; settings that name networks may leave nothing but the addresses in them.
fn destinations(settings: &Settings, family: Family, pod: &Pod) -> Vec<SocketAddr> {
    let Some(port) = captured_port(settings) else { return Vec::new() };
    let included = match &settings.outbound_include_cidrs {
        Cidrs::All => Vec::new(),
        Cidrs::Only(networks) => networks.iter().filter_map(|network| network.hosts().next()).collect(),
    };
    let all = DOCUMENTATION.into_iter().chain(pod.neighbours(family)).chain(included);
    all.filter(|address| address.is_ipv4() == (family == Family::V4) && is_captured(settings, *address))
        .map(|address| SocketAddr::new(address, port))
        .collect()
}

fn is_captured(settings: &Settings, address: IpAddr) -> bool {
    settings.outbound_include_cidrs.contains(address)
        && !settings.outbound_exclude_cidrs.iter().any(|network| network.contains(&address))
}

fn captured_port(settings: &Settings) -> Option<u16> {
    let is_excluded = |port: &u16| settings.outbound_exclude_ports.contains(port);
    match &settings.outbound_include_ports {
        Ports::All => (PROBE_PORT..=u16::MAX).find(|port| !is_excluded(port)),
        Ports::Only(ports) => ports.iter().copied().find(|port| !is_excluded(port)),
    }
}

fn is_exempt(settings: &Settings) -> bool {
    settings.exempt_uids().contains(&geteuid().as_raw()) || settings.proxy_gid == getegid().as_raw()
}

/// Asked of the kernel without sending a packet: an error of the real connect could be a router's answer, which
/// would mean that the connect left the pod.
fn has_route(destination: &SocketAddr) -> bool {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(destination)).is_ok()
}

/// Where REDIRECT sends what the pod itself sends.
fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}
