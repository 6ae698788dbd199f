//! One mutual TLS 1.3 handshake under one deadline, yielding a stream with its verified peer.

use std::{
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use ringmail_identity::{PeerError, VerifiedPeer};
use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{
    material::Credentials,
    stream::{MeshStream, Prefixed},
    verifier::take_verdict,
};
use crate::reason::Reason;

/// Bytes that TLS may keep unsent per connection before the other leg is no longer read: four full
/// records. More only adds memory under a slow reader.
const TLS_SEND_BUFFER: usize = 64 * 1024;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's certificate was refused.
    #[error("peer certificate: {0}")]
    Certificate(PeerError),
    /// The peer left.
    #[error("the peer left during the handshake")]
    Eof,
    /// The socket failed.
    #[error("handshake: {0}")]
    Io(io::Error),
    /// The peer presented no certificate.
    #[error("expected a client certificate, got none")]
    NoCertificate,
    /// The first bytes are not TLS.
    #[error("expected a tls handshake, got plaintext")]
    Plaintext,
    /// Another fault of the protocol.
    #[error("handshake: {0}")]
    Protocol(Error),
    /// The peer refused this side.
    #[error("the peer refused the handshake with alert {0:?}")]
    RefusedByPeer(AlertDescription),
    /// The deadline passed.
    #[error("handshake not complete within {0:?}")]
    TimedOut(Duration),
    /// The peer speaks older versions only.
    #[error("expected tls 1.3, the peer offers older versions only")]
    Version,
}

impl HandshakeError {
    /// The reason for the record.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Certificate(error) => Reason::Certificate(error.reason()),
            Self::Eof => Reason::HandshakeEof,
            Self::Io(_) | Self::Protocol(_) => Reason::HandshakeFailed,
            Self::NoCertificate => Reason::NoClientCertificate,
            Self::Plaintext => Reason::PlaintextRefused,
            Self::RefusedByPeer(_) => Reason::HandshakeRefusedByPeer,
            Self::TimedOut(_) => Reason::HandshakeTimeout,
            Self::Version => Reason::TlsVersionRefused,
        }
    }

    fn from_io(error: io::Error, verdict: Option<Result<VerifiedPeer, PeerError>>) -> Self {
        if let Some(Err(refused)) = verdict {
            return Self::Certificate(refused);
        }
        if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
            return Self::Eof;
        }
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned();
        tls.map_or(Self::Io(error), Self::from_tls)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls's error is open: what has no name here is a protocol fault"
    )]
    fn from_tls(error: Error) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::RefusedByPeer(alert),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload
                | InvalidMessage::MessageTooShort,
            ) => Self::Plaintext,
            Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::Version,
            other => Self::Protocol(other),
        }
    }
}

/// The socket of a failed handshake with the reason, so that the story can end it rightly.
pub type Failed = (HandshakeError, Option<TcpStream>);

/// Serves a handshake. `prefix` holds bytes that were already read from `tcp`.
///
/// # Errors
/// [`HandshakeError`] with the socket, unless the deadline passed.
pub async fn accept(
    tcp: TcpStream,
    prefix: Vec<u8>,
    credentials: &Credentials,
    deadline: Duration,
) -> Result<MeshStream, Failed> {
    let acceptor = TlsAcceptor::from(Arc::clone(&credentials.server));
    let handshake = acceptor
        .accept_with(Prefixed::new(prefix, tcp), |session| session.set_buffer_limit(Some(TLS_SEND_BUFFER)));
    drive(handshake.into_fallible(), deadline, TlsStream::Server).await
}

/// Starts a handshake with the sidecar behind `destination`.
///
/// # Errors
/// [`HandshakeError`] with the socket, unless the deadline passed.
pub async fn connect(
    tcp: TcpStream,
    destination: IpAddr,
    credentials: &Credentials,
    deadline: Duration,
) -> Result<MeshStream, Failed> {
    let connector = TlsConnector::from(Arc::clone(&credentials.client));
    let name = ServerName::IpAddress(destination.into());
    let handshake = connector.connect_with(name, Prefixed::new(Vec::new(), tcp), |session| {
        session.set_buffer_limit(Some(TLS_SEND_BUFFER))
    });
    drive(handshake.into_fallible(), deadline, TlsStream::Client).await
}

async fn drive<S>(
    handshake: impl Future<Output = Result<S, (io::Error, Prefixed)>>,
    deadline: Duration,
    wrap: impl FnOnce(S) -> TlsStream<Prefixed>,
) -> Result<MeshStream, Failed> {
    let started = Instant::now();
    let mut handshake = pin!(handshake);
    let mut verdict = None;
    let watched = poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        if let Some(fresh) = take_verdict() {
            verdict = Some(fresh);
        }
        polled
    });
    match timeout_at(started + deadline, watched).await {
        Ok(Ok(stream)) => match verdict {
            Some(Ok(peer)) => Ok(MeshStream::new(wrap(stream), peer, started.elapsed())),
            Some(Err(refused)) => Err((HandshakeError::Certificate(refused), None)),
            // No verification ran, so nobody is known: never let it pass.
            None => Err((HandshakeError::NoCertificate, None)),
        },
        Ok(Err((error, io))) => Err((HandshakeError::from_io(error, verdict), Some(io.into_inner()))),
        Err(_elapsed) => Err((HandshakeError::TimedOut(deadline), None)),
    }
}
