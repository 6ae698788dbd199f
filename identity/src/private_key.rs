//! A workload's private key: made here, kept in memory, wiped when it is dropped.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, EcPrivateKeyRfc5915Der},
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
        RSA_PKCS1_SHA256,
    },
};
use rcgen::{
    CertificateParams, DistinguishedName, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256,
    PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivateSec1KeyDer};
use zeroize::Zeroizing;

use crate::{
    key_algorithm::KeyAlgorithm,
    pem::{self, PemError},
    spiffe_id::SpiffeId,
};

/// Why a private key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The cryptographic library could not make or write a key.
    #[error("no new p-256 key: {0}")]
    Generate(aws_lc_rs::error::Unspecified),
    /// The PEM around the key is at fault.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The key is damaged or of a kind that a workload may not have.
    #[error("private key is neither ec p-256 ({ec}), nor ec p-384, nor rsa of 2048 to 8192 bits ({rsa})")]
    Refused {
        /// Why it is no EC key.
        ec: aws_lc_rs::error::KeyRejected,
        /// Why it is no RSA key.
        rsa: aws_lc_rs::error::KeyRejected,
    },
    /// A signing request could not be written.
    #[error("certificate signing request: {0}")]
    Request(#[from] rcgen::Error),
}

/// A private key: ECDSA on P-256 or P-384, or RSA of 2048 to 8192 bits.
///
/// The key's bytes are wiped when it is dropped, and `Debug` shows none of them. It signs for rcgen
/// ([`SigningKey`]), so an authority may issue with it directly.
pub struct PrivateKey {
    der: Zeroizing<PrivateKeyDer<'static>>,
    signer: Signer,
}

enum Signer {
    EcP256(EcdsaKeyPair),
    EcP384(EcdsaKeyPair),
    Rsa(Box<rsa::KeyPair>),
}

impl PrivateKey {
    /// Makes a new P-256 key.
    ///
    /// # Errors
    /// [`KeyError::Generate`] where the cryptographic library fails.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(KeyError::Generate)?;
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().map_err(KeyError::Generate)?;
        let der = PrivateSec1KeyDer::from(sec1.as_ref().to_vec());
        Ok(Self { der: Zeroizing::new(der.into()), signer: Signer::EcP256(pair) })
    }

    /// Reads the one unencrypted key of a PEM file: PKCS#8 (RFC 5958), SEC 1 (RFC 5915) or PKCS#1
    /// (RFC 8017). Certificates and curve parameters beside it are passed over.
    ///
    /// # Errors
    /// [`KeyError::Pem`] where there is not exactly one key, [`KeyError::Refused`] where it is damaged or
    /// of another kind than the three above.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        Self::from_der(pem::private_key(pem)?)
    }

    fn from_der(der: Zeroizing<PrivateKeyDer<'static>>) -> Result<Self, KeyError> {
        let secret = der.secret_der();
        let ec = match EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, secret) {
            Ok(pair) => return Ok(Self { signer: Signer::EcP256(pair), der }),
            Err(error) => error,
        };
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_ASN1_SIGNING, secret) {
            return Ok(Self { signer: Signer::EcP384(pair), der });
        }
        let pair = if matches!(&*der, PrivateKeyDer::Pkcs8(_)) {
            rsa::KeyPair::from_pkcs8(secret)
        } else {
            rsa::KeyPair::from_der(secret)
        };
        match pair {
            Ok(pair) => Ok(Self { signer: Signer::Rsa(Box::new(pair)), der }),
            Err(rsa) => Err(KeyError::Refused { ec, rsa }),
        }
    }

    /// What kind of key it is.
    pub fn key_algorithm(&self) -> KeyAlgorithm {
        match &self.signer {
            Signer::EcP256(_) => KeyAlgorithm::EcP256,
            Signer::EcP384(_) => KeyAlgorithm::EcP384,
            Signer::Rsa(pair) => KeyAlgorithm::Rsa { bits: pair.public_modulus_len() * 8 },
        }
    }

    /// A copy of the key for rustls, in the encoding it came in. The copy is the caller's: rustls wipes
    /// its own.
    pub fn der(&self) -> PrivateKeyDer<'static> {
        self.der.clone_key()
    }

    /// The key as one PEM block; the text is wiped when it is dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let label = if matches!(&*self.der, PrivateKeyDer::Pkcs1(_)) {
            "RSA PRIVATE KEY"
        } else if matches!(&*self.der, PrivateKeyDer::Sec1(_)) {
            "EC PRIVATE KEY"
        } else {
            "PRIVATE KEY"
        };
        let secret = self.der.secret_der();
        let mut text = Zeroizing::new(String::with_capacity(pem::written_len(label, secret.len())));
        pem::write(&mut text, label, secret);
        text
    }

    /// A certificate signing request (PKCS#10, RFC 2986) in PEM, with an empty subject and, where an
    /// identity is asked for, that as its only SAN. An authority worth its name takes the public key
    /// from it and nothing else.
    ///
    /// # Errors
    /// [`KeyError::Request`] where it cannot be signed.
    pub fn csr_pem(&self, id: Option<&SpiffeId>) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(id) = id {
            params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        }
        let request = params.serialize_request(self)?;
        let mut text = String::new();
        pem::write(&mut text, "CERTIFICATE REQUEST", request.der());
        Ok(text)
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        match &self.signer {
            Signer::EcP256(pair) | Signer::EcP384(pair) => pair.public_key().as_ref(),
            Signer::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match &self.signer {
            Signer::EcP256(_) => &PKCS_ECDSA_P256_SHA256,
            Signer::EcP384(_) => &PKCS_ECDSA_P384_SHA384,
            Signer::Rsa(_) => &PKCS_RSA_SHA256,
        }
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let random = SystemRandom::new();
        let failed = |_| rcgen::Error::RingUnspecified;
        match &self.signer {
            Signer::EcP256(pair) | Signer::EcP384(pair) => {
                pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()).map_err(failed)
            }
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, redacted)", self.key_algorithm())
    }
}
