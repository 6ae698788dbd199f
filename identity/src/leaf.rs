//! The rules for a workload's leaf certificate: the X509-SVID standard (sections 2, 3 and 4), made
//! strict where the standard leaves a choice.
//!
//! The path verifier does not look at URI SANs or at key usage, so these rules are the boundary between
//! "signed by our root" and "is this workload". DNS names may stand beside the ID, as the standard allows:
//! the mesh's own servers carry them, and SPIRE issues them. They are nobody's identity and are not read.
//! Two choices are stricter than the standard. A leaf that names an address or a mailbox beside its ID is
//! refused: no authority of a mesh issues one. A leaf without extended key usage is refused, where the
//! standard says only that it should have one. The leaves of Istio (RSA-2048 and P-256) and of SPIRE
//! satisfy all of it.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ExtendedKeyUsage, GeneralName},
    prelude::FromDer,
    time::ASN1Time,
    x509::SubjectPublicKeyInfo,
};

use crate::{
    grammar::IdError,
    key_algorithm::{KeyAlgorithm, KeyAlgorithmError},
    spiffe_id::SpiffeId,
    text::{hex, quoted},
};

/// The context-specific tag of a URI among the general names (RFC 5280, section 4.2.1.6).
const URI_TAG: u32 = 6;

/// Why a certificate is no workload's leaf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// It may act as an authority.
    #[error("leaf is a ca certificate, expected ca=false")]
    CaCertificate,
    /// No extended key usage, or an empty one.
    #[error("leaf has no extended key usage, expected server and client authentication")]
    ExtendedKeyUsageMissing,
    /// The URI SAN is no SPIFFE ID.
    #[error("uri san: {0}")]
    Id(#[from] IdError),
    /// The public key is too weak, too large or of another kind.
    #[error(transparent)]
    Key(#[from] KeyAlgorithmError),
    /// No key usage.
    #[error("leaf has no key usage, expected a critical one with digitalSignature")]
    KeyUsageMissing,
    /// Key usage that a verifier may ignore.
    #[error("key usage of the leaf is not critical")]
    KeyUsageNotCritical,
    /// It may sign certificates or revocation lists.
    #[error("key usage of the leaf allows {allowed}, which is an authority's")]
    KeyUsageSigns {
        /// Which of the two.
        allowed: &'static str,
    },
    /// It cannot be read.
    #[error("leaf cannot be read: {what}: {cause}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// Why.
        cause: String,
    },
    /// It may not sign a handshake.
    #[error("key usage of the leaf does not allow digitalSignature")]
    NoDigitalSignature,
    /// No identity.
    #[error("leaf has no uri san, expected exactly one")]
    NoUriSan,
    /// A name that is neither a URI nor a DNS name stands beside the identity.
    #[error("leaf carries a {kind} san {value} beside its uri, expected no name but dns names there")]
    OtherSan {
        /// The kind of name.
        kind: &'static str,
        /// The name, escaped and cut short.
        value: String,
    },
    /// More than one identity.
    #[error("leaf has {count} uri sans, expected exactly one; the first two are {first} and {second}")]
    SeveralUriSans {
        /// How many.
        count: usize,
        /// The first, escaped and cut short.
        first: String,
        /// The second, escaped and cut short.
        second: String,
    },
}

/// A leaf that satisfies the rules.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) serial: String,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    /// The contents of the key's bit string: an EC point, or an `RSAPublicKey`.
    pub(crate) public_key: Vec<u8>,
    client: bool,
    server: bool,
}

impl Leaf {
    /// Reads a leaf and checks every rule that needs neither the time, a root nor a role.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, LeafError> {
        let strict = EndEntityCert::try_from(der).map_err(|error| malformed("certificate", error))?;
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| malformed("certificate", error))?;
        check_basic_constraints(&certificate)?;
        check_key_usage(&certificate)?;
        let usage = extended_key_usage(&certificate)?;
        let id = SpiffeId::from_bytes(the_uri(&certificate)?)?;
        check_second_reading(&strict, &id)?;
        let spki: &SubjectPublicKeyInfo<'_> = certificate.public_key();
        KeyAlgorithm::of(spki)?;
        Ok(Self {
            id,
            serial: serial(&certificate),
            not_before: unix_time(certificate.validity().not_before),
            not_after: unix_time(certificate.validity().not_after),
            public_key: spki.subject_public_key.data.to_vec(),
            client: usage.client_auth,
            server: usage.server_auth,
        })
    }

    /// Whether the extended key usage lets the leaf's holder play both sides of a handshake.
    pub(crate) fn allows_both_sides(&self) -> bool {
        self.client && self.server
    }

    /// The sides that the extended key usage names, for an error's text.
    pub(crate) fn allowed_text(&self) -> &'static str {
        match (self.client, self.server) {
            (true, true) => "client and server authentication",
            (true, false) => "client authentication alone",
            (false, true) => "server authentication alone",
            (false, false) => "neither client nor server authentication",
        }
    }
}

/// Seconds since 1970; what lies before that is 1970, which is as long past.
pub(crate) fn unix_time(time: ASN1Time) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default()))
}

fn malformed(what: &'static str, cause: impl ToString) -> LeafError {
    LeafError::Malformed { what, cause: cause.to_string() }
}

fn check_basic_constraints(certificate: &X509Certificate<'_>) -> Result<(), LeafError> {
    let constraints =
        certificate.basic_constraints().map_err(|error| malformed("basic constraints", error))?;
    match constraints {
        Some(constraints) if constraints.value.ca => Err(LeafError::CaCertificate),
        Some(_) | None => Ok(()),
    }
}

fn check_key_usage(certificate: &X509Certificate<'_>) -> Result<(), LeafError> {
    let usage = certificate
        .key_usage()
        .map_err(|error| malformed("key usage", error))?
        .ok_or(LeafError::KeyUsageMissing)?;
    if usage.value.key_cert_sign() {
        return Err(LeafError::KeyUsageSigns { allowed: "keyCertSign" });
    }
    if usage.value.crl_sign() {
        return Err(LeafError::KeyUsageSigns { allowed: "cRLSign" });
    }
    if !usage.value.digital_signature() {
        return Err(LeafError::NoDigitalSignature);
    }
    if !usage.critical {
        return Err(LeafError::KeyUsageNotCritical);
    }
    Ok(())
}

fn extended_key_usage<'a>(
    certificate: &'a X509Certificate<'_>,
) -> Result<&'a ExtendedKeyUsage<'a>, LeafError> {
    certificate
        .extended_key_usage()
        .map_err(|error| malformed("extended key usage", error))?
        .map(|usage| usage.value)
        .ok_or(LeafError::ExtendedKeyUsageMissing)
}

/// The bytes of the one URI SAN. They are not trusted to be text.
fn the_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a [u8], LeafError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| malformed("subject alternative name", error))?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let mut uris = Vec::new();
    let mut other = None;
    for name in names {
        match sorted(name) {
            San::Uri(uri) => uris.push(uri),
            San::Dns => {}
            San::Other { kind, value } => other = other.or(Some((kind, value))),
        }
    }
    match (uris.as_slice(), other) {
        ([], _) => Err(LeafError::NoUriSan),
        ([uri], None) => Ok(uri),
        ([_], Some((kind, value))) => Err(LeafError::OtherSan { kind, value }),
        ([first, second, ..], _) => {
            Err(LeafError::SeveralUriSans { count: uris.len(), first: quoted(first), second: quoted(second) })
        }
    }
}

/// The identity must not hang on one parser's leniency: the path verifier's reads the names again.
fn check_second_reading(strict: &EndEntityCert<'_>, id: &SpiffeId) -> Result<(), LeafError> {
    if strict.valid_uri_names().eq([id.as_str()]) {
        Ok(())
    } else {
        Err(malformed("subject alternative name", "its uri is not in the one encoding of DER"))
    }
}

enum San<'a> {
    Uri(&'a [u8]),
    /// A server's name, which says nothing about who a workload is.
    Dns,
    Other {
        kind: &'static str,
        value: String,
    },
}

fn sorted<'a>(name: &'a GeneralName<'_>) -> San<'a> {
    let (kind, value) = match name {
        GeneralName::URI(uri) => return San::Uri(uri.as_bytes()),
        GeneralName::Invalid(tag, bytes) if tag.0 == URI_TAG => return San::Uri(bytes),
        GeneralName::DNSName(_) => return San::Dns,
        GeneralName::DirectoryName(name) => ("directory", quoted(name.to_string().as_bytes())),
        GeneralName::EDIPartyName(_) => ("edi party", String::new()),
        GeneralName::IPAddress(bytes) => ("ip address", hex(&bytes[..bytes.len().min(16)])),
        GeneralName::Invalid(_, bytes) => ("malformed", quoted(bytes)),
        GeneralName::OtherName(oid, _) => ("other name", oid.to_id_string()),
        GeneralName::RFC822Name(name) => ("e-mail", quoted(name.as_bytes())),
        GeneralName::RegisteredID(oid) => ("registered id", oid.to_id_string()),
        GeneralName::X400Address(_) => ("x.400", String::new()),
    };
    San::Other { kind, value }
}

/// The serial number as hex digits, without the zero byte that DER puts before a high bit.
fn serial(certificate: &X509Certificate<'_>) -> String {
    let raw = certificate.raw_serial();
    hex(match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => raw,
    })
}
