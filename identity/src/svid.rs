//! A workload's credentials: its leaf, the intermediates above it, and the key to the leaf.

use std::{fmt, sync::Arc};

use rcgen::PublicKeyData as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{
    leaf::{Leaf, LeafError},
    peer_error::ChainLimit,
    pem::{self, PemError},
    private_key::{KeyError, PrivateKey},
    spiffe_id::SpiffeId,
    text::utc,
    verify::check_limits,
};

/// Why certificates and a key are not a workload's credentials.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// The PEM of the certificates is at fault.
    #[error("certificate chain: {0}")]
    ChainPem(PemError),
    /// No certificate, too many, or one that is too large: peers would refuse it.
    #[error("certificate chain: {0}")]
    Limit(#[from] ChainLimit),
    /// The leaf breaks a rule.
    #[error("certificate chain: {0}")]
    Leaf(#[from] LeafError),
    /// The key cannot be read.
    #[error("private key: {0}")]
    Key(#[from] KeyError),
    /// The key belongs to another certificate.
    #[error("private key ({key}) does not match the leaf of {id}, serial {serial}")]
    KeyMismatch {
        /// What key it is.
        key: String,
        /// Whose leaf.
        id: SpiffeId,
        /// The leaf's serial number.
        serial: String,
    },
    /// The leaf could not play both sides, and a sidecar plays both.
    #[error("leaf of {id} allows {allowed}, expected client and server authentication")]
    Usage {
        /// Whose leaf.
        id: SpiffeId,
        /// What its extended key usage allows.
        allowed: &'static str,
    },
}

/// A workload's credentials (an X509-SVID with its key): the leaf satisfies the rules, may play both
/// sides of a handshake, and the key is its own. A clone shares everything.
///
/// Validity in time and the path to a root are not looked at here: the holder verifies them with
/// [`TrustBundle::verify`](crate::TrustBundle::verify) before it uses the credentials.
#[derive(Clone)]
pub struct Svid(Arc<Credentials>);

struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    leaf: Leaf,
    key: PrivateKey,
}

impl Svid {
    /// Joins a chain, leaf first, with the leaf's key.
    ///
    /// # Errors
    /// [`SvidError`] where a rule is broken or the key is not the leaf's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, SvidError> {
        let (leaf, _) = check_limits(&chain)?;
        let leaf = Leaf::read(leaf)?;
        if !leaf.allows_both_sides() {
            return Err(SvidError::Usage { allowed: leaf.allowed_text(), id: leaf.id });
        }
        if leaf.public_key != key.der_bytes() {
            let key = key.key_algorithm().to_string();
            return Err(SvidError::KeyMismatch { key, id: leaf.id, serial: leaf.serial });
        }
        Ok(Self(Arc::new(Credentials { chain, leaf, key })))
    }

    /// Reads a chain, leaf first, and a key from PEM.
    ///
    /// # Errors
    /// [`SvidError`] as for [`new`](Self::new), and where the PEM is broken; the text says which of the two.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, SvidError> {
        let chain = pem::certificates(chain).map_err(SvidError::ChainPem)?;
        Self::new(chain, PrivateKey::from_pem(key)?)
    }

    /// Who the workload is.
    pub fn id(&self) -> &SpiffeId {
        &self.0.leaf.id
    }

    /// The certificates to present, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// The leaf's key.
    pub fn key(&self) -> &PrivateKey {
        &self.0.key
    }

    /// The leaf's serial number in hex.
    pub fn serial(&self) -> &str {
        &self.0.leaf.serial
    }

    /// When the leaf begins to be valid.
    pub fn not_before(&self) -> UnixTime {
        self.0.leaf.not_before
    }

    /// When the leaf ceases to be valid.
    pub fn not_after(&self) -> UnixTime {
        self.0.leaf.not_after
    }

    /// The certificates as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        let mut text = String::new();
        for certificate in &self.0.chain {
            pem::write(&mut text, "CERTIFICATE", certificate);
        }
        text
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", self.id())
            .field("serial", &self.serial())
            .field("not_after", &utc(self.not_after()))
            .field("key", self.key())
            .finish()
    }
}
