//! How the load's sockets are made: no waiting for more to send, and no connection left in TIME_WAIT.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// A proxy that cannot keep up is to show in the figures, not as refused connections.
const BACKLOG: i32 = 4096;

/// A connection that takes longer is an outage, not a sample.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// A read that waits longer is an outage as well.
const READ_DEADLINE: Duration = Duration::from_secs(20);

/// Listens on all addresses of the pod.
pub(super) fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into()).with_context(|| format!("bind {port}"))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Opens a blocking connection with deadlines, which is reset when it is dropped.
pub(super) fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&to, CONNECT_DEADLINE).with_context(|| format!("connect to {to}"))?;
    prepare(&stream)?;
    stream.set_read_timeout(Some(READ_DEADLINE))?;
    stream.set_write_timeout(Some(READ_DEADLINE))?;
    Ok(stream)
}

/// Begins to open a connection without waiting; it is reset when it is dropped.
pub(crate) fn begin_connect(to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
            return Err(error).with_context(|| format!("connect to {to}"));
        }
        Ok(()) | Err(_) => {}
    }
    let stream = TcpStream::from(socket);
    prepare(&stream)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Waits for events; an error after so long without any says how long.
pub(crate) fn wait(epoll: &Epoll, events: &mut [EpollEvent], patience: Duration) -> Result<usize> {
    let timeout = EpollTimeout::try_from(patience).context("the time of patience")?;
    loop {
        match epoll.wait(events, timeout) {
            Ok(0) => bail!("nothing came back within {patience:?}"),
            Ok(ready) => return Ok(ready),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for connections"),
        }
    }
}
