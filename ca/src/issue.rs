//! The profile and the lifetime of what is signed.
//!
//! A workload's leaf is the one the field's data planes know: empty subject, one critical URI SAN,
//! both extended key usages, no CA bit. The lifetime is what was asked, never more than the maximum
//! (which is an error, not a silent cut) and never beyond the signer's own (which is a cut).

mod serve_names;

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use ringmail_identity::{KeyAlgorithm, SpiffeId};
use rustls_pki_types::CertificateDer;

use crate::audit::Reason;
use crate::authority::Authority;
use crate::csr::RequestedKey;

pub use serve_names::ServeNames;

/// How far NotBefore lies in the past, so that a verifier whose clock is behind accepts a new leaf.
pub const BACKDATE: Duration = Duration::from_secs(120);
const SERIAL_BYTES: usize = 16;

/// Why nothing was signed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The signing chain is past.
    #[error("the signing certificate has expired")]
    SignerExpired,
    /// The operation failed.
    #[error("signing failed: {0}")]
    Signing(String),
    /// More lifetime was asked than is ever given.
    #[error("lifetime of {asked} s: expected at most {max} s")]
    TtlTooLong {
        /// Seconds asked.
        asked: i64,
        /// Seconds allowed.
        max: u64,
    },
}

impl IssueError {
    /// The closed reason of the refusal.
    pub fn reason(&self) -> Reason {
        match self {
            Self::SignerExpired => Reason::SignerExpired,
            Self::Signing(_) => Reason::SigningFailed,
            Self::TtlTooLong { .. } => Reason::TtlTooLong,
        }
    }
}

/// The lifetimes this CA gives.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Given when the request names none.
    pub default: Duration,
    /// More than this is refused.
    pub max: Duration,
}

impl Lifetimes {
    /// The lifetime for a request of `seconds`; zero or less means the default.
    pub fn asked(&self, seconds: i64) -> Result<Duration, IssueError> {
        match u64::try_from(seconds) {
            Err(_) | Ok(0) => Ok(self.default),
            Ok(asked) if asked > self.max.as_secs() => {
                Err(IssueError::TtlTooLong { asked: seconds, max: self.max.as_secs() })
            }
            Ok(asked) => Ok(Duration::from_secs(asked)),
        }
    }
}

/// A signed leaf.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its serial number in lower-case hex.
    pub serial: String,
    /// End of its validity.
    pub not_after: SystemTime,
}

/// Whom a leaf names.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The workload's identity: the only URI.
    pub identity: &'a SpiffeId,
    /// Names under which the workload is a server of the mesh's own; nobody's identity.
    pub dns_names: &'a [String],
}

/// Signs a workload's leaf.
pub fn workload_leaf(
    authority: &Authority,
    key: &RequestedKey,
    subject: &Subject<'_>,
    ttl: Duration,
    now: SystemTime,
) -> Result<Leaf, IssueError> {
    let refused = |name: &str, e: rcgen::Error| IssueError::Signing(format!("{name}: {e}"));
    let uri = subject.identity.as_str();
    let mut names = vec![SanType::URI(uri.try_into().map_err(|e| refused(uri, e))?)];
    for name in subject.dns_names {
        names.push(SanType::DnsName(name.as_str().try_into().map_err(|e| refused(name, e))?));
    }
    let mut params = leaf_params(authority, names, ttl, now)?;
    // An ECDSA key cannot encipher a key (RFC 8813); RSA leaves carry both bits as the field's do.
    params.key_usages = match key.algorithm {
        KeyAlgorithm::EcP256 | KeyAlgorithm::EcP384 => vec![KeyUsagePurpose::DigitalSignature],
        KeyAlgorithm::Rsa { .. } => vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
    };
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    sign(authority, params, &key.spki)
}

/// A name the CA's own server answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServingName {
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

/// Signs the certificate of the CA's own server: DNS names and addresses, no workload identity.
pub(crate) fn serving_leaf(
    authority: &Authority,
    key: &KeyPair,
    names: &[ServingName],
    ttl: Duration,
    now: SystemTime,
) -> Result<Leaf, IssueError> {
    let sans = names
        .iter()
        .map(|name| match name {
            ServingName::Dns(name) => Ok(SanType::DnsName(name.clone().try_into()?)),
            ServingName::Ip(address) => Ok(SanType::IpAddress(*address)),
        })
        .collect::<Result<Vec<_>, rcgen::Error>>()
        .map_err(|e| IssueError::Signing(e.to_string()))?;
    let mut params = leaf_params(authority, sans, ttl, now)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    sign(authority, params, key)
}

fn leaf_params(
    authority: &Authority,
    subject_alt_names: Vec<SanType>,
    ttl: Duration,
    now: SystemTime,
) -> Result<CertificateParams, IssueError> {
    if now >= authority.not_after() {
        return Err(IssueError::SignerExpired);
    }
    let mut params = CertificateParams::default();
    // An empty subject is what makes the SAN critical.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial().map_err(|e| IssueError::Signing(e.to_string()))?);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + ttl).min(authority.not_after()).into();
    Ok(params)
}

fn sign(
    authority: &Authority,
    params: CertificateParams,
    key: &impl rcgen::PublicKeyData,
) -> Result<Leaf, IssueError> {
    let certificate =
        params.signed_by(key, authority.issuer()).map_err(|e| IssueError::Signing(e.to_string()))?;
    let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
    let serial = serial.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Ok(Leaf { certificate: certificate.into(), serial, not_after: params.not_after.into() })
}

/// 128 random bits, as RFC 5280 asks of a serial number: positive, and at most 20 octets.
pub(crate) fn random_serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0u8; SERIAL_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests;
