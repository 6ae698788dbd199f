//! The roots that vouch for one trust domain, under all of its names.
//!
//! A bundle is immutable: a rotation makes a new one, and connections keep the [`RootId`] that vouched
//! for them, so that the ones whose root has left can be found.

use std::{fmt, iter, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::anchor_from_trusted_cert;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    leaf::unix_time,
    peer_error::PeerError,
    pem::{self, PemError},
    text::hex,
    trust_domain::TrustDomain,
    verify::{self, Usage, VerifiedPeer},
};

/// Most roots in a bundle. A rotation needs two; beyond a handful, each stranger's handshake would cost
/// a signature check for each root of the same name.
pub const MAX_ROOTS: usize = 16;

/// Why a bundle could not be made. Roots count from 1.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// No root.
    #[error("trust bundle of {trust_domain} is empty, expected at least one root")]
    Empty {
        /// Whose bundle.
        trust_domain: TrustDomain,
    },
    /// A root cannot be read.
    #[error("root {root} of {trust_domain} cannot be read: {cause}")]
    Malformed {
        /// Which root.
        root: usize,
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Why.
        cause: String,
    },
    /// A certificate that may not sign others.
    #[error("root {root} of {trust_domain} ({subject}) is no authority: {cause}")]
    NotAnAuthority {
        /// Which root.
        root: usize,
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// The certificate's subject.
        subject: String,
        /// What is missing.
        cause: &'static str,
    },
    /// The PEM is at fault.
    #[error("trust bundle of {trust_domain}: {source}")]
    Pem {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        source: PemError,
    },
    /// More than [`MAX_ROOTS`].
    #[error("trust bundle of {trust_domain} has {count} roots, at most {MAX_ROOTS} are allowed")]
    TooManyRoots {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// How many.
        count: usize,
    },
}

/// A root's name for machines: SHA-256 of its DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId([u8; 32]);

impl RootId {
    /// The ID of a root certificate.
    pub fn of(root: &CertificateDer<'_>) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, root).as_ref());
        Self(id)
    }

    /// The 32 bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RootId {
    /// 64 hex digits in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootId({self})")
    }
}

/// One root of a bundle.
#[derive(Clone, Debug)]
pub struct Root {
    /// SHA-256 of the certificate.
    pub id: RootId,
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// The subject as text (RFC 4514 in spirit), for people.
    pub subject: String,
    /// When the root begins to be valid.
    pub not_before: UnixTime,
    /// When the root ceases to be valid: from then on it vouches for nobody.
    pub not_after: UnixTime,
}

/// The roots of one trust domain: at least one, none twice. A clone shares them.
#[derive(Clone)]
pub struct TrustBundle(Arc<Roots>);

#[derive(Clone)]
pub(crate) struct Roots {
    pub(crate) trust_domain: TrustDomain,
    /// Other names of the trust domain.
    aliases: Vec<TrustDomain>,
    pub(crate) roots: Vec<Root>,
    /// The roots as the path verifier takes them: same length, same order.
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
}

impl TrustBundle {
    /// Makes a bundle of root certificates. One that is given twice counts once.
    ///
    /// # Errors
    /// [`BundleError`] where there is none, too many, or one that is no authority's certificate.
    pub fn new(trust_domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        let mut bundle = Roots { trust_domain, aliases: Vec::new(), roots: Vec::new(), anchors: Vec::new() };
        for (number, der) in (1..).zip(roots) {
            bundle.push(number, der)?;
        }
        let trust_domain = bundle.trust_domain.clone();
        match bundle.roots.len() {
            0 => Err(BundleError::Empty { trust_domain }),
            1..=MAX_ROOTS => Ok(Self(Arc::new(bundle))),
            count => Err(BundleError::TooManyRoots { trust_domain, count }),
        }
    }

    /// Reads a bundle from PEM that holds certificates and nothing else.
    ///
    /// # Errors
    /// [`BundleError`] as for [`new`](Self::new), and where the PEM is broken or holds something else.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        match pem::certificates(pem) {
            Ok(roots) => Self::new(trust_domain, roots),
            Err(source) => Err(BundleError::Pem { trust_domain, source }),
        }
    }

    /// The same roots for a trust domain that has other names too: leaves of each of `aliases` are accepted
    /// beside those of the bundle's own. A mesh that changes its trust domain has both for a while.
    #[must_use]
    pub fn with_aliases(mut self, aliases: &[TrustDomain]) -> Self {
        Arc::make_mut(&mut self.0).aliases = aliases.to_vec();
        self
    }

    /// The roots as PEM, in their order.
    pub fn to_pem(&self) -> String {
        let mut text = String::new();
        for root in &self.0.roots {
            pem::write(&mut text, "CERTIFICATE", &root.der);
        }
        text
    }

    /// Whom the roots vouch for, by its own name.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// The roots, in the order given.
    pub fn roots(&self) -> &[Root] {
        &self.0.roots
    }

    /// Whether that root is among them.
    pub fn contains(&self, root: &RootId) -> bool {
        self.0.roots.iter().any(|known| known.id == *root)
    }

    /// Verifies what a peer presented, leaf first, and answers who it is.
    ///
    /// `usage` is the side that the *peer* plays. The path is verified by RFC 5280 (signatures, validity,
    /// CA bits, path length, name constraints, extended key usage), then the leaf by the rules of the
    /// X509-SVID standard, then its trust domain against this bundle's and its aliases. No host name is looked at.
    ///
    /// # Errors
    /// [`PeerError`], one variant for each way to be refused.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<VerifiedPeer, PeerError> {
        verify::verify(&self.0, chain, usage, now)
    }
}

impl Roots {
    /// The trust domain's own name, then its aliases.
    pub(crate) fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        iter::once(&self.trust_domain).chain(&self.aliases)
    }

    fn push(&mut self, number: usize, der: CertificateDer<'static>) -> Result<(), BundleError> {
        let id = RootId::of(&der);
        if self.roots.iter().any(|known| known.id == id) {
            return Ok(());
        }
        let malformed = |cause: String| BundleError::Malformed {
            root: number,
            trust_domain: self.trust_domain.clone(),
            cause,
        };
        let anchor = anchor_from_trusted_cert(&der).map_err(|error| malformed(error.to_string()))?.to_owned();
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|error| malformed(error.to_string()))?;
        let subject = certificate.subject().to_string();
        if let Some(cause) = missing_of_an_authority(&certificate) {
            let trust_domain = self.trust_domain.clone();
            return Err(BundleError::NotAnAuthority { root: number, trust_domain, subject, cause });
        }
        let not_before = unix_time(certificate.validity().not_before);
        let not_after = unix_time(certificate.validity().not_after);
        self.anchors.push(anchor);
        self.roots.push(Root { id, der, subject, not_before, not_after });
        Ok(())
    }
}

/// What a certificate lacks to sign others (RFC 5280, sections 4.2.1.3 and 4.2.1.9), if anything.
pub(crate) fn missing_of_an_authority(certificate: &X509Certificate<'_>) -> Option<&'static str> {
    let is_ca = matches!(certificate.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
    if !is_ca {
        return Some("its basic constraints do not say ca=true");
    }
    match certificate.key_usage() {
        Ok(None) => None,
        Ok(Some(usage)) if usage.value.key_cert_sign() => None,
        Ok(Some(_)) => Some("its key usage does not allow keyCertSign"),
        Err(_) => Some("its key usage cannot be read"),
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots: Vec<&str> = self.0.roots.iter().map(|root| root.subject.as_str()).collect();
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.0.trust_domain)
            .field("aliases", &self.0.aliases)
            .field("roots", &roots)
            .finish()
    }
}
