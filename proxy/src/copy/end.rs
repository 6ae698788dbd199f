//! The two ends of a copy, as a closed list, and what their failures mean.

use std::{
    future::poll_fn,
    io,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{io::AsyncWrite, net::TcpStream};

use super::socket;
use crate::{
    slab::{Size, Slab},
    tls::{
        MeshStream,
        alert::{APPLICATION_FAILED, DENIED, REFUSED},
        stream::alert_of,
    },
};

/// One end of a copy.
#[derive(Debug)]
pub enum End {
    /// Mutual TLS, with its verified peer.
    Mesh(Box<MeshStream>),
    /// A socket without TLS: the own application, or a host outside the mesh.
    Plain(TcpStream),
}

/// How an end failed, as opposed to ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The far sidecar says that its application refused the connection.
    ApplicationRefused,
    /// The stream was cut without an alert: the far sidecar died.
    Cut,
    /// The far sidecar says that policy there does not admit this side.
    Denied,
    /// An invalid record arrived.
    Invalid,
    /// The far sidecar says that its application failed.
    PeerFailed,
    /// The far sidecar refused this side's certificate after the handshake seemed complete.
    Refused,
    /// The socket without TLS was reset, broke or timed out.
    Reset,
}

impl End {
    /// Reads what there is, up to `size`. A slab without any means that this end has ended.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<io::Result<Slab>> {
        match self {
            Self::Mesh(stream) => stream.poll_fill(cx, size),
            Self::Plain(stream) => socket::poll_fill(stream, cx, size),
        }
    }

    /// Writes what is left of the slab, and tells how much was taken.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slab: &mut Slab) -> Poll<io::Result<usize>> {
        match self {
            Self::Mesh(stream) => stream.poll_write(cx, slab),
            Self::Plain(stream) => {
                let written = ready!(socket::poll_write(stream, cx, slab))?;
                slab.advance(written);
                Poll::Ready(Ok(written))
            }
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Mesh(stream) => stream.poll_flush(cx),
            Self::Plain(_) => Poll::Ready(Ok(())),
        }
    }

    /// Passes on that the other end ended.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Mesh(stream) => stream.poll_close_notify(cx),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// The socket, for what the kernel knows of it.
    pub fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Mesh(stream) => stream.socket(),
            Self::Plain(stream) => stream.as_fd(),
        }
    }

    /// How this end fails; `None` if the next thing to come from it is a byte or its end in order. Cancel safe.
    pub async fn next_fault(&mut self) -> Option<Fault> {
        let read = poll_fn(|cx| self.poll_fill(cx, Size::Small)).await;
        read.err().map(|error| self.fault_of(&error))
    }

    /// What it means that this end can no longer be written to and has nothing more to say.
    pub(super) fn gone(&self) -> Fault {
        match self {
            // After the peer's application ended, a cut is the only way left to say that it is gone.
            Self::Mesh(stream) if stream.close_notify_seen() => Fault::PeerFailed,
            Self::Mesh(_) => Fault::Cut,
            Self::Plain(_) => Fault::Reset,
        }
    }

    /// What the end of what it says means, after it could no longer be written to. A socket that was reset is
    /// told so once, to whoever writes, and reads as ended from then on.
    pub(super) fn end_once_lost(&self) -> Result<(), Fault> {
        match self {
            Self::Mesh(_) => Ok(()),
            Self::Plain(_) => Err(Fault::Reset),
        }
    }

    pub(super) fn fault_of(&self, error: &io::Error) -> Fault {
        if matches!(self, Self::Plain(_)) {
            return Fault::Reset;
        }
        match alert_of(error) {
            Some(alert) if alert == APPLICATION_FAILED => Fault::PeerFailed,
            Some(alert) if alert == DENIED => Fault::Denied,
            Some(alert) if alert == REFUSED => Fault::ApplicationRefused,
            Some(_) => Fault::Refused,
            None if error.kind() == io::ErrorKind::InvalidData => Fault::Invalid,
            None => self.gone(),
        }
    }
}
