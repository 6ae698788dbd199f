//! Why a story ended before its connection was established, and what that means for the other side.

use std::{io, time::Duration};

use ringmail_identity::SpiffeId;
use ringmail_policy::Origin;
use rustls::AlertDescription;

use crate::{
    connect::ConnectError,
    orig_dst::OrigDstError,
    reason::Reason,
    route::RouteError,
    tls::{
        HandshakeError,
        alert::{APPLICATION_FAILED, DENIED, REFUSED},
    },
};

/// A step of a story that could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The next hop could not be dialled.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Policy does not admit the peer.
    #[error("{} is denied: {decided_by}", .identity.as_ref().map_or("a peer without identity", SpiffeId::as_str))]
    Denied {
        /// Who asked.
        identity: Option<SpiffeId>,
        /// What decided.
        decided_by: Origin,
    },
    /// A change ended it before anybody had said a word.
    #[error("ended before a word was said")]
    Ended(Reason),
    /// The application may be a cluster of its own.
    #[error("the application was cut off for {:.1} s and has not restarted since", .0.as_secs_f64())]
    Fenced(Duration),
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// No certificate is held.
    #[error("no certificate yet, waited {0:?}")]
    NoCredentials(Duration),
    /// No policies have arrived.
    #[error("no policies yet: inbound is closed until the first complete set")]
    NoPolicy,
    /// There is no destination that may be dialled.
    #[error(transparent)]
    OrigDst(#[from] OrigDstError),
    /// The connection goes nowhere.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A socket failed between two steps.
    #[error("socket: {0}")]
    Socket(io::Error),
}

impl Refusal {
    /// The reason for the record.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Denied { .. } => Reason::PolicyDenied,
            Self::Ended(reason) => *reason,
            Self::Fenced(_) => Reason::Fenced,
            Self::Handshake(error) => error.reason(),
            Self::NoCredentials(_) => Reason::NoCredentials,
            Self::NoPolicy => Reason::NoPolicy,
            Self::OrigDst(error) => error.reason(),
            Self::Route(error) => error.reason(),
            Self::Socket(_) => Reason::RemoteReset,
        }
    }

    /// What the far sidecar is told inside the stream.
    pub fn alert(&self) -> AlertDescription {
        match self {
            // Of a route only the peer's identity is judged once there is a stream.
            Self::Denied { .. } | Self::Route(_) => DENIED,
            Self::Connect(ConnectError::Refused { .. }) => REFUSED,
            Self::Connect(
                ConnectError::Failed { .. }
                | ConnectError::Reset { .. }
                | ConnectError::TimedOut { .. }
                | ConnectError::Unreachable { .. },
            )
            | Self::Ended(_)
            | Self::Fenced(_)
            | Self::Handshake(_)
            | Self::NoCredentials(_)
            | Self::NoPolicy
            | Self::OrigDst(_)
            | Self::Socket(_) => APPLICATION_FAILED,
        }
    }

    /// Whether rustls has told a peer that speaks TLS what is wrong: a reset could overtake that.
    pub fn alert_was_sent(&self) -> bool {
        match self {
            Self::Handshake(error) => match error {
                HandshakeError::Certificate(_)
                | HandshakeError::NoCertificate
                | HandshakeError::Protocol(_)
                | HandshakeError::Version => true,
                HandshakeError::Eof
                | HandshakeError::Io(_)
                | HandshakeError::Plaintext
                | HandshakeError::RefusedByPeer(_)
                | HandshakeError::TimedOut(_) => false,
            },
            Self::Connect(_)
            | Self::Denied { .. }
            | Self::Ended(_)
            | Self::Fenced(_)
            | Self::NoCredentials(_)
            | Self::NoPolicy
            | Self::OrigDst(_)
            | Self::Route(_)
            | Self::Socket(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_not_who_it_should_be_is_told_that_it_is_denied() {
        let got: SpiffeId = "spiffe://cluster.local/ns/ignite/sa/other".parse().unwrap();
        let mismatch = RouteError::Identity {
            destination: "10.0.0.7:47500".parse().unwrap(),
            expected: ["spiffe://cluster.local/ns/ignite/sa/node".parse().unwrap()].into(),
            got,
        };
        assert_eq!(Refusal::from(mismatch).alert(), DENIED);
        assert_eq!(Refusal::Ended(Reason::Fenced).alert(), APPLICATION_FAILED);
    }
}
