//! The stream between two sidecars, with the identity it was verified for.

use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use ringmail_identity::VerifiedPeer;
use rustls::{AlertDescription, CipherSuite, NamedGroup, ProtocolVersion};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

/// A socket whose first bytes were already read: they are given out again before the socket's own.
#[derive(Debug)]
pub struct Prefixed {
    prefix: Vec<u8>,
    given: usize,
    tcp: TcpStream,
}

impl Prefixed {
    pub(super) fn new(prefix: Vec<u8>, tcp: TcpStream) -> Self {
        Self { prefix, given: 0, tcp }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.tcp
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given < self.prefix.len() {
            let rest = &self.prefix[self.given..];
            let taken = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..taken]);
            self.given += taken;
            if self.given == self.prefix.len() {
                self.prefix = Vec::new();
                self.given = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A mutual TLS stream. It cannot exist without the peer it was verified for.
#[derive(Debug)]
pub struct MeshStream {
    tls: TlsStream<Prefixed>,
    peer: VerifiedPeer,
    took: Duration,
    close_notify_sent: bool,
    close_notify_seen: bool,
    /// A failure that came together with bytes, which are read first.
    failed: Option<io::Error>,
}

impl MeshStream {
    pub(super) fn new(tls: TlsStream<Prefixed>, peer: VerifiedPeer, took: Duration) -> Self {
        Self { tls, peer, took, close_notify_sent: false, close_notify_seen: false, failed: None }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &VerifiedPeer {
        &self.peer
    }

    /// How long the handshake took.
    pub fn handshake_took(&self) -> Duration {
        self.took
    }

    /// Whether the peer said that its application ended: what comes after is its failure, not its end.
    pub fn close_notify_seen(&self) -> bool {
        self.close_notify_seen
    }

    /// Whether this side said that its application ended: no alert can follow any more.
    pub fn close_notify_sent(&self) -> bool {
        self.close_notify_sent
    }

    /// The protocol version, always TLS 1.3.
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.tls.get_ref().1.protocol_version()
    }

    /// The cipher suite that was agreed on.
    pub fn cipher_suite(&self) -> Option<CipherSuite> {
        self.tls.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite())
    }

    /// The key exchange group that was agreed on.
    pub fn key_exchange_group(&self) -> Option<NamedGroup> {
        self.tls.get_ref().1.negotiated_key_exchange_group().map(|group| group.name())
    }

    /// The socket, for what the kernel knows of it.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.tls.get_ref().0.tcp.as_fd()
    }

    /// Reads plaintext. `Ok` with nothing added means that the peer's application ended.
    ///
    /// # Errors
    /// `UnexpectedEof` where the stream was cut; `InvalidData` for an alert or a record that is none.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match self.failed.take() {
            Some(error) => Err(error),
            None => ready!(Pin::new(&mut self.tls).poll_read(cx, buf)),
        };
        let Err(error) = read else {
            self.close_notify_seen |= buf.filled().len() == before;
            return Poll::Ready(Ok(()));
        };
        self.take_decrypted(buf);
        if buf.filled().len() == before {
            return Poll::Ready(Err(error));
        }
        self.failed = Some(error);
        Poll::Ready(Ok(()))
    }

    /// What was decrypted before the stream failed: an alert that arrives in one read with the last words of
    /// the far application, or a reset after them, must not take them away.
    fn take_decrypted(&mut self, buf: &mut ReadBuf<'_>) {
        let mut reader = match &mut self.tls {
            TlsStream::Client(stream) => stream.get_mut().1.reader(),
            TlsStream::Server(stream) => stream.get_mut().1.reader(),
        };
        // Nothing left is an error to a reader that has not seen the end.
        let taken = reader.read(buf.initialize_unfilled()).unwrap_or(0);
        buf.advance(taken);
    }

    /// Writes plaintext.
    ///
    /// # Errors
    /// The socket's own.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    /// Puts everything written on the wire.
    ///
    /// # Errors
    /// The socket's own.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    /// Says that this side's application ended. The socket stays open: a failure may still have to be told.
    ///
    /// # Errors
    /// The socket's own.
    pub fn poll_close_notify(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_notify_sent {
            self.close_notify_sent = true;
            match &mut self.tls {
                TlsStream::Client(stream) => stream.get_mut().1.send_close_notify(),
                TlsStream::Server(stream) => stream.get_mut().1.send_close_notify(),
            }
        }
        self.poll_flush(cx)
    }

    pub(super) fn into_parts(self) -> (TcpStream, rustls::Connection) {
        match self.tls {
            TlsStream::Client(stream) => {
                let (io, session) = stream.into_inner();
                (io.into_inner(), session.into())
            }
            TlsStream::Server(stream) => {
                let (io, session) = stream.into_inner();
                (io.into_inner(), session.into())
            }
        }
    }

    /// The bare socket, for ends that say nothing more inside the stream.
    pub fn into_tcp(self) -> TcpStream {
        self.into_parts().0
    }
}

/// The alert that an error of [`MeshStream::poll_read`] carries, if it is one.
pub fn alert_of(error: &io::Error) -> Option<AlertDescription> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    if let rustls::Error::AlertReceived(alert) = tls { Some(*alert) } else { None }
}
