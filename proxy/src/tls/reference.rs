//! The reference: the same connection through rustls's own buffered stream.
//!
//! It is slower, and its author's word on every record is what the record layer is compared with.

use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::Connection;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use super::{
    beginning::Beginning,
    record::{RecordError, Sealer},
};
use crate::slab::{Size, Slab};

/// A socket whose first bytes were already read: they are given out again before the socket's own.
#[derive(Debug)]
pub(super) struct Prefixed {
    prefix: Vec<u8>,
    given: usize,
    beginning: Beginning,
    tcp: TcpStream,
}

impl Prefixed {
    pub(super) fn new(prefix: Vec<u8>, tcp: TcpStream) -> Self {
        Self { prefix, given: 0, beginning: Beginning::default(), tcp }
    }

    /// Whether what was read so far began as TLS does.
    pub(super) fn begins_as_tls(&self) -> bool {
        self.beginning.is_tls()
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
            let this = &mut *self;
            this.beginning.hear(&this.prefix[this.given - taken..this.given]);
            if self.given == self.prefix.len() {
                self.prefix = Vec::new();
                self.given = 0;
            }
            return Poll::Ready(Ok(()));
        }
        let had = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.beginning.hear(&buf.filled()[had..]);
        read
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

/// A connection sealed by rustls.
#[derive(Debug)]
pub(super) struct ReferenceStream {
    tls: TlsStream<Prefixed>,
    ended: bool,
    /// A failure that came together with bytes, which are read first.
    failed: Option<io::Error>,
}

impl ReferenceStream {
    pub(super) fn new(tls: TlsStream<Prefixed>) -> Self {
        Self { tls, ended: false, failed: None }
    }

    /// Reads plaintext: a slab without any means that the peer's application ended.
    ///
    /// # Errors
    /// `UnexpectedEof` where the stream was cut; `InvalidData` for an alert or a record that is none.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<io::Result<Slab>> {
        let mut slab = Slab::lend(size);
        let room = slab.memory_mut().len();
        let mut buf = ReadBuf::new(slab.memory_mut());
        let read = match self.failed.take() {
            Some(error) => Err(error),
            None => ready!(Pin::new(&mut self.tls).poll_read(cx, &mut buf)),
        };
        if read.is_err() {
            take_decrypted(&mut self.tls, &mut buf);
        }
        let got = buf.filled().len();
        match read {
            Err(error) if got == 0 => return Poll::Ready(Err(error)),
            Err(error) => self.failed = Some(error),
            Ok(()) => self.ended |= got == 0,
        }
        slab.push(0..got);
        slab.set_full(got == room);
        Poll::Ready(Ok(slab))
    }

    /// Writes what is left of the slab, as far as rustls takes it.
    ///
    /// # Errors
    /// The socket's own.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slab: &mut Slab) -> Poll<io::Result<usize>> {
        let mut written = 0;
        while !slab.is_empty() {
            match Pin::new(&mut self.tls).poll_write(cx, slab.first_piece()) {
                Poll::Ready(Ok(part)) => {
                    slab.advance(part);
                    written += part;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if written == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(written))
    }

    /// Puts everything written on the wire.
    ///
    /// # Errors
    /// The socket's own.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    pub(super) fn say_goodbye(&mut self) {
        match &mut self.tls {
            TlsStream::Client(stream) => stream.get_mut().1.send_close_notify(),
            TlsStream::Server(stream) => stream.get_mut().1.send_close_notify(),
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.tls.get_ref().0.tcp.as_fd()
    }

    /// The socket, and what one more record is sealed with: rustls sends alerts for its own faults only.
    pub(super) fn into_parts(self) -> (TcpStream, Result<Sealer, RecordError>) {
        let (io, session): (Prefixed, Connection) = match self.tls {
            TlsStream::Client(stream) => {
                let (io, session) = stream.into_inner();
                (io, session.into())
            }
            TlsStream::Server(stream) => {
                let (io, session) = stream.into_inner();
                (io, session.into())
            }
        };
        (io.into_inner(), Sealer::taking_over(session))
    }
}

/// What was decrypted before the stream failed: an alert that arrives in one read with the last words of the far
/// application, or a reset after them, must not take them away.
fn take_decrypted(tls: &mut TlsStream<Prefixed>, buf: &mut ReadBuf<'_>) {
    let mut reader = match tls {
        TlsStream::Client(stream) => stream.get_mut().1.reader(),
        TlsStream::Server(stream) => stream.get_mut().1.reader(),
    };
    // Nothing left is an error to a reader that has not seen the end.
    let taken = reader.read(buf.initialize_unfilled()).unwrap_or(0);
    buf.advance(taken);
}
