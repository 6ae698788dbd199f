//! The stream between two sidecars, with the identity it was verified for.

use std::{
    io,
    os::fd::BorrowedFd,
    task::{Context, Poll, ready},
    time::Duration,
};

use ringmail_identity::VerifiedPeer;
use rustls::{AlertDescription, CipherSuite, NamedGroup};
use tokio::net::TcpStream;

use super::{
    record::{RecordError, RecordStream, Sealer},
    reference::ReferenceStream,
};
use crate::slab::{Size, Slab};

/// Who seals and opens the records.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the small one is there to be compared with, the large one is used"
)]
pub(super) enum Layer {
    Records(RecordStream),
    /// Boxed: it is several times larger.
    Reference(Box<ReferenceStream>),
}

/// What was agreed on in the handshake.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    /// The cipher suite.
    pub suite: Option<CipherSuite>,
    /// The key exchange group.
    pub group: Option<NamedGroup>,
}

/// A mutual TLS 1.3 stream. It cannot exist without the peer it was verified for.
#[derive(Debug)]
pub struct MeshStream {
    layer: Layer,
    peer: VerifiedPeer,
    agreed: Agreed,
    took: Duration,
    close_notify_sent: bool,
}

impl MeshStream {
    pub(super) fn new(layer: Layer, peer: VerifiedPeer, agreed: Agreed, took: Duration) -> Self {
        Self { layer, peer, agreed, took, close_notify_sent: false }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &VerifiedPeer {
        &self.peer
    }

    /// How long the handshake took.
    pub fn handshake_took(&self) -> Duration {
        self.took
    }

    /// What was agreed on.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// Whether the peer said that its application ended: what comes after is its failure, not its end.
    pub fn close_notify_seen(&self) -> bool {
        match &self.layer {
            Layer::Records(stream) => stream.ended(),
            Layer::Reference(stream) => stream.ended(),
        }
    }

    /// Whether this side said that its application ended: no alert can follow any more.
    pub fn close_notify_sent(&self) -> bool {
        self.close_notify_sent
    }

    /// The socket, for what the kernel knows of it.
    pub fn socket(&self) -> BorrowedFd<'_> {
        match &self.layer {
            Layer::Records(stream) => stream.socket(),
            Layer::Reference(stream) => stream.socket(),
        }
    }

    /// Reads plaintext. A slab without any means that the peer's application ended.
    ///
    /// # Errors
    /// `UnexpectedEof` where the stream was cut; `InvalidData` for an alert or a record that is none.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<io::Result<Slab>> {
        match &mut self.layer {
            Layer::Records(stream) => stream.poll_fill(cx, size),
            Layer::Reference(stream) => stream.poll_fill(cx, size),
        }
    }

    /// Writes plaintext, and tells how much was taken: what is left in the slab then is to be written again.
    ///
    /// # Errors
    /// The socket's own.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slab: &mut Slab) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Records(stream) => stream.poll_write(cx, slab),
            Layer::Reference(stream) => stream.poll_write(cx, slab),
        }
    }

    /// Puts everything written on the wire.
    ///
    /// # Errors
    /// The socket's own.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Records(stream) => stream.poll_flush(cx),
            Layer::Reference(stream) => stream.poll_flush(cx),
        }
    }

    /// Says that this side's application ended. The socket stays open: a failure may still have to be told.
    ///
    /// # Errors
    /// The socket's own.
    pub fn poll_close_notify(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_notify_sent {
            ready!(self.poll_flush(cx))?;
            self.close_notify_sent = true;
            match &mut self.layer {
                Layer::Records(stream) => stream.say_goodbye().map_err(io::Error::other)?,
                Layer::Reference(stream) => stream.say_goodbye(),
            }
        }
        self.poll_flush(cx)
    }

    /// Gives back what can be made again: nothing has been said for a while.
    pub fn rest(&mut self) {
        match &mut self.layer {
            Layer::Records(stream) => stream.rest(),
            // rustls holds what it holds.
            Layer::Reference(_) => {}
        }
    }

    /// The socket, and what one last record is sealed with. Whatever is not flushed is lost.
    pub(super) fn into_parts(self) -> (TcpStream, Result<Sealer, RecordError>) {
        match self.layer {
            Layer::Records(stream) => {
                let (tcp, sealer) = stream.into_parts();
                (tcp, Ok(sealer))
            }
            Layer::Reference(stream) => stream.into_parts(),
        }
    }

    /// The bare socket, for ends that say nothing more inside the stream.
    pub fn into_tcp(self) -> TcpStream {
        self.into_parts().0
    }
}

/// The alert that an error of [`MeshStream::poll_fill`] carries, if it is one.
pub fn alert_of(error: &io::Error) -> Option<AlertDescription> {
    let inner = error.get_ref()?;
    match (inner.downcast_ref::<RecordError>(), inner.downcast_ref::<rustls::Error>()) {
        (Some(RecordError::Alert { description, .. }), _) => Some(*description),
        (_, Some(rustls::Error::AlertReceived(description))) => Some(*description),
        (_, _) => None,
    }
}
