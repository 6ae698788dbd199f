//! Every way in which a peer's certificates are refused, with what was read and what was expected.

use rustls_pki_types::UnixTime;

use crate::{
    leaf::LeafError,
    peer_reason::PeerReason,
    spiffe_id::SpiffeId,
    text::utc,
    trust_domain::TrustDomain,
    verify::{MAX_CERTIFICATE_LEN, MAX_CHAIN_LEN, Usage},
};

/// A chain outside the limits. Certificates count from 1, the leaf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainLimit {
    /// One certificate is larger than [`MAX_CERTIFICATE_LEN`].
    #[error("certificate {number} has {len} bytes, at most {MAX_CERTIFICATE_LEN} are allowed")]
    CertificateTooLarge {
        /// Which certificate.
        number: usize,
        /// Its size.
        len: usize,
    },
    /// More than [`MAX_CHAIN_LEN`] certificates.
    #[error("{count} certificates, at most {MAX_CHAIN_LEN} are allowed")]
    ChainTooLong {
        /// How many.
        count: usize,
    },
    /// None.
    #[error("no certificate, expected a leaf")]
    Empty,
}

/// Why a peer was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// A signature in the path does not verify under the key of the authority named.
    #[error("signature does not verify under the key of the issuer named, {issuer}")]
    BadSignature {
        /// The leaf's issuer, escaped and cut short.
        issuer: String,
    },
    /// Too many or too large certificates, or none.
    #[error("peer presented {0}")]
    Chain(#[from] ChainLimit),
    /// A certificate of the path, most often the leaf, is no longer valid.
    #[error("certificate expired at {}, it is {}", utc(*not_after), utc(*now))]
    Expired {
        /// The time of the verification.
        now: UnixTime,
        /// When it ceased to be valid.
        not_after: UnixTime,
    },
    /// An identity of another trust domain, whoever signed it.
    #[error("peer {id} is of another trust domain, expected {}", alternatives(expected))]
    ForeignTrustDomain {
        /// The bundle's and its aliases.
        expected: Vec<TrustDomain>,
        /// The peer's ID.
        id: SpiffeId,
    },
    /// A certificate of the path signed another without being an authority's.
    #[error("issuer in the path is no authority: {cause}")]
    IssuerNotAuthority {
        /// What it lacks.
        cause: &'static str,
    },
    /// The leaf breaks a rule for leaves.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// A certificate of the path cannot be read.
    #[error("certificate cannot be read: {cause}")]
    Malformed {
        /// Why.
        cause: String,
    },
    /// An authority of the path may not sign for the names in the leaf.
    #[error("name constraint of an authority violated: {cause}")]
    NameConstraint {
        /// How.
        cause: String,
    },
    /// A certificate of the path is not valid yet.
    #[error("certificate is valid from {}, it is {}", utc(*not_before), utc(*now))]
    NotYetValid {
        /// The time of the verification.
        now: UnixTime,
        /// When it begins to be valid.
        not_before: UnixTime,
    },
    /// More authorities in the path than one of them allows.
    #[error("path is longer than an authority in it allows")]
    PathTooLong,
    /// The path verifier refused for a reason without a variant of its own.
    #[error("no path to a root: {cause}")]
    PathRefused {
        /// What it said.
        cause: String,
    },
    /// The root that would vouch for the peer is outside its own validity.
    #[error(
        "root {subject} is valid from {} to {}, it is {}", utc(*not_before), utc(*not_after), utc(*now)
    )]
    RootOutsideValidity {
        /// The root's subject.
        subject: String,
        /// The time of the verification.
        now: UnixTime,
        /// When the root begins to be valid.
        not_before: UnixTime,
        /// When the root ceases to be valid.
        not_after: UnixTime,
    },
    /// A signature algorithm that is not accepted.
    #[error("signature algorithm is not accepted: {cause}")]
    SignatureAlgorithm {
        /// What was read.
        cause: String,
    },
    /// No root of the bundle issued it.
    #[error("no root of {trust_domain} is the issuer {issuer}")]
    UnknownIssuer {
        /// The bundle's.
        trust_domain: TrustDomain,
        /// The leaf's issuer, escaped and cut short.
        issuer: String,
    },
    /// An extension that must be understood and is not.
    #[error("certificate has a critical extension that is not known")]
    UnsupportedCriticalExtension,
    /// The extended key usage does not allow the side that the peer plays.
    #[error("extended key usage does not allow {expected}, it allows {got}")]
    WrongUsage {
        /// The side that the peer plays.
        expected: Usage,
        /// What the certificate allows.
        got: String,
    },
}

fn alternatives(domains: &[TrustDomain]) -> String {
    domains.iter().map(TrustDomain::as_str).collect::<Vec<_>>().join(" or ")
}

impl PeerError {
    /// The closed name of the refusal, for logs and metrics.
    pub fn reason(&self) -> PeerReason {
        match self {
            Self::BadSignature { .. } => PeerReason::BadSignature,
            Self::Chain(ChainLimit::CertificateTooLarge { .. }) => PeerReason::CertificateTooLarge,
            Self::Chain(ChainLimit::ChainTooLong { .. }) => PeerReason::ChainTooLong,
            Self::Chain(ChainLimit::Empty) => PeerReason::NoCertificate,
            Self::Expired { .. } => PeerReason::Expired,
            Self::ForeignTrustDomain { .. } => PeerReason::ForeignTrustDomain,
            Self::IssuerNotAuthority { .. } => PeerReason::IssuerNotAuthority,
            Self::Leaf(error) => PeerReason::of_leaf(error),
            Self::Malformed { .. } => PeerReason::Malformed,
            Self::NameConstraint { .. } => PeerReason::NameConstraint,
            Self::NotYetValid { .. } => PeerReason::NotYetValid,
            Self::PathTooLong => PeerReason::PathTooLong,
            Self::PathRefused { .. } => PeerReason::PathRefused,
            Self::RootOutsideValidity { .. } => PeerReason::RootOutsideValidity,
            Self::SignatureAlgorithm { .. } => PeerReason::SignatureAlgorithm,
            Self::UnknownIssuer { .. } => PeerReason::UnknownIssuer,
            Self::UnsupportedCriticalExtension => PeerReason::UnsupportedCriticalExtension,
            Self::WrongUsage { .. } => PeerReason::WrongExtendedKeyUsage,
        }
    }
}
