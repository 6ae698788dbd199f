//! Bare probes: a connect that says nothing and only asks whether somebody listens.
//!
//! A captured connect is accepted by the kernel before anybody knows what the far application says, so a bare
//! probe of a dead node is told that it lives; Ignite 2.16 believes that for ten seconds. A refusal is therefore
//! remembered: one UDP datagram to the refused address, which the rules of `ringmail-init` keep in the pod, makes
//! the kernel refuse further connects to it, until another has it forgotten. Only for probes: a node that starts asks others too, with
//! bytes, and must not make those that start a moment later unreachable.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    config::Config,
    copy::{End, Fault},
    record::{Direction, Live},
};

/// How long the kernel refuses. A ring that was told that a dead node lives was seen to ask again within 20 ms; if it
/// takes longer, it is told the truth a question later. A node that is killed and started again at once was seen to
/// ask to join 850 ms after its death was known: others must be able to reach it by then, or it stops.
const REMEMBERED_FOR: Duration = Duration::from_millis(300);

/// The port at which a datagram has its address forgotten; the rules know it as the one that is closed.
const FORGET_PORT: u16 = 15002;

/// How long an application that has said nothing yet may take to show what it is: a probe closes at once, and
/// whoever has something to say to a ring says it at once. Its end waits for this, so it is short.
const SHOWS_ITSELF_WITHIN: Duration = Duration::from_millis(100);

/// How long the far sidecar is listened to after the application has reset: a refusal takes a handshake and a dial
/// to loopback, and a living far application learns of the reset only after it.
const REFUSAL_WITHIN: Duration = Duration::from_millis(500);

/// The destination of this connection if its refusals are to be remembered: it is the own application's, to one
/// of `ring_ports`.
pub fn probed(config: &Config, live: &Live) -> Option<SocketAddr> {
    let destination = live.destination.get().copied()?;
    let is_probed = live.direction == Direction::Outbound && config.ring_ports.contains(&destination.port());
    is_probed.then_some(destination)
}

/// Whether the application leaves without having said anything. One that neither speaks nor leaves is no probe.
pub async fn leaves_without_a_byte(application: &TcpStream) -> bool {
    match timeout(SHOWS_ITSELF_WITHIN, application.peek(&mut [0])).await {
        Ok(Ok(0) | Err(_)) => true,
        Ok(Ok(_)) | Err(_) => false,
    }
}

/// Whether the far sidecar says, before long, that its application refused.
pub async fn hears_refusal(remote: &mut End) -> bool {
    matches!(timeout(REFUSAL_WITHIN, remote.next_fault()).await, Ok(Some(Fault::ApplicationRefused)))
}

/// Has the kernel remember for a moment that `destination` refused. Whether it does is the rules' affair: without
/// them a datagram leaves, says nothing and finds nobody.
///
/// # Panics
/// Outside of a worker, whose tasks it needs.
pub fn remember(destination: SocketAddr) {
    match tell_kernel(destination) {
        // What a sender hears whose datagram a rule drops.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::debug!(%destination, "the refusal is remembered");
            tokio::task::spawn_local(forget(destination.ip()));
        }
        Ok(_) => tracing::debug!(%destination, "the refusal is not remembered: no rule took the datagram"),
        Err(error) => tracing::debug!(%destination, %error, "the refusal is not remembered"),
    }
}

async fn forget(address: IpAddr) {
    sleep(REMEMBERED_FOR).await;
    match tell_kernel(SocketAddr::new(address, FORGET_PORT)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Ok(_) => tracing::debug!(%address, "the refusal was not forgotten: no rule took the datagram"),
        Err(error) => tracing::debug!(%address, %error, "the refusal was not forgotten"),
    }
}

fn tell_kernel(destination: SocketAddr) -> io::Result<usize> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.send_to(&[], destination)
}
