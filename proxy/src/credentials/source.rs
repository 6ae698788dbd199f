//! Where an SVID comes from: what a source hands out, and why it could not.
//!
//! A source only fetches. Whether what it hands out is ours and trustworthy is judged in one place for
//! all of them, the [`publisher`](super::publisher).

use std::{future::Future, time::Duration};

use ringmail_identity::KeyError;
use zeroize::Zeroizing;

use super::status::RefreshErrorReason;
use crate::control_plane::ServerError;

/// What a source hands out, as PEM and not yet verified.
pub(crate) struct Issued {
    /// The certificates to present, leaf first.
    pub(crate) chain: Vec<u8>,
    /// The leaf's private key.
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// The roots that the source itself names.
    pub(crate) roots: Vec<u8>,
}

/// Someone who issues a new SVID when asked.
pub(crate) trait Source: Send + Sync + 'static {
    /// Asks once, with a new key. Ends within a deadline of its own.
    fn issue(&self) -> impl Future<Output = Result<Issued, IssueError>> + Send;
}

/// Why a source handed out nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    /// The CA's answer does not have the shape of the protocol.
    #[error("ca {ca} answered with {count} certificates, expected the leaf first and the roots last")]
    Answer {
        /// Its address.
        ca: String,
        /// How many entries `cert_chain` had.
        count: usize,
    },
    /// Nothing came in time.
    #[error("ca {ca} did not answer within {} s", after.as_secs())]
    Deadline {
        /// Its address.
        ca: String,
        /// The deadline.
        after: Duration,
    },
    /// No key or signing request.
    #[error("key: {0}")]
    Key(#[from] KeyError),
    /// The CA said no, or failed.
    #[error("ca {ca} answered {code:?}: {message}")]
    Refused {
        /// Its address.
        ca: String,
        /// The gRPC code.
        code: tonic::Code,
        /// Its words, cut to a bound.
        message: String,
    },
    /// No session with the CA.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl IssueError {
    /// Which series it counts in.
    pub(crate) fn reason(&self) -> RefreshErrorReason {
        match self {
            Self::Answer { .. } => RefreshErrorReason::Malformed,
            Self::Deadline { .. } => RefreshErrorReason::Deadline,
            Self::Key(_) => RefreshErrorReason::Key,
            Self::Refused { code, .. } if denies(*code) => RefreshErrorReason::Denied,
            Self::Refused { .. } => RefreshErrorReason::CaFailed,
            Self::Server(error) => match error {
                ServerError::Roots { .. } => RefreshErrorReason::Roots,
                ServerError::Tls { .. } => RefreshErrorReason::CaTls,
                ServerError::Token(_) => RefreshErrorReason::Token,
                ServerError::Transport { .. } => RefreshErrorReason::CaFailed,
                ServerError::Unreachable { .. } => RefreshErrorReason::CaUnreachable,
            },
        }
    }
}

/// Whether a gRPC code says that asking again in the same way will not help.
fn denies(code: tonic::Code) -> bool {
    matches!(
        code,
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied | tonic::Code::InvalidArgument
    )
}
