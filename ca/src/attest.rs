//! From a bearer token to the identity of a workload.
//!
//! Exactly one source judges a token, chosen by the token's shape alone: a JWT goes to the key set,
//! anything else to the static tokens. A source that fails ends the request; no other source is
//! asked, so no failure can turn into somebody else's identity.

mod jwt;
mod static_tokens;
pub mod token_review;

use std::path::PathBuf;
use std::pin::Pin;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ringmail_identity::{SpiffeId, TrustDomain};

use crate::audit::Reason;

pub use jwt::{JwtAttestor, JwtRules};
pub use static_tokens::StaticTokens;
pub use token_review::{PodCheck, TokenReviewAttestor, TokenReviewRules};

/// Longest token read. Kubernetes' own are below 2 KiB.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

const SUBJECT_PREFIX: &str = "system:serviceaccount:";

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The identity that the token proves.
    pub identity: SpiffeId,
    /// The pod that the token is bound to, where the source of the identity knows it.
    pub pod: Option<BoundPod>,
}

impl From<SpiffeId> for Caller {
    fn from(identity: SpiffeId) -> Self {
        Self { identity, pod: None }
    }
}

/// The pod that a token is bound to; its namespace is the identity's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// Its name.
    pub name: String,
    /// Its UID: a later pod of the same name has another one.
    pub uid: String,
    /// The node it runs on, where the API server says so (from Kubernetes 1.30).
    pub node: Option<String>,
}

/// An attestation in progress.
pub type Attesting<'a> = Pin<Box<dyn Future<Output = Result<Caller, AttestError>> + Send + 'a>>;

/// A source of identities.
pub trait Attestor: Send + Sync {
    /// Whose token `token` is.
    fn attest<'a>(&'a self, token: &'a str) -> Attesting<'a>;

    /// The files whose change calls for [`Attestor::reload`].
    fn files(&self) -> Vec<PathBuf>;

    /// Reads the files again; on an error what was read before stays in force.
    fn reload(&self) -> Result<(), SourceError>;

    /// Why this source cannot judge any token at present.
    fn fault(&self) -> Option<String> {
        None
    }
}

/// Why a token proves nothing. No text holds any part of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// The API server gives no answer that could be used.
    #[error("api server gives no answer: {0}")]
    ApiServerAway(String),
    /// The API server does not let this program ask.
    #[error("api server refuses to answer: {0}")]
    ApiServerRefused(String),
    /// The signature algorithm is not accepted.
    #[error("token algorithm {0:?}: expected RS256 or ES256, and the one of the key")]
    Algorithm(String),
    /// The token is for somebody else.
    #[error("token is for another audience")]
    Audience,
    /// The token is past.
    #[error("token has expired")]
    Expired,
    /// The token is by somebody else.
    #[error("token issuer is not the expected one")]
    Issuer,
    /// The header or the token has no known shape.
    #[error("malformed token: {0}")]
    Malformed(String),
    /// There is no token.
    #[error("no authorization header with a bearer token")]
    Missing,
    /// The token is bound to no pod.
    #[error("token is not bound to a pod: expected the token of a projected volume")]
    NotBound,
    /// The token is not valid yet.
    #[error("token is not valid yet")]
    NotYetValid,
    /// The pod has run to its end.
    #[error("pod {pod} has ended: its phase is {phase}")]
    PodEnded {
        /// Namespace and name.
        pod: String,
        /// Its phase.
        phase: String,
    },
    /// The pod is not there any more.
    #[error("pod {pod} is gone")]
    PodGone {
        /// Namespace, name and UID.
        pod: String,
    },
    /// The API server does not accept the token.
    #[error("api server does not accept the token: {0}")]
    Rejected(String),
    /// The signature is wrong.
    #[error("token signature does not verify")]
    Signature,
    /// The subject is not a service account.
    #[error("token subject {0:?}: expected system:serviceaccount:<namespace>:<service account>")]
    Subject(String),
    /// No source knows the token.
    #[error("token is not known")]
    Unknown,
    /// The API server finds fault with the question about this token, and says nothing about others.
    #[error("api server does not look at the token: {0}")]
    Unreviewed(String),
    /// No key of the set made the signature.
    #[error("no key of the set has the token's key id {0:?}")]
    UnknownKey(String),
}

impl AttestError {
    /// The closed reason of the refusal.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Algorithm(_) => Reason::TokenAlgorithm,
            Self::ApiServerAway(_) => Reason::ApiServerAway,
            Self::ApiServerRefused(_) => Reason::ApiServerRefused,
            Self::Audience => Reason::TokenAudience,
            Self::Expired => Reason::TokenExpired,
            Self::Issuer => Reason::TokenIssuer,
            Self::Malformed(_) => Reason::MalformedToken,
            Self::Missing => Reason::MissingToken,
            Self::NotBound => Reason::TokenNotBound,
            Self::NotYetValid => Reason::TokenNotYetValid,
            Self::PodEnded { .. } => Reason::PodEnded,
            Self::PodGone { .. } => Reason::PodGone,
            Self::Rejected(_) | Self::Unreviewed(_) => Reason::TokenRejected,
            Self::Signature => Reason::TokenSignature,
            Self::Subject(_) => Reason::TokenSubject,
            Self::Unknown => Reason::UnknownToken,
            Self::UnknownKey(_) => Reason::TokenUnknownKey,
        }
    }
}

/// Why a source's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The content is wrong.
    #[error("{}: {error}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
}

/// The configured sources.
pub struct Attestors {
    jwt: Option<Box<dyn Attestor>>,
    opaque: Option<Box<dyn Attestor>>,
}

impl Attestors {
    /// `jwt` judges tokens of the shape of a JWT, `opaque` all others.
    pub fn new(jwt: Option<Box<dyn Attestor>>, opaque: Option<Box<dyn Attestor>>) -> Self {
        Self { jwt, opaque }
    }

    /// Whose token the request carries.
    pub async fn attest(&self, headers: &HeaderMap) -> Result<Caller, AttestError> {
        let token = bearer(headers)?;
        let source = if is_jwt_shaped(token) { &self.jwt } else { &self.opaque };
        match source {
            Some(source) => source.attest(token).await,
            None => Err(AttestError::Unknown),
        }
    }

    /// Every source.
    pub fn sources(&self) -> impl Iterator<Item = &dyn Attestor> {
        self.jwt.iter().chain(&self.opaque).map(AsRef::as_ref)
    }
}

/// The identity of a user name of the API server, `system:serviceaccount:<namespace>:<service account>`.
fn service_account(subject: &str, trust_domain: &TrustDomain) -> Result<SpiffeId, AttestError> {
    let refused = || AttestError::Subject(subject.to_owned());
    let rest = subject.strip_prefix(SUBJECT_PREFIX).ok_or_else(refused)?;
    let (namespace, account) = rest.split_once(':').ok_or_else(refused)?;
    // A further colon is no path character, so the grammar refuses it.
    SpiffeId::for_service_account(trust_domain, namespace, account).map_err(|_| refused())
}

/// Three parts between dots; a static token may not have this shape.
pub(crate) fn is_jwt_shaped(token: &str) -> bool {
    token.bytes().filter(|&b| b == b'.').count() == 2
}

/// The token of the only `authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Result<&str, AttestError> {
    let malformed = |what: &str| AttestError::Malformed(what.to_owned());
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AttestError::Missing)?;
    if values.next().is_some() {
        return Err(malformed("several authorization headers"));
    }
    let value = value.to_str().map_err(|_| malformed("not visible ascii"))?;
    let (scheme, token) = value.split_once(' ').ok_or_else(|| malformed("no scheme"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed("scheme is not bearer"));
    }
    check_token(token).map_err(AttestError::Malformed)?;
    Ok(token)
}

/// What every token must be, whatever its source: visible ASCII, not empty, not too long.
pub(crate) fn check_token(token: &str) -> Result<(), String> {
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("expected visible ascii without spaces".to_owned());
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(format!("{} bytes, expected at most {MAX_TOKEN_BYTES}", token.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
