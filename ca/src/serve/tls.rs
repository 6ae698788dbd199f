//! TLS of the CA's own server: TLS 1.3 only, and a certificate that the CA signs for itself.
//!
//! The serving key is new with every certificate and never leaves memory. Connections pick up the
//! newest certificate at their handshake, so a rotation needs no restart.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use rustls::crypto::aws_lc_rs;
use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig};
use rustls_pki_types::PrivateKeyDer;

use crate::authority::Authority;
use crate::issue::{self, IssueError, ServingName};

/// As long as a workload's; renewed at half of it.
const SERVING_TTL: Duration = Duration::from_hours(24);
/// With a signer about to expire, half of what is left would be shorter and shorter.
const MIN_RENEWAL: Duration = Duration::from_secs(1);

/// Why the TLS settings cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("tls settings: {0}")]
pub struct TlsSetupError(#[from] Error);

/// The serving certificate in force.
#[derive(Debug)]
pub(crate) struct ServingCertificate {
    names: Vec<ServingName>,
    held: RwLock<Held>,
}

#[derive(Clone, Debug)]
struct Held {
    key: Arc<CertifiedKey>,
    not_after: SystemTime,
    renew_at: SystemTime,
}

impl ServingCertificate {
    /// Signs the first certificate for `names`.
    pub(crate) fn new(
        names: Vec<ServingName>,
        authority: &Authority,
        now: SystemTime,
    ) -> Result<Self, IssueError> {
        let held = RwLock::new(sign(&names, authority, now)?);
        Ok(Self { names, held })
    }

    /// Signs another certificate and takes it into use.
    pub(crate) fn renew(&self, authority: &Authority, now: SystemTime) -> Result<(), IssueError> {
        let next = sign(&self.names, authority, now)?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Whether half of the certificate's life is over.
    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        now >= self.held().renew_at
    }

    /// End of the certificate's validity.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.held().not_after
    }

    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.held().key)
    }
}

fn sign(names: &[ServingName], authority: &Authority, now: SystemTime) -> Result<Held, IssueError> {
    let failed = |e: String| IssueError::Signing(e);
    let key = KeyPair::generate().map_err(|e| failed(e.to_string()))?;
    let leaf = issue::serving_leaf(authority, &key, names, SERVING_TTL, now)?;
    let signing_key =
        aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::from(key)).map_err(|e| failed(e.to_string()))?;
    let mut chain = vec![leaf.certificate];
    chain.extend(authority.intermediates().iter().cloned());
    let life = leaf.not_after.duration_since(now).unwrap_or_default();
    Ok(Held {
        key: Arc::new(CertifiedKey::new(chain, signing_key)),
        not_after: leaf.not_after,
        renew_at: now + (life / 2).max(MIN_RENEWAL),
    })
}

/// TLS 1.3 with the mesh's order of key exchanges, HTTP/2 only, no client certificate, no tickets.
pub(super) fn server_config(
    certificate: Arc<ServingCertificate>,
) -> Result<Arc<ServerConfig>, TlsSetupError> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![X25519MLKEM768, X25519, SECP256R1];
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would outlive a change of the serving certificate.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
