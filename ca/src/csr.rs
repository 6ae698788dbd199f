//! What is taken from a certificate signing request: its public key, and nothing else.
//!
//! Names, CA bits and every other wish in a request are never read, so no request can ask for an
//! identity. The checks here are pure and run in the order of their cost: size, shape, key, and the
//! signature last, which proves that the caller holds the private key.

use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use ringmail_identity::KeyAlgorithm;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::der_parser::oid::Oid;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo as Spki;

use crate::audit::Reason;

/// Longest CSR read, in bytes of PEM. An RSA-4096 request with a handful of names takes 2 KiB.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

const PEM_LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];
/// Verifiers accept longer keys; every handshake would pay for them, so none is certified.
const MAX_CERTIFIED_RSA_BITS: usize = 4096;
/// Smaller exponents have a history of forged signatures; every generator in use takes this one.
const MIN_RSA_EXPONENT: u64 = 65_537;

/// Signature algorithms of requests, SHA-2 only.
static SIGNATURES: [Oid<'static>; 6] = [
    oid::OID_PKCS1_SHA256WITHRSA,
    oid::OID_PKCS1_SHA384WITHRSA,
    oid::OID_PKCS1_SHA512WITHRSA,
    oid::OID_PKCS1_RSASSAPSS,
    oid::OID_SIG_ECDSA_WITH_SHA256,
    oid::OID_SIG_ECDSA_WITH_SHA384,
];

/// A public key whose holder has proved to have the private one.
#[derive(Debug)]
pub struct RequestedKey {
    pub(crate) spki: SubjectPublicKeyInfo,
    pub(crate) algorithm: KeyAlgorithm,
}

impl RequestedKey {
    /// The key of a trial leaf, whose private half was made here.
    pub(crate) fn trial(key: &KeyPair) -> Result<Self, String> {
        let spki =
            SubjectPublicKeyInfo::from_der(&key.subject_public_key_info()).map_err(|e| e.to_string())?;
        Ok(Self { spki, algorithm: KeyAlgorithm::EcP256 })
    }

    /// The kind of the key.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }
}

/// Why a request was not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// The key is of a kind that is not certified.
    #[error("{0}")]
    Key(String),
    /// The request is not PEM-encoded PKCS#10.
    #[error("not a PEM-encoded PKCS#10 request: {0}")]
    Malformed(String),
    /// The signature is not by the request's own key, or uses a broken hash.
    #[error("request is not signed by its own key with SHA-2: {0}")]
    Signature(String),
    /// The request is too long.
    #[error("request of {got} bytes: expected at most {MAX_CSR_BYTES}")]
    TooLarge {
        /// Its length in bytes.
        got: usize,
    },
}

impl CsrError {
    /// The closed reason of the refusal.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Key(_) => Reason::CsrKey,
            Self::Malformed(_) => Reason::CsrMalformed,
            Self::Signature(_) => Reason::CsrSignature,
            Self::TooLarge { .. } => Reason::CsrTooLarge,
        }
    }
}

/// Takes the public key out of a PEM-encoded request after checking it.
pub fn requested_key(pem_text: &str) -> Result<RequestedKey, CsrError> {
    if pem_text.len() > MAX_CSR_BYTES {
        return Err(CsrError::TooLarge { got: pem_text.len() });
    }
    let block = pem::parse(pem_text).map_err(|e| CsrError::Malformed(e.to_string()))?;
    if !PEM_LABELS.contains(&block.tag()) {
        return Err(CsrError::Malformed(format!("PEM block is {:?}", block.tag())));
    }
    let (rest, request) = X509CertificationRequest::from_der(block.contents())
        .map_err(|e| CsrError::Malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed(format!("{} bytes after the request", rest.len())));
    }
    let spki = &request.certification_request_info.subject_pki;
    let algorithm = key_algorithm(spki).map_err(CsrError::Key)?;
    verify_possession(&request)?;
    let spki = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|e| CsrError::Key(e.to_string()))?;
    Ok(RequestedKey { spki, algorithm })
}

fn verify_possession(request: &X509CertificationRequest<'_>) -> Result<(), CsrError> {
    let algorithm = &request.signature_algorithm.algorithm;
    if !SIGNATURES.contains(algorithm) {
        return Err(CsrError::Signature(format!("algorithm {algorithm}")));
    }
    request.verify_signature().map_err(|e| CsrError::Signature(e.to_string()))
}

/// The kind of the key, or in words why it is never certified.
pub(crate) fn key_algorithm(spki: &Spki<'_>) -> Result<KeyAlgorithm, String> {
    let algorithm = KeyAlgorithm::from_spki_der(spki.raw).map_err(|e| e.to_string())?;
    match algorithm {
        KeyAlgorithm::EcP256 | KeyAlgorithm::EcP384 => Ok(algorithm),
        KeyAlgorithm::Rsa { bits } if bits > MAX_CERTIFIED_RSA_BITS => {
            Err(format!("rsa public key of {bits} bits, expected at most {MAX_CERTIFIED_RSA_BITS}"))
        }
        KeyAlgorithm::Rsa { .. } => check_exponent(spki).map(|()| algorithm),
    }
}

fn check_exponent(spki: &Spki<'_>) -> Result<(), String> {
    let PublicKey::RSA(key) = spki.parsed().map_err(|e| e.to_string())? else {
        return Err("not an rsa key".to_owned());
    };
    let exponent = key.try_exponent().map_err(|e| format!("rsa exponent: {e}"))?;
    if exponent < MIN_RSA_EXPONENT || exponent % 2 == 0 {
        return Err(format!("rsa exponent {exponent}, expected an odd one of at least {MIN_RSA_EXPONENT}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
