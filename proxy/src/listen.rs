//! Listeners, and the loop that accepts.
//!
//! Sockets are bound before anything slow happens and carry every option once, so that an accepted
//! connection costs no further call but one for the turn that it asks in ([`crate::keepalive`]). A failing accept never spins: out of descriptors it waits and
//! says so.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{task::yield_now, time::sleep};

use crate::{
    config::Config,
    connect,
    limits::{Limits, Permit},
    orig_dst::canonical,
    record::Direction,
    sys,
};

/// Connections that may wait to be accepted: enough for a ring that reconnects at once while the data
/// plane is being started again. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Connections that are accepted, or begun, between two looks at the sockets. Each keeps its worker for some
/// twenty microseconds: of hundreds in a row, an established connection would notice.
const BEGUN_AT_ONCE: u32 = 2;

/// How long accepting rests when the system is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Why the proxy cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Every listening socket of the proxy, by what it serves. Each has one socket per address family.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Captured connections of this pod's application.
    pub outbound: Vec<TcpListener>,
    /// Captured connections to this pod.
    pub inbound: Vec<TcpListener>,
    /// The admin endpoints, on loopback only.
    pub admin: Vec<TcpListener>,
    /// Metrics and readiness for Prometheus and the kubelet.
    pub stats: Vec<TcpListener>,
    /// Readiness alone.
    pub health: Vec<TcpListener>,
    /// Metrics where Linkerd has them.
    pub linkerd: Vec<TcpListener>,
}

impl Sockets {
    /// Binds every port of the settings on IPv4, and on IPv6 where the pod has it.
    ///
    /// # Errors
    /// [`ListenError`], which names the address.
    pub fn bind(config: &Config) -> Result<Self, ListenError> {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let bind = |addresses: [IpAddr; 2], port: u16| bind_families(addresses, port, config);
        Ok(Self {
            outbound: bind(any, config.outbound_port)?,
            inbound: bind(any, config.inbound_port)?,
            admin: bind(loopback, config.admin_port)?,
            stats: bind(any, config.stats_port)?,
            health: bind(any, config.health_port)?,
            linkerd: bind(any, config.linkerd_admin_port)?,
        })
    }
}

fn bind_families(
    addresses: [IpAddr; 2],
    port: u16,
    config: &Config,
) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for ip in addresses {
        let address = SocketAddr::new(ip, port);
        match bind_one(address, config) {
            Ok(listener) => listeners.push(listener),
            Err(error) if ip.is_ipv6() && has_no_ipv6(&error) => {}
            Err(source) => return Err(ListenError { address, source }),
        }
    }
    Ok(listeners)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EPROTONOSUPPORT)
    )
}

fn bind_one(address: SocketAddr, config: &Config) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    connect::prepare(&SockRef::from(&socket), config)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A connection that was accepted and is not yet known to any runtime.
#[derive(Debug)]
pub struct Accepted {
    /// Which way it goes.
    pub direction: Direction,
    /// Its socket, non-blocking.
    pub stream: TcpStream,
    /// Who connected.
    pub source: SocketAddr,
    /// Its place among the connections.
    pub permit: Permit,
}

/// Counts connections that begin, and lets everything else have its turn after every few.
#[derive(Debug, Default)]
pub struct Manners {
    in_a_row: u32,
}

impl Manners {
    /// One more has begun.
    pub async fn after_one(&mut self) {
        self.in_a_row += 1;
        if self.in_a_row == BEGUN_AT_ONCE {
            self.in_a_row = 0;
            yield_now().await;
        }
    }
}

/// Accepts for ever and hands every connection on. Needs a runtime with I/O.
///
/// # Errors
/// Only where the runtime cannot watch the listener.
pub async fn accept_all(
    listener: TcpListener,
    direction: Direction,
    limits: Arc<Limits>,
    hand_over: impl Fn(Accepted),
) -> io::Result<()> {
    let listener = sys::watch(listener)?;
    let mut manners = Manners::default();
    loop {
        // First the connection, then its place: a listener that nobody dials would keep one from the others.
        let mut ready = listener.readable().await?;
        let permit = limits.admit().await;
        match ready.try_io(|listener| accept_one(listener.get_ref())) {
            Ok(Ok((stream, source))) => {
                hand_over(Accepted { direction, stream, source: canonical(source), permit });
                manners.after_one().await;
            }
            Ok(Err(error)) => rest_after(&error, direction, &limits).await,
            Err(_would_block) => {}
        }
    }
}

fn accept_one(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    // The standard library sets close-on-exec; non-blocking is not inherited on Linux.
    let (stream, source) = listener.accept()?;
    stream.set_nonblocking(true)?;
    Ok((stream, source))
}

async fn rest_after(error: &io::Error, direction: Direction, limits: &Limits) {
    match error.raw_os_error().map(Errno::from_raw) {
        // The client gave up while it waited: there is nothing to wait for.
        Some(Errno::ECONNABORTED | Errno::EINTR | Errno::EPROTO) => {}
        Some(_) | None => {
            limits.counters().paused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                direction = direction.as_str(),
                %error,
                "accepting rests; raise the descriptor or memory limit of the sidecar if this stays"
            );
            sleep(EXHAUSTED_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn an_idle_listener_takes_no_place_from_the_others() {
        let config = Config::from_text("test.yaml", "").unwrap();
        let limits = Limits::new(&config, 1);
        let (accepted, mut accepts) = mpsc::unbounded_channel();
        let directions = [Direction::Outbound, Direction::Inbound];
        let listeners = directions.map(|_| bind_one(([127, 0, 0, 1], 0).into(), &config).unwrap());
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        for (listener, direction) in listeners.into_iter().zip(directions) {
            let (limits, accepted) = (Arc::clone(&limits), accepted.clone());
            tokio::spawn(accept_all(listener, direction, limits, move |next| accepted.send(next).unwrap()));
        }
        // Each is dialled twice in a row: a place that goes round among the listeners is not enough.
        for dialled in [1, 1, 0, 0, 1] {
            let _client = TcpStream::connect(addresses[dialled]).unwrap();
            let next = timeout(PATIENCE, accepts.recv()).await.expect("nothing was accepted").unwrap();
            assert_eq!((next.direction, limits.open()), (directions[dialled], 1));
        }
    }

    #[tokio::test]
    async fn a_connection_beyond_the_total_waits_for_a_place() {
        let config = Config::from_text("test.yaml", "").unwrap();
        let limits = Limits::new(&config, 1);
        let (accepted, mut accepts) = mpsc::unbounded_channel();
        let listener = bind_one(([127, 0, 0, 1], 0).into(), &config).unwrap();
        let address = listener.local_addr().unwrap();
        let hand_over = move |next| accepted.send(next).unwrap();
        tokio::spawn(accept_all(listener, Direction::Inbound, Arc::clone(&limits), hand_over));
        let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        let first = timeout(PATIENCE, accepts.recv()).await.unwrap().unwrap();
        assert!(timeout(Duration::from_millis(200), accepts.recv()).await.is_err());
        assert_eq!(limits.counters().paused.load(Ordering::Relaxed), 1);
        drop(first);
        timeout(PATIENCE, accepts.recv()).await.expect("the second one was not accepted").unwrap();
    }
}
