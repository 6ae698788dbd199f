//! The verdict on a peer's certificates.
//!
//! Limits come first, because they bound what a stranger may cost. Then webpki verifies the path, and
//! only what a root of ours has signed reaches the leaf rules and their richer parser. The trust domain
//! is last: one root may serve several domains, and only the bundle's own and its aliases are accepted.

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
    peer_error::{ChainLimit, PeerError},
    spiffe_id::SpiffeId,
    text::quoted,
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
    /// no certificate names others and not this one. The leaf may not be silent: that is a rule of the leaf.
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
    let attempt = Attempt { bundle, leaf: leaf_der, usage, now, stale_root: Cell::new(None) };
    let root = attempt.find_root(intermediates)?;
    let leaf = Leaf::read(leaf_der)?;
    if !bundle.trust_domains().any(|known| known.as_str() == leaf.id.trust_domain()) {
        let expected = bundle.trust_domains().cloned().collect();
        return Err(PeerError::ForeignTrustDomain { expected, id: leaf.id });
    }
    Ok(VerifiedPeer { id: leaf.id, root: root.id, serial: leaf.serial, not_after: leaf.not_after })
}

/// One peer's path to a root, sought.
struct Attempt<'a> {
    bundle: &'a Roots,
    leaf: &'a CertificateDer<'a>,
    usage: Usage,
    now: UnixTime,
    /// A root that would have vouched for the leaf, were it valid now.
    stale_root: Cell<Option<&'a Root>>,
}

impl<'a> Attempt<'a> {
    /// Finds the path and answers the root at its end.
    fn find_root(&self, intermediates: &[CertificateDer<'_>]) -> Result<&'a Root, PeerError> {
        let end_entity = EndEntityCert::try_from(self.leaf).map_err(|error| self.refusal(error))?;
        let path = end_entity
            .verify_for_usage(
                SIGNATURE_ALGORITHMS,
                &self.bundle.anchors,
                intermediates,
                self.now,
                self.usage.of_path(),
                None,
                Some(&|path| self.check_root(path)),
            )
            .map_err(|error| self.refusal(error))?;
        for issuer in path.intermediate_certificates() {
            check_issuer(&issuer.der())?;
        }
        self.root_of(&path).ok_or_else(|| self.refusal(Error::UnknownIssuer))
    }

    /// webpki takes a root for granted at any time. One that has expired must vouch for nobody, while
    /// another of the same name still may, so this is asked of each candidate.
    fn check_root(&self, path: &VerifiedPath<'_>) -> Result<(), Error> {
        match self.root_of(path) {
            Some(root) if root.not_before <= self.now && self.now <= root.not_after => Ok(()),
            stale => {
                self.stale_root.set(stale);
                Err(Error::UnknownIssuer)
            }
        }
    }

    fn root_of(&self, path: &VerifiedPath<'_>) -> Option<&'a Root> {
        let place = self.bundle.anchors.iter().position(|anchor| ptr::addr_eq(anchor, path.anchor()))?;
        self.bundle.roots.get(place)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "webpki's list is open; what it adds stays refused")]
    fn refusal(&self, error: Error) -> PeerError {
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
            Error::InvalidSignatureForPublicKey => PeerError::BadSignature { issuer: self.issuer() },
            Error::PathLenConstraintViolated => PeerError::PathTooLong,
            Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { present, .. }) => {
                PeerError::WrongUsage { expected: self.usage, got: object_identifiers(&present) }
            }
            Error::UnknownIssuer => self.unknown_issuer(),
            Error::UnsupportedCriticalExtension => PeerError::UnsupportedCriticalExtension,
            Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                PeerError::SignatureAlgorithm { cause: quoted(cause.as_bytes()) }
            }
            _ => PeerError::PathRefused { cause: quoted(cause.as_bytes()) },
        }
    }

    fn unknown_issuer(&self) -> PeerError {
        match self.stale_root.get() {
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

/// webpki checks an issuer's CA bit but not its key usage (RFC 5280, section 6.1.4 n).
fn check_issuer(der: &CertificateDer<'_>) -> Result<(), PeerError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| PeerError::Malformed { cause: error.to_string() })?;
    match missing_of_an_authority(&certificate) {
        Some(cause) => Err(PeerError::IssuerNotAuthority { cause }),
        None => Ok(()),
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
