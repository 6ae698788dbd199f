//! The injector's own certificate authority, as a value: who signs, who is trusted, and what comes next.
//!
//! It vouches to the API server for the webhook and for nothing else. A new root is trusted for a while before it signs,
//! and an old one for a while after, so that no API server ever meets a certificate that it cannot verify. Every
//! step is a function of the value and the time: whichever replica writes it first, the result is the same.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

const CURRENT_CERTIFICATE: &str = "tls.crt";
const CURRENT_KEY: &str = "tls.key";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const BUNDLE: &str = "ca.crt";

/// Clocks of API servers may be behind ours.
const BACKDATED: Duration = Duration::from_secs(300);

/// More roots than a rotation ever has are a fault.
const MAX_ROOTS: usize = 8;

/// How long each thing lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of a root; the next one is made when two thirds of it are over.
    pub root: Duration,
    /// Of a serving certificate; it is made anew at half of it.
    pub leaf: Duration,
    /// How long a root is trusted before it signs, and after the last of its leaves has ended.
    pub overlap: Duration,
}

impl Default for Lifetimes {
    /// A year, a day, a day: the overlap outlasts an API server that could not be reached overnight.
    fn default() -> Self {
        let day = Duration::from_hours(24);
        Self { root: day * 365, leaf: day, overlap: day }
    }
}

/// What is in the Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct InjectorCa {
    current: Root,
    next: Option<Root>,
    /// All trusted roots, PEM, the signing one first.
    bundle: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Root {
    certificate: String,
    key: Zeroizing<String>,
    made: SystemTime,
    not_after: SystemTime,
}

/// A serving certificate with its key, both DER.
pub struct Leaf {
    /// The certificate.
    pub certificate: Vec<u8>,
    /// Its key, PKCS#8.
    pub key: Zeroizing<Vec<u8>>,
    /// When it is to be made anew.
    pub renew_at: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Why there is no authority, or no certificate of it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CaError {
    /// The Secret lacks something or holds what is none of it.
    #[error("{key}: {fault}")]
    Malformed {
        /// The key of the Secret.
        key: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// Nothing can be signed.
    #[error("signing: {0}")]
    Signing(String),
}

impl std::fmt::Debug for Leaf {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaf").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for InjectorCa {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (next, roots) = (self.next.is_some(), self.bundle.len());
        f.debug_struct("InjectorCa").field("next", &next).field("roots", &roots).finish_non_exhaustive()
    }
}

impl InjectorCa {
    /// One with a new root.
    ///
    /// # Errors
    /// [`CaError::Signing`].
    pub fn create(now: SystemTime, lifetimes: Lifetimes) -> Result<Self, CaError> {
        let current = Root::create(now, lifetimes)?;
        let bundle = vec![current.certificate.clone()];
        Ok(Self { current, next: None, bundle })
    }

    /// Reads the data of the Secret.
    ///
    /// # Errors
    /// [`CaError::Malformed`] names the key.
    pub fn read(data: &BTreeMap<String, ByteString>) -> Result<Self, CaError> {
        let current = Root::read(data, CURRENT_CERTIFICATE, CURRENT_KEY)?;
        let next = if data.contains_key(NEXT_CERTIFICATE) {
            Some(Root::read(data, NEXT_CERTIFICATE, NEXT_KEY)?)
        } else {
            None
        };
        let bundle = certificates(text(data, BUNDLE)?, BUNDLE)?;
        let is_there = |root: &Root| bundle.contains(&root.certificate);
        if !is_there(&current) || !next.as_ref().is_none_or(is_there) {
            return Err(malformed(BUNDLE, "a root that signs is not among those trusted"));
        }
        Ok(Self { current, next, bundle })
    }

    /// As the Secret's data.
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::new();
        let mut put =
            |key: &str, text: &str| data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
        put(CURRENT_CERTIFICATE, &self.current.certificate);
        put(CURRENT_KEY, &self.current.key);
        put(BUNDLE, &self.bundle());
        if let Some(next) = &self.next {
            put(NEXT_CERTIFICATE, &next.certificate);
            put(NEXT_KEY, &next.key);
        }
        data
    }

    /// All trusted roots, PEM: the API server's `caBundle`.
    pub fn bundle(&self) -> String {
        self.bundle.concat()
    }

    /// The certificate of the root that signs, PEM.
    pub fn signer(&self) -> &str {
        &self.current.certificate
    }

    /// When the signing root ends.
    pub fn not_after(&self) -> SystemTime {
        self.current.not_after
    }

    /// The next state, if it is time for one: the next root made, then signing, then the old one gone.
    ///
    /// # Errors
    /// [`CaError::Signing`].
    pub fn step(&self, now: SystemTime, lifetimes: Lifetimes) -> Result<Option<Self>, CaError> {
        let since = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        if now >= self.current.not_after {
            // Nobody was there to rotate it, so nobody trusts what is left of it.
            return match &self.next {
                Some(next) if now < next.not_after => Ok(Some(self.promoted(next))),
                Some(_) | None => Self::create(now, lifetimes).map(Some),
            };
        }
        if let Some(next) = &self.next {
            return Ok((since(next.made) >= lifetimes.overlap).then(|| self.promoted(next)));
        }
        let life = self.current.not_after.duration_since(self.current.made).unwrap_or_default();
        if since(self.current.made) >= life * 2 / 3 {
            let next = Root::create(now, lifetimes)?;
            let bundle = vec![self.current.certificate.clone(), next.certificate.clone()];
            return Ok(Some(Self { current: self.current.clone(), next: Some(next), bundle }));
        }
        // It has signed since one overlap after it was made; the last leaf before that ends one life later.
        let is_over = since(self.current.made) >= lifetimes.overlap * 2 + lifetimes.leaf;
        if self.bundle.len() > 1 && is_over {
            let bundle = vec![self.current.certificate.clone()];
            return Ok(Some(Self { bundle, ..self.clone() }));
        }
        Ok(None)
    }

    fn promoted(&self, next: &Root) -> Self {
        let bundle = vec![next.certificate.clone(), self.current.certificate.clone()];
        Self { current: next.clone(), next: None, bundle }
    }

    /// A serving certificate for these DNS names.
    ///
    /// # Errors
    /// [`CaError::Signing`].
    pub fn leaf(&self, names: &[String], now: SystemTime, lifetimes: Lifetimes) -> Result<Leaf, CaError> {
        let key = KeyPair::generate().map_err(signing)?;
        let signer = KeyPair::from_pem(&self.current.key).map_err(signing)?;
        let issuer = Issuer::from_ca_cert_pem(&self.current.certificate, signer).map_err(signing)?;
        let not_after = (now + lifetimes.leaf).min(self.current.not_after);
        let mut params = CertificateParams::new(names.to_vec()).map_err(signing)?;
        params.distinguished_name.push(DnType::CommonName, "ringmail-injector");
        params.not_before = OffsetDateTime::from(now - BACKDATED);
        params.not_after = OffsetDateTime::from(not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer).map_err(signing)?;
        let life = not_after.duration_since(now).unwrap_or_default();
        Ok(Leaf {
            certificate: certificate.der().to_vec(),
            key: Zeroizing::new(key.serialize_der()),
            renew_at: now + life / 2,
            not_after,
        })
    }
}

impl Root {
    fn create(now: SystemTime, lifetimes: Lifetimes) -> Result<Self, CaError> {
        let key = KeyPair::generate().map_err(signing)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "ringmail-injector");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::from(now - BACKDATED);
        params.not_after = OffsetDateTime::from(now + lifetimes.root);
        let certificate = params.self_signed(&key).map_err(signing)?.pem();
        let certificate = certificates(&certificate, CURRENT_CERTIFICATE)?.concat();
        // Read back, so that what was made and what is read later are equal.
        Self::parse(certificate, Zeroizing::new(key.serialize_pem()), CURRENT_CERTIFICATE)
    }

    fn read(
        data: &BTreeMap<String, ByteString>,
        certificate: &'static str,
        key: &'static str,
    ) -> Result<Self, CaError> {
        let mut certificates = certificates(text(data, certificate)?, certificate)?;
        let pem = text(data, key)?;
        KeyPair::from_pem(pem).map_err(|error| malformed(key, error))?;
        match (certificates.pop(), certificates.is_empty()) {
            (Some(only), true) => Self::parse(only, Zeroizing::new(pem.to_owned()), certificate),
            (Some(_) | None, _) => Err(malformed(certificate, "expected one certificate")),
        }
    }

    fn parse(certificate: String, key: Zeroizing<String>, place: &'static str) -> Result<Self, CaError> {
        let fault = |error: &dyn std::fmt::Display| malformed(place, error);
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(certificate.as_bytes()).map_err(|error| fault(&error))?;
        let parsed = pem.parse_x509().map_err(|error| fault(&error))?;
        let pair = KeyPair::from_pem(&key).map_err(|error| fault(&error))?;
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&pair) {
            return Err(malformed(place, "the key is another one's"));
        }
        let validity = parsed.validity();
        let at = |time: x509_parser::time::ASN1Time| SystemTime::from(time.to_datetime());
        let (made, not_after) = (at(validity.not_before) + BACKDATED, at(validity.not_after));
        Ok(Self { certificate, key, made, not_after })
    }
}

fn text<'a>(data: &'a BTreeMap<String, ByteString>, key: &'static str) -> Result<&'a str, CaError> {
    let bytes = &data.get(key).ok_or_else(|| malformed(key, "missing"))?.0;
    std::str::from_utf8(bytes).map_err(|error| malformed(key, error))
}

/// Each certificate as PEM in one spelling, so that they can be compared.
fn certificates(text: &str, key: &'static str) -> Result<Vec<String>, CaError> {
    let mut found = Vec::new();
    for pem in Pem::iter_from_buffer(text.as_bytes()) {
        let pem = pem.map_err(|error| malformed(key, error))?;
        pem.parse_x509().map_err(|error| malformed(key, error))?;
        found.push(pem::encode_config(
            &pem::Pem::new("CERTIFICATE", pem.contents),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        ));
    }
    if found.is_empty() || found.len() > MAX_ROOTS {
        return Err(malformed(key, format_args!("{} certificates, expected 1 to {MAX_ROOTS}", found.len())));
    }
    Ok(found)
}

fn malformed(key: &'static str, fault: impl std::fmt::Display) -> CaError {
    CaError::Malformed { key, fault: fault.to_string() }
}

fn signing(error: rcgen::Error) -> CaError {
    CaError::Signing(error.to_string())
}

#[cfg(test)]
mod tests;
