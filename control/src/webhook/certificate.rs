//! The serving certificate in force, and TLS with it.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::ca::Leaf;

/// Taken up by each handshake; connections that are there keep what they have.
#[derive(Debug, Default)]
pub(crate) struct ServingCertificate(RwLock<Option<Arc<CertifiedKey>>>);

impl ServingCertificate {
    pub(crate) fn replace(&self, leaf: &Leaf) -> Result<(), Error> {
        let key = PrivatePkcs8KeyDer::from(leaf.key.to_vec());
        let key = aws_lc_rs::sign::any_supported_type(&key.into())?;
        let chain = vec![CertificateDer::from(leaf.certificate.clone())];
        *self.0.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(CertifiedKey::new(chain, key)));
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// TLS 1.2 as well: API servers of 1.29 offer both, and an administrator may have held one to the older.
pub(crate) fn tls(certificate: Arc<ServingCertificate>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would outlive a change of the certificate.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}
