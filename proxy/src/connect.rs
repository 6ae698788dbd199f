//! Dialling the next hop, with a deadline above the application's own.
//!
//! The application gives up first and by its own rules; this deadline only bounds what a forgotten
//! dial may hold.

use std::{io, net::SocketAddr, time::Duration};

use nix::errno::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};

use crate::{config::Config, ending, reason::Reason};

/// Why the next hop could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The system gave another error.
    #[error("dial {destination}: {source}")]
    Failed {
        /// What was dialled.
        destination: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing listens there.
    #[error("dial {destination}: refused")]
    Refused {
        /// What was dialled.
        destination: SocketAddr,
    },
    /// No answer came.
    #[error("dial {destination}: no answer within {deadline:?}")]
    TimedOut {
        /// What was dialled.
        destination: SocketAddr,
        /// How long was waited.
        deadline: Duration,
    },
    /// There is no way there.
    #[error("dial {destination}: {source}")]
    Unreachable {
        /// What was dialled.
        destination: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl ConnectError {
    /// The reason for the record.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Failed { .. } => Reason::DialFailed,
            Self::Refused { .. } => Reason::DialRefused,
            Self::TimedOut { .. } => Reason::DialTimeout,
            Self::Unreachable { .. } => Reason::DialUnreachable,
        }
    }

    fn from_io(destination: SocketAddr, deadline: Duration, source: io::Error) -> Self {
        let errno = source.raw_os_error().map(Errno::from_raw);
        match errno {
            Some(Errno::ECONNREFUSED) => Self::Refused { destination },
            Some(Errno::ETIMEDOUT) => Self::TimedOut { destination, deadline },
            Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::ENETDOWN) => {
                Self::Unreachable { destination, source }
            }
            Some(_) | None => Self::Failed { destination, source },
        }
    }
}

/// Dials `destination` within the settings' connect deadline and prepares the socket.
///
/// # Errors
/// [`ConnectError`], which names the destination.
pub async fn dial(destination: SocketAddr, config: &Config) -> Result<TcpStream, ConnectError> {
    let deadline = config.connect_timeout;
    let stream = match timeout(deadline, TcpStream::connect(destination)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(ConnectError::from_io(destination, deadline, error)),
        Err(_elapsed) => return Err(ConnectError::TimedOut { destination, deadline }),
    };
    let stream = not_with_itself(stream, destination)?;
    prepare(&SockRef::from(&stream), config)
        .map_err(|source| ConnectError::Failed { destination, source })?;
    Ok(stream)
}

/// Refuses a stream that is connected with itself. The kernel may give the dial of an own address that very port as
/// its source, if it is an ephemeral one and nobody listens on it, and TCP then connects the socket with itself.
/// Reset, because the port would otherwise be taken for a minute, and the application could not start on it.
fn not_with_itself(stream: TcpStream, destination: SocketAddr) -> Result<TcpStream, ConnectError> {
    if stream.local_addr().is_ok_and(|local| local == destination) {
        ending::reset(stream);
        return Err(ConnectError::Refused { destination });
    }
    Ok(stream)
}

/// Options every leg has: small messages leave at once, and a peer that vanished while the connection
/// was idle is noticed. Set on a listener, they are inherited by what it accepts.
///
/// # Errors
/// What `setsockopt` reports.
pub fn prepare(socket: &SockRef<'_>, config: &Config) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(config.keepalive_time)
        .with_interval(config.keepalive_interval)
        .with_retries(config.keepalive_probes);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test]
    async fn a_dial_that_meets_itself_is_refused_and_leaves_the_port_free() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let itself = socket.local_addr().unwrap();
        let stream = socket.connect(itself).await.unwrap();
        assert!(matches!(not_with_itself(stream, itself), Err(ConnectError::Refused { .. })));
        TcpListener::bind(itself).unwrap();
    }

    #[tokio::test]
    async fn a_dial_that_meets_a_listener_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let stream = TcpStream::connect(there).await.unwrap();
        not_with_itself(stream, there).unwrap();
    }
}
