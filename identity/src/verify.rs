//! The verdict on a peer's certificates.
//!
//! Limits come first, because they bound what a stranger may cost. Then webpki verifies the path, and
//! only what a root of ours has signed reaches the leaf rules and their richer parser. The trust domain
//! is last: one root may serve several domains, and only the bundle's own is accepted.

use std::{cell::Cell, fmt, ptr};

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{
    EndEntityCert, Error, ExtendedKeyUsageValidator, KeyUsage, RequiredEkuNotFoundContext, VerifiedPath,
    aws_lc_rs::{
        ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P256_SHA512, ECDSA_P384_SHA256, ECDSA_P384_SHA384,
        ECDSA_P384_SHA512, ECDSA_P521_SHA256, ECDSA_P521_SHA384, ECDSA_P521_SHA512, ED25519,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
        RSA_PSS_2048_8192_SHA256_LEGACY_KEY, RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    },
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    bundle::{Root, RootId, Roots, missing_of_an_authority},
    leaf::{Leaf, LeafError},
    peer_reason::PeerReason,
    spiffe_id::SpiffeId,
    text::{quoted, utc},
    trust_domain::TrustDomain,
};

/// Most certificates that a peer may present: a leaf, its issuer, and one above it, which is what
/// Istio's plugged-in authorities send. Each one more is a signature check for a stranger.
pub const MAX_CHAIN_LEN: usize = 3;
/// Largest certificate in bytes: several times an RSA-4096 leaf with the longest ID allowed, and far
/// below what a handshake could carry.
pub const MAX_CERTIFICATE_LEN: usize = 16 * 1024;

/// What authorities may sign with. The list is closed, so that an upgrade of the verifier widens nothing.
static SIGNATURE_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    ECDSA_P256_SHA256,
    ECDSA_P256_SHA384,
    ECDSA_P256_SHA512,
    ECDSA_P384_SHA256,
    ECDSA_P384_SHA384,
    ECDSA_P384_SHA512,
    ECDSA_P521_SHA256,
    ECDSA_P521_SHA384,
    ECDSA_P521_SHA512,
    ED25519,
    RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// The side that a peer plays: its extended key usage must allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Usage {
    /// The peer dialled.
    Client,
    /// The peer was dialled.
    Server,
}

impl Usage {
    /// Intermediates may be silent about their extended key usage, so the path verifier asks only that
    /// nobody excludes the side; that the leaf names it is a rule of the leaf.
    fn of_path(self) -> impl ExtendedKeyUsageValidator {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Client => "client authentication",
            Self::Server => "server authentication",
        })
    }
}

/// A peer whose certificates were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    /// Who it is.
    pub id: SpiffeId,
    /// The root that vouches for it.
    pub root: RootId,
    /// The leaf's serial number in hex.
    pub serial: String,
    /// When the leaf ceases to be valid.
    pub not_after: UnixTime,
}

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
    #[error("peer {id} is of another trust domain, expected {expected}")]
    ForeignTrustDomain {
        /// The bundle's.
        expected: TrustDomain,
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

/// Checks the limits and splits the chain into the leaf and the rest.
pub(crate) fn check_limits<'a, 'der>(
    chain: &'a [CertificateDer<'der>],
) -> Result<(&'a CertificateDer<'der>, &'a [CertificateDer<'der>]), ChainLimit> {
    let split = chain.split_first().ok_or(ChainLimit::Empty)?;
    if chain.len() > MAX_CHAIN_LEN {
        return Err(ChainLimit::ChainTooLong { count: chain.len() });
    }
    for (number, certificate) in (1..).zip(chain) {
        if certificate.len() > MAX_CERTIFICATE_LEN {
            return Err(ChainLimit::CertificateTooLarge { number, len: certificate.len() });
        }
    }
    Ok(split)
}

pub(crate) fn verify(
    bundle: &Roots,
    chain: &[CertificateDer<'_>],
    usage: Usage,
    now: UnixTime,
) -> Result<VerifiedPeer, PeerError> {
    let (leaf_der, intermediates) = check_limits(chain)?;
    let root = verify_path(bundle, leaf_der, intermediates, usage, now)?;
    let leaf = Leaf::read(leaf_der)?;
    if !leaf.allows(usage) {
        return Err(PeerError::WrongUsage { expected: usage, got: leaf.allowed_text().to_owned() });
    }
    if leaf.id.trust_domain() != bundle.trust_domain.as_str() {
        return Err(PeerError::ForeignTrustDomain { expected: bundle.trust_domain.clone(), id: leaf.id });
    }
    Ok(VerifiedPeer { id: leaf.id, root: root.id, serial: leaf.serial, not_after: leaf.not_after })
}

/// Finds the path to a root of the bundle and answers the root.
fn verify_path<'b>(
    bundle: &'b Roots,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    usage: Usage,
    now: UnixTime,
) -> Result<&'b Root, PeerError> {
    let stale_root = Cell::new(None);
    let refused =
        |error| refusal(error, usage, || Subject { bundle, leaf, stale_root: stale_root.get(), now });
    // webpki takes a root for granted at any time; one that has expired must vouch for nobody, while
    // another of the same name may still do.
    let root_is_valid = |path: &VerifiedPath<'_>| match root_of(bundle, path) {
        Some(root) if root.not_before <= now && now <= root.not_after => Ok(()),
        root => {
            stale_root.set(root);
            Err(Error::UnknownIssuer)
        }
    };
    let end_entity = EndEntityCert::try_from(leaf).map_err(&refused)?;
    let path = end_entity
        .verify_for_usage(
            SIGNATURE_ALGORITHMS,
            &bundle.anchors,
            intermediates,
            now,
            usage.of_path(),
            None,
            Some(&root_is_valid),
        )
        .map_err(&refused)?;
    for issuer in path.intermediate_certificates() {
        check_issuer(&issuer.der())?;
    }
    root_of(bundle, &path).ok_or_else(|| refused(Error::UnknownIssuer))
}

fn root_of<'b>(bundle: &'b Roots, path: &VerifiedPath<'_>) -> Option<&'b Root> {
    let place = bundle.anchors.iter().position(|anchor| ptr::addr_eq(anchor, path.anchor()))?;
    bundle.roots.get(place)
}

/// webpki checks an issuer's CA bit but not its key usage (RFC 5280, section 6.1.4 n).
fn check_issuer(der: &CertificateDer<'_>) -> Result<(), PeerError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| PeerError::Malformed { cause: error.to_string() })?;
    match missing_of_an_authority(&certificate) {
        Some(cause) => Err(PeerError::IssuerNotAuthority { cause }),
        None => Ok(()),
    }
}

/// What a refusal's text may name.
struct Subject<'a> {
    bundle: &'a Roots,
    leaf: &'a CertificateDer<'a>,
    stale_root: Option<&'a Root>,
    now: UnixTime,
}

impl Subject<'_> {
    fn unknown_issuer(self) -> PeerError {
        match self.stale_root {
            Some(root) => PeerError::RootOutsideValidity {
                subject: root.subject.clone(),
                now: self.now,
                not_before: root.not_before,
                not_after: root.not_after,
            },
            None => PeerError::UnknownIssuer {
                trust_domain: self.bundle.trust_domain.clone(),
                issuer: self.issuer(),
            },
        }
    }

    fn issuer(&self) -> String {
        match X509Certificate::from_der(self.leaf) {
            Ok((_, certificate)) => quoted(certificate.issuer().to_string().as_bytes()),
            Err(_) => "of an unreadable name".to_owned(),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "webpki's list is open; what it adds stays refused")]
fn refusal<'a>(error: Error, usage: Usage, subject: impl FnOnce() -> Subject<'a>) -> PeerError {
    let cause = error.to_string();
    match error {
        Error::BadDer
        | Error::BadDerTime
        | Error::ExtensionValueInvalid
        | Error::InvalidCertValidity
        | Error::InvalidSerialNumber
        | Error::MalformedExtensions
        | Error::SignatureAlgorithmMismatch
        | Error::TrailingData(_)
        | Error::UnsupportedCertVersion => PeerError::Malformed { cause },
        Error::CaUsedAsEndEntity => PeerError::Leaf(LeafError::CaCertificate),
        Error::CertExpired { time: now, not_after } => PeerError::Expired { now, not_after },
        Error::CertNotValidYet { time: now, not_before } => PeerError::NotYetValid { now, not_before },
        Error::EmptyEkuExtension => PeerError::Leaf(LeafError::ExtendedKeyUsageMissing),
        Error::EndEntityUsedAsCa => {
            PeerError::IssuerNotAuthority { cause: "its basic constraints do not say ca=true" }
        }
        Error::InvalidNetworkMaskConstraint
        | Error::MalformedDnsIdentifier
        | Error::MalformedNameConstraint
        | Error::NameConstraintViolation
        | Error::UnsupportedNameType => PeerError::NameConstraint { cause },
        Error::InvalidSignatureForPublicKey => PeerError::BadSignature { issuer: subject().issuer() },
        Error::PathLenConstraintViolated => PeerError::PathTooLong,
        Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { present, .. }) => {
            PeerError::WrongUsage { expected: usage, got: object_identifiers(&present) }
        }
        Error::UnknownIssuer => subject().unknown_issuer(),
        Error::UnsupportedCriticalExtension => PeerError::UnsupportedCriticalExtension,
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            PeerError::SignatureAlgorithm { cause: quoted(cause.as_bytes()) }
        }
        _ => PeerError::PathRefused { cause },
    }
}

/// Object identifiers in dotted form: what an extended key usage names.
fn object_identifiers(present: &[Vec<usize>]) -> String {
    /// Key purposes that an error lists; the rest is noise.
    const MAX_LISTED: usize = 4;
    let dotted = |oid: &Vec<usize>| oid.iter().map(usize::to_string).collect::<Vec<_>>().join(".");
    let listed: Vec<String> = present.iter().take(MAX_LISTED).map(dotted).collect();
    quoted(listed.join(", ").as_bytes())
}
