//! One mutual TLS 1.3 handshake under one deadline, yielding a stream with its verified peer.

mod buffered;
mod turn;
mod unbuffered;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use ringmail_identity::{PeerError, VerifiedPeer};
use rustls::{
    AlertDescription, Error, InvalidMessage, PeerIncompatible, client::UnbufferedClientConnection,
    pki_types::ServerName, server::UnbufferedServerConnection,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use self::unbuffered::{Complete, Failure, Side, drive};
use super::{
    material::Credentials,
    record::RecordStream,
    stream::{Agreed, Layer, MeshStream},
};
use crate::{config::RecordLayer, reason::Reason};

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

    fn of(Failure { error, is_tls, verdict }: Failure) -> Self {
        if let Some(Err(refused)) = verdict {
            return Self::Certificate(refused);
        }
        if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
            return Self::Eof;
        }
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned();
        tls.map_or(Self::Io(error), |tls| Self::from_tls(tls, is_tls))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls's error is open: what has no name here is a protocol fault"
    )]
    fn from_tls(error: Error, is_tls: bool) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::RefusedByPeer(alert),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload
                | InvalidMessage::MessageTooShort,
            ) if !is_tls => Self::Plaintext,
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                // Which 1.3 cannot do without, and clients before 1.2 do not know.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired
                | PeerIncompatible::SupportedVersionsExtensionRequired
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
    let config = Arc::clone(&credentials.server);
    match credentials.layer {
        RecordLayer::Own => own(tcp, prefix, UnbufferedServerConnection::new(config), deadline).await,
        RecordLayer::Rustls => within(deadline, buffered::accept(tcp, prefix, config)).await,
    }
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
    let config = Arc::clone(&credentials.client);
    let name = ServerName::IpAddress(destination.into());
    match credentials.layer {
        RecordLayer::Own => {
            own(tcp, Vec::new(), UnbufferedClientConnection::new(config, name), deadline).await
        }
        RecordLayer::Rustls => within(deadline, buffered::connect(tcp, name, config)).await,
    }
}

/// A complete handshake, whoever did it.
struct Shaken {
    layer: Layer,
    agreed: Agreed,
    verdict: Option<Result<VerifiedPeer, PeerError>>,
}

/// A failed one, with what is left of the socket.
type Broken = (Failure, TcpStream);

async fn own<S: Side>(
    tcp: TcpStream,
    prefix: Vec<u8>,
    side: Result<S, Error>,
    deadline: Duration,
) -> Result<MeshStream, Failed> {
    match side {
        Ok(side) => within(deadline, unbuffered(tcp, prefix, side)).await,
        Err(error) => Err((HandshakeError::Protocol(error), Some(tcp))),
    }
}

async fn unbuffered<S: Side>(mut tcp: TcpStream, prefix: Vec<u8>, side: S) -> Result<Shaken, Broken> {
    match drive(&mut tcp, side, prefix).await {
        Err(failure) => Err((failure, tcp)),
        Ok(Complete { secrets, agreed, verdict }) => match RecordStream::new(tcp, secrets) {
            Ok(stream) => Ok(Shaken { layer: Layer::Records(stream), agreed, verdict }),
            Err((error, tcp)) => {
                let error = io::Error::other(error);
                Err((Failure { error, is_tls: true, verdict: None }, tcp))
            }
        },
    }
}

async fn within(
    deadline: Duration,
    handshake: impl Future<Output = Result<Shaken, Broken>>,
) -> Result<MeshStream, Failed> {
    let started = Instant::now();
    match timeout_at(started + deadline, handshake).await {
        Ok(Ok(Shaken { layer, agreed, verdict })) => match verdict {
            Some(Ok(peer)) => Ok(MeshStream::new(layer, peer, agreed, started.elapsed())),
            Some(Err(refused)) => Err((HandshakeError::Certificate(refused), None)),
            // No verification ran, so nobody is known: never let it pass.
            None => Err((HandshakeError::NoCertificate, None)),
        },
        Ok(Err((failure, tcp))) => Err((HandshakeError::of(failure), Some(tcp))),
        Err(_elapsed) => Err((HandshakeError::TimedOut(deadline), None)),
    }
}
