//! The signing key, its chain and the roots, loaded and proved before anything is issued.
//!
//! An [`Authority`] is one immutable snapshot. It exists only if a leaf made with it verifies under
//! its own bundle with the same code the proxies use, so a mismatched key, a broken chain or a root
//! that does not belong is found when files are loaded and never by a workload.

pub mod mounted;
pub mod self_signed;
mod source;

use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair};
use ringmail_identity::{PeerError, RootId, SpiffeId, TrustBundle, TrustDomain, Usage, pem_fault};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;
use zeroize::Zeroizing;

use crate::csr::{self, RequestedKey};
use crate::issue::{self, IssueError, Subject};

pub use source::{LoadError, Source};

/// Longest chain of signing certificates sent with a leaf. Verifiers bound their search, and no
/// deployment of the field uses more than two.
pub const MAX_SIGNING_CHAIN: usize = 3;
const PROBE_TTL: Duration = Duration::from_secs(60);

/// What a source provides: certificates (signer first), the signer's key, and roots.
#[derive(Debug)]
pub struct Parts {
    pub(crate) origin: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Zeroizing<PrivateKeyDer<'static>>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

/// Why a set of certificates and a key cannot be a CA.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A certificate's bytes cannot be read.
    #[error("{origin}: certificate {index} of the signing chain cannot be parsed: {error}")]
    Certificate {
        /// Where it came from.
        origin: String,
        /// Position, the signer being 0.
        index: usize,
        /// What is wrong.
        error: String,
    },
    /// There are more signing certificates than verifiers accept.
    #[error("{origin}: {got} signing certificates: expected 1 to {MAX_SIGNING_CHAIN}")]
    ChainLength {
        /// Where they came from.
        origin: String,
        /// How many there are.
        got: usize,
    },
    /// The signer's certificate is past.
    #[error("{origin}: signing certificate {subject:?} expired at {not_after}")]
    Expired {
        /// Where it came from.
        origin: String,
        /// Its subject.
        subject: String,
        /// When it expired.
        not_after: String,
    },
    /// A trial leaf does not verify under the bundle.
    #[error("{origin}: a leaf of this signer does not verify under the roots: {error}")]
    LeafRefused {
        /// Where the signer came from.
        origin: String,
        /// The verifier's word.
        error: PeerError,
    },
    /// The signer's key is unusable.
    #[error("{origin}: private key cannot be used: {error}")]
    Key {
        /// Where it came from.
        origin: String,
        /// What is wrong.
        error: String,
    },
    /// The key belongs to another certificate.
    #[error("{origin}: private key does not belong to certificate {subject:?}")]
    KeyMismatch {
        /// Where they came from.
        origin: String,
        /// The certificate's subject.
        subject: String,
    },
    /// The signer's subject cannot be written into a leaf byte for byte.
    #[error(
        "{origin}: subject {subject:?} cannot be reproduced as an issuer: it repeats an attribute type, or has one beyond 2.39"
    )]
    Name {
        /// Where it came from.
        origin: String,
        /// The subject.
        subject: String,
    },
    /// The certificate may not sign others.
    #[error("{origin}: certificate {subject:?} may not sign: expected CA:TRUE and keyCertSign")]
    NotCa {
        /// Where it came from.
        origin: String,
        /// Its subject.
        subject: String,
    },
    /// The signer's certificate is not valid yet.
    #[error("{origin}: signing certificate {subject:?} is valid only from {not_before}")]
    NotYetValid {
        /// Where it came from.
        origin: String,
        /// Its subject.
        subject: String,
        /// When it begins.
        not_before: String,
    },
    /// A trial leaf could not be signed.
    #[error("{origin}: trial leaf cannot be issued: {error}")]
    Probe {
        /// Where the signer came from.
        origin: String,
        /// What went wrong.
        error: IssueError,
    },
    /// A trial leaf cannot be verified at all.
    #[error("{origin}: a leaf of this signer does not verify under the roots: {error}")]
    Unverifiable {
        /// Where the signer came from.
        origin: String,
        /// What is in the way.
        error: String,
    },
}

/// A signer with its chain and the roots of the trust domain.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    signer: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
    root_not_after: SystemTime,
    trust_domain: TrustDomain,
}

impl Authority {
    /// Checks `parts` and proves them by a trial leaf. `extra_roots` join the bundle.
    pub fn assemble(
        parts: &Parts,
        extra_roots: &[CertificateDer<'static>],
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let origin = parts.origin.clone();
        let key = KeyPair::try_from(&*parts.key)
            .map_err(|e| AuthorityError::Key { origin: origin.clone(), error: e.to_string() })?;
        check_signer(parts, &key, now)?;
        let roots = unique(parts.roots.iter().chain(extra_roots));
        let intermediates = signing_chain(parts, &roots)?;
        let not_after = earliest_end(&origin, parts.chain.first().into_iter().chain(&intermediates))?;
        let root_not_after = earliest_end(&origin, &roots)?;
        let signer =
            parts.chain.first().ok_or(AuthorityError::ChainLength { origin: origin.clone(), got: 0 })?;
        let issuer = Issuer::from_ca_cert_der(signer, key)
            .map_err(|e| AuthorityError::Key { origin: origin.clone(), error: e.to_string() })?;
        let trust_domain = trust_domain.clone();
        let signer = signer.clone();
        let authority =
            Self { issuer, signer, intermediates, roots, not_after, root_not_after, trust_domain };
        authority.prove(&origin, now)?;
        Ok(authority)
    }

    /// The issuer of leaves.
    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// End of validity of the signing chain: no leaf outlives it.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// End of validity of the first root to expire.
    pub fn root_not_after(&self) -> SystemTime {
        self.root_not_after
    }

    /// The trust domain of every identity issued.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots, the signer's own first.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The certificates between a leaf and its root, the signer first; empty when a root signs.
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }

    /// Whether `other` signs with the same certificate and vouches with the same roots.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        (&self.signer, &self.intermediates, &self.roots)
            == (&other.signer, &other.intermediates, &other.roots)
    }

    /// All roots as PEM.
    pub fn bundle_pem(&self) -> String {
        self.roots.iter().map(|c| certificate_pem(c)).collect()
    }

    /// `leaf` with everything that verifies it, in the order of the protocol's response.
    pub fn response_chain(&self, leaf: &CertificateDer<'_>) -> Vec<String> {
        let mut chain = vec![certificate_pem(leaf)];
        chain.extend(self.intermediates.iter().map(|c| certificate_pem(c)));
        chain.push(self.bundle_pem());
        chain
    }

    fn prove(&self, origin: &str, now: SystemTime) -> Result<(), AuthorityError> {
        let unverifiable = |error: String| AuthorityError::Unverifiable { origin: origin.to_owned(), error };
        let identity = SpiffeId::for_service_account(&self.trust_domain, "ringmail-system", "ringmail-ca")
            .map_err(|e| unverifiable(e.to_string()))?;
        let leaf = self
            .trial_leaf(&identity, now)
            .map_err(|error| AuthorityError::Probe { origin: origin.to_owned(), error })?;
        let signer = parsed(origin, 0, &self.signer)?;
        let trial = parsed(origin, 0, &leaf)?;
        if trial.issuer().as_raw() != signer.subject().as_raw() {
            return Err(AuthorityError::Name {
                origin: origin.to_owned(),
                subject: signer.subject().to_string(),
            });
        }
        let bundle = TrustBundle::new(self.trust_domain.clone(), self.roots.clone())
            .map_err(|e| unverifiable(e.to_string()))?;
        let mut chain = vec![leaf.clone()];
        chain.extend(self.intermediates.iter().cloned());
        let since_epoch =
            now.duration_since(SystemTime::UNIX_EPOCH).map_err(|e| unverifiable(e.to_string()))?;
        for usage in [Usage::Server, Usage::Client] {
            bundle
                .verify(&chain, usage, UnixTime::since_unix_epoch(since_epoch))
                .map_err(|error| AuthorityError::LeafRefused { origin: origin.to_owned(), error })?;
        }
        Ok(())
    }

    fn trial_leaf(
        &self,
        identity: &SpiffeId,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let key = KeyPair::generate().map_err(|e| IssueError::Signing(e.to_string()))?;
        let key = RequestedKey::trial(&key).map_err(IssueError::Signing)?;
        let subject = Subject { identity, dns_names: &[] };
        Ok(issue::workload_leaf(self, &key, &subject, PROBE_TTL, now)?.certificate)
    }
}

fn check_signer(parts: &Parts, key: &KeyPair, now: SystemTime) -> Result<(), AuthorityError> {
    let origin = parts.origin.clone();
    let der = parts.chain.first().ok_or(AuthorityError::ChainLength { origin: origin.clone(), got: 0 })?;
    let signer = parsed(&origin, 0, der)?;
    let subject = signer.subject().to_string();
    if let Err(found) = csr::key_algorithm(signer.public_key()) {
        return Err(AuthorityError::Key { origin, error: found });
    }
    if signer.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(AuthorityError::KeyMismatch { origin, subject });
    }
    if !may_sign(&signer) {
        return Err(AuthorityError::NotCa { origin, subject });
    }
    if !can_be_written(signer.subject()) {
        return Err(AuthorityError::Name { origin, subject });
    }
    let validity = signer.validity();
    if now < system_time(&validity.not_before) {
        return Err(AuthorityError::NotYetValid {
            origin,
            subject,
            not_before: validity.not_before.to_string(),
        });
    }
    if now >= system_time(&validity.not_after) {
        return Err(AuthorityError::Expired { origin, subject, not_after: validity.not_after.to_string() });
    }
    Ok(())
}

/// Whether the writer of leaves takes every type of attribute in this name: it knows first bytes of object identifiers up to
/// that of 2.39 alone, and panics at others, which nobody uses.
fn can_be_written(name: &X509Name<'_>) -> bool {
    const BEYOND: u8 = 3 * 40;
    name.iter_attributes()
        .all(|attribute| attribute.attr_type().as_bytes().first().is_some_and(|first| *first < BEYOND))
}

fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    let key_usage = certificate.key_usage().ok().flatten();
    certificate.is_ca() && key_usage.is_none_or(|usage| usage.value.key_cert_sign())
}

/// The certificates a verifier needs beside its roots, the signer first.
fn signing_chain(
    parts: &Parts,
    roots: &[CertificateDer<'static>],
) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    if parts.chain.first().is_some_and(|signer| roots.contains(signer)) {
        return Ok(Vec::new());
    }
    let chain = unique(parts.chain.iter().filter(|c| !roots.contains(c)));
    if chain.len() > MAX_SIGNING_CHAIN {
        return Err(AuthorityError::ChainLength { origin: parts.origin.clone(), got: chain.len() });
    }
    Ok(chain)
}

fn earliest_end<'a>(
    origin: &str,
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Result<SystemTime, AuthorityError> {
    let mut end = None::<SystemTime>;
    for (index, der) in certificates.into_iter().enumerate() {
        let this = system_time(&parsed(origin, index, der)?.validity().not_after);
        end = Some(end.map_or(this, |end| end.min(this)));
    }
    end.ok_or_else(|| AuthorityError::Unverifiable { origin: origin.to_owned(), error: "no root".to_owned() })
}

fn parsed<'a>(origin: &str, index: usize, der: &'a [u8]) -> Result<X509Certificate<'a>, AuthorityError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|e| AuthorityError::Certificate { origin: origin.to_owned(), index, error: e.to_string() })
}

fn system_time(time: &ASN1Time) -> SystemTime {
    time.to_datetime().into()
}

/// `certificates` without repetitions, in their order.
pub(crate) fn unique<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Vec<CertificateDer<'static>> {
    let mut seen = Vec::new();
    for certificate in certificates {
        if !seen.contains(certificate) {
            seen.push(certificate.clone());
        }
    }
    seen
}

/// One certificate as a PEM block that ends with a line feed.
pub(crate) fn certificate_pem(der: &[u8]) -> String {
    let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    ::pem::encode_config(&::pem::Pem::new("CERTIFICATE", der), config)
}

/// A certificate in one line for people: subject and the digest that names it.
pub(crate) fn describe(der: &CertificateDer<'_>) -> String {
    let subject = X509Certificate::from_der(der).map(|(_, c)| c.subject().to_string()).unwrap_or_default();
    format!("{subject} sha256:{}", RootId::of(der))
}

/// Every certificate of a PEM text; none at all is an error, as is any block that cannot be read.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found =
        CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().map_err(|e| pem_fault(&e))?;
    for (index, der) in found.iter().enumerate() {
        X509Certificate::from_der(der).map_err(|e| format!("certificate {index} cannot be parsed: {e}"))?;
    }
    if found.is_empty() {
        return Err("no certificate in it".to_owned());
    }
    Ok(found)
}

/// The only private key of a PEM text.
pub(crate) fn private_key(text: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, String> {
    PrivateKeyDer::from_pem_slice(text)
        .map(Zeroizing::new)
        .map_err(|e| format!("no private key in it: {}", pem_fault(&e)))
}

#[cfg(test)]
mod tests;
