//! Dialling the next hop, with a deadline above the application's own.
//!
//! The application gives up first and by its own rules; this deadline only bounds what a forgotten
//! dial may hold.
//!
//! To the own application the way is the loopback, whose segments are as long as a window of 64 KiB. An application
//! with a window of that size (Ignite asks for a buffer of 32 KiB) would be written to at the pace of a timer, five
//! times a second, from the moment on in which its window is a little shorter than a segment: TCP does not cut one
//! that it has made before it has waited. So segments to the application are as short as those that a network gives.

use std::{io, net::SocketAddr, time::Duration};

use nix::errno::Errno;
use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{config::Config, ending, keepalive, reason::Reason};

/// Bytes of a segment to the own application: those of an Ethernet, on which every window works. The loopback
/// carries many of them as one packet.
const APPLICATION_SEGMENT: u32 = 1460;

/// Who is dialled: it decides on the segments, and on what a reset by it is called.
#[derive(Clone, Copy, Debug)]
pub enum Hop {
    /// This pod's own application.
    Application,
    /// Whoever is dialled without TLS.
    Outside,
    /// The sidecar of another pod.
    Sidecar,
}

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
    /// It took the connection, and had reset it before the dial was over: TCP says that nothing listens in another way.
    #[error("dial {destination}: taken, and reset at once")]
    Reset {
        /// What was dialled.
        destination: SocketAddr,
        /// Who was dialled.
        hop: Hop,
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
            // As if it had been a moment later.
            Self::Reset { hop, .. } => match hop {
                Hop::Application => Reason::ApplicationReset,
                Hop::Outside => Reason::RemoteReset,
                Hop::Sidecar => Reason::HandshakeEof,
            },
            Self::TimedOut { .. } => Reason::DialTimeout,
            Self::Unreachable { .. } => Reason::DialUnreachable,
        }
    }

    fn from_io(hop: Hop, destination: SocketAddr, deadline: Duration, source: io::Error) -> Self {
        let errno = source.raw_os_error().map(Errno::from_raw);
        match errno {
            Some(Errno::ECONNREFUSED) => Self::Refused { destination },
            // The latter where it ended the connection before it reset it.
            Some(Errno::ECONNRESET | Errno::EPIPE) => Self::Reset { destination, hop },
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
pub async fn dial(hop: Hop, destination: SocketAddr, config: &Config) -> Result<TcpStream, ConnectError> {
    let failed = |source| ConnectError::Failed { destination, source };
    let deadline = config.connect_timeout;
    let socket = if destination.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(failed)?;
    if let Hop::Application = hop {
        SockRef::from(&socket).set_tcp_mss(APPLICATION_SEGMENT).map_err(failed)?;
    }
    let stream = match timeout(deadline, socket.connect(destination)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(ConnectError::from_io(hop, destination, deadline, error)),
        Err(_elapsed) => return Err(ConnectError::TimedOut { destination, deadline }),
    };
    let stream = not_with_itself(stream, destination)?;
    prepare(&SockRef::from(&stream), config).map_err(failed)?;
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
    keepalive::set(socket, config)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, TcpListener, TcpStream as Blocking},
        thread,
        time::Instant,
    };

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// What Ignite asks for, on both ends of its connections.
    const IGNITES_BUFFER: usize = 32 << 10;

    /// More than fits into all buffers between two applications, so that the window decides.
    const BULK: usize = 8 << 20;

    /// An application with this receive buffer, and a connection to it.
    async fn application(buffer: usize) -> (Blocking, Blocking) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(buffer).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(1).unwrap();
        let listener = TcpListener::from(socket);
        let config = Config::from_text("test.yaml", "").unwrap();
        let dialled = dial(Hop::Application, listener.local_addr().unwrap(), &config).await.unwrap();
        let dialled = dialled.into_std().unwrap();
        dialled.set_nonblocking(false).unwrap();
        (dialled, listener.accept().unwrap().0)
    }

    /// How long it takes to write [`BULK`] to a reader that takes what there is.
    fn bulk(mut writer: &Blocking, mut reader: &Blocking) -> Duration {
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(move || writer.write_all(&vec![7; BULK]).unwrap());
            reader.read_exact(&mut vec![0; BULK]).unwrap();
        });
        began.elapsed()
    }

    #[tokio::test]
    async fn an_application_whose_window_became_small_is_written_to_without_waiting_for_a_timer() {
        let (dialled, accepted) = application(IGNITES_BUFFER).await;
        bulk(&dialled, &accepted);
        SockRef::from(&accepted).set_recv_buffer_size(IGNITES_BUFFER / 4).unwrap();
        // A timer of 200 ms with every window of some 10 KiB takes minutes.
        let took = bulk(&dialled, &accepted);
        assert!(took < Duration::from_secs(10), "{BULK} bytes took {took:?}");
    }

    #[tokio::test]
    async fn a_reset_before_the_dial_is_over_is_one_of_whoever_was_dialled() {
        let rows = [
            (Hop::Application, Reason::ApplicationReset),
            (Hop::Outside, Reason::RemoteReset),
            (Hop::Sidecar, Reason::HandshakeEof),
        ];
        let config = Config::from_text("test.yaml", "").unwrap();
        for (hop, reason) in rows {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut dialling = Box::pin(dial(hop, listener.local_addr().unwrap(), &config));
            // Once, so that the connection is there and nobody has looked at it.
            tokio::select! {
                biased;
                over = &mut dialling => panic!("{over:?}"),
                () = std::future::ready(()) => {}
            }
            let accepted = listener.accept().unwrap().0;
            SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).unwrap();
            drop(accepted);
            assert_eq!(dialling.await.unwrap_err().reason(), reason, "{hop:?}");
        }
    }

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
