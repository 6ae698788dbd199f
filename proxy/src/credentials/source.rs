//! Where an SVID comes from: what a source hands out, and why it could not.
//!
//! A source only fetches. Whether what it hands out is ours and trustworthy is judged in one place for
//! all of them, the [`publisher`](super::publisher).

use std::{future::Future, io, path::PathBuf, time::Duration};

use ringmail_identity::KeyError;
use zeroize::Zeroizing;

use super::status::RefreshErrorReason;
use crate::watched_file::FileError;

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
    /// The roots under which the CA itself is verified are not there.
    #[error("roots of the ca: {0}")]
    Roots(RootsError),
    /// The TLS handshake with the CA failed.
    #[error("tls with ca {ca} as {server_name}: {cause}")]
    Tls {
        /// Its address.
        ca: String,
        /// The name its certificate must carry.
        server_name: String,
        /// What rustls said.
        cause: io::Error,
    },
    /// The bearer token cannot be read.
    #[error("bearer token: {0}")]
    Token(TokenError),
    /// The session broke between the request and the answer.
    #[error("session with ca {ca}: {cause}")]
    Transport {
        /// Its address.
        ca: String,
        /// What broke.
        cause: tonic::transport::Error,
    },
    /// No connection to the CA.
    #[error("ca {ca} cannot be reached: {cause}")]
    Unreachable {
        /// Its address.
        ca: String,
        /// What the system said.
        cause: io::Error,
    },
}

/// Why there are no roots to verify the CA under.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not what it should be.
    #[error("{path}: {cause}, expected root certificates in pem", path = path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// Why there is no bearer token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is empty or holds what no header can carry. Its content is never shown.
    #[error("{path}: {read}, expected one token of visible ascii", path = path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What was read, in words.
        read: &'static str,
    },
}

impl IssueError {
    /// Which series it counts in.
    pub(crate) fn reason(&self) -> RefreshErrorReason {
        match self {
            Self::Answer { .. } => RefreshErrorReason::Malformed,
            Self::Deadline { .. } => RefreshErrorReason::Deadline,
            Self::Key(_) => RefreshErrorReason::Key,
            Self::Refused { code, .. } if denies(*code) => RefreshErrorReason::Denied,
            Self::Refused { .. } | Self::Transport { .. } => RefreshErrorReason::CaFailed,
            Self::Roots(_) => RefreshErrorReason::Roots,
            Self::Tls { .. } => RefreshErrorReason::CaTls,
            Self::Token(_) => RefreshErrorReason::Token,
            Self::Unreachable { .. } => RefreshErrorReason::CaUnreachable,
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
