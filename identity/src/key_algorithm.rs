//! Which public keys a workload may have.
//!
//! The same list holds for a leaf that is verified and for a request that is signed, so no certificate
//! is ever issued that a peer would refuse.

use std::fmt;

use x509_parser::{
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, Oid},
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

/// Shortest RSA modulus in bits: what Istio makes by default, and the least that TLS 1.3 stacks accept.
pub const MIN_RSA_BITS: usize = 2048;
/// Longest RSA modulus in bits: beyond it a signature costs whoever checks it more than it is worth,
/// and TLS stacks refuse it anyway.
pub const MAX_RSA_BITS: usize = 8192;

/// The kind of a public key that a workload may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256.
    EcP256,
    /// ECDSA on NIST P-384.
    EcP384,
    /// RSA.
    Rsa {
        /// Length of the modulus in bits, from [`MIN_RSA_BITS`] to [`MAX_RSA_BITS`].
        bits: usize,
    },
}

/// Why a public key is none that a workload may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyAlgorithmError {
    /// Another curve than P-256 and P-384.
    #[error("ec public key on curve {curve}, expected p-256 or p-384")]
    Curve {
        /// The curve's object identifier, or what stands in its place.
        curve: String,
    },
    /// The key is not what its algorithm says.
    #[error("public key is malformed: {0}")]
    Malformed(String),
    /// RSA of an unacceptable length.
    #[error("rsa public key of {bits} bits, expected {MIN_RSA_BITS} to {MAX_RSA_BITS}")]
    RsaBits {
        /// Length of the modulus read.
        bits: usize,
    },
    /// Neither ECDSA nor RSA.
    #[error("public key algorithm {algorithm}, expected ec p-256, ec p-384 or rsa")]
    Unsupported {
        /// The algorithm's object identifier.
        algorithm: String,
    },
}

impl KeyAlgorithm {
    /// Reads the kind of a key from its DER-encoded `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7).
    ///
    /// # Errors
    /// [`KeyAlgorithmError`] where the key is malformed or none that a workload may have.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyAlgorithmError> {
        match SubjectPublicKeyInfo::from_der(der) {
            Ok(([], spki)) => Self::of(&spki),
            Ok((rest, _)) => Err(KeyAlgorithmError::Malformed(format!("{} bytes after it", rest.len()))),
            Err(error) => Err(KeyAlgorithmError::Malformed(error.to_string())),
        }
    }

    pub(crate) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, KeyAlgorithmError> {
        let algorithm = &spki.algorithm.algorithm;
        if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            return Self::of_curve(spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok()));
        }
        if *algorithm != OID_PKCS1_RSAENCRYPTION {
            return Err(KeyAlgorithmError::Unsupported { algorithm: algorithm.to_id_string() });
        }
        let key = spki.parsed().map_err(|error| KeyAlgorithmError::Malformed(error.to_string()))?;
        let PublicKey::RSA(key) = key else {
            return Err(KeyAlgorithmError::Malformed("not an rsa key".to_owned()));
        };
        let bits = significant_bits(key.modulus);
        if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            Ok(Self::Rsa { bits })
        } else {
            Err(KeyAlgorithmError::RsaBits { bits })
        }
    }

    fn of_curve(curve: Option<Oid<'_>>) -> Result<Self, KeyAlgorithmError> {
        match curve {
            Some(curve) if curve == OID_EC_P256 => Ok(Self::EcP256),
            Some(curve) if curve == OID_NIST_EC_P384 => Ok(Self::EcP384),
            Some(curve) => Err(KeyAlgorithmError::Curve { curve: curve.to_id_string() }),
            None => Err(KeyAlgorithmError::Curve { curve: "without a name".to_owned() }),
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcP256 => f.write_str("EC P-256"),
            Self::EcP384 => f.write_str("EC P-384"),
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
        }
    }
}

fn significant_bits(big_endian: &[u8]) -> usize {
    let first = big_endian.iter().position(|byte| *byte != 0).unwrap_or(big_endian.len());
    let significant = &big_endian[first..];
    significant.first().map_or(0, |byte| significant.len() * 8 - byte.leading_zeros() as usize)
}
