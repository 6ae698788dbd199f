//! The server's own certificate: from the CA, which knows by our token under which names we serve, or from files.
//!
//! Connections pick up the newest certificate at their handshake. Until there is a first one, no handshake succeeds.

mod ca;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use ringmail_identity::pem_fault;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{
        self,
        kx_group::{SECP256R1, X25519, X25519MLKEM768},
    },
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::{sync::watch, time::sleep};
use zeroize::Zeroizing;

/// The first retry is quick: the CA may be just starting.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Without a certificate no proxy gets an answer: the CA is asked often.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often files are looked at, and whether a certificate is due.
const LOOK: Duration = Duration::from_secs(10);

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum ServingSource {
    /// The CA of the mesh.
    Ca {
        /// `host:port`.
        address: String,
        /// PEM of the roots it is verified under.
        roots: PathBuf,
        /// The own token.
        token: PathBuf,
    },
    /// Two files of PEM, read again when they change.
    Files {
        /// The chain, leaf first.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// The CA did not give one.
    #[error("{ca}: {error}")]
    Ca {
        /// Its address.
        ca: String,
        /// Why.
        error: String,
    },
    /// A file cannot be read, or does not hold what it should.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// Key and certificate make no server.
    #[error("certificate and key: {0}")]
    Pair(String),
}

/// A certificate with its life.
#[derive(Clone, Debug)]
struct Held {
    key: Arc<CertifiedKey>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// The certificate in force.
#[derive(Debug)]
pub(crate) struct Serving {
    held: RwLock<Option<Held>>,
    fault: RwLock<Option<String>>,
}

impl Serving {
    /// Starts to look after the certificate. Files must be good at the start; the CA is waited for.
    pub(crate) fn start(
        source: ServingSource,
        shutdown: watch::Receiver<bool>,
    ) -> Result<Arc<Self>, ServingError> {
        let first = match &source {
            ServingSource::Ca { .. } => None,
            ServingSource::Files { certificate, key } => Some(read(certificate, key)?),
        };
        let serving = Arc::new(Self { held: RwLock::new(first), fault: RwLock::default() });
        tokio::spawn(Arc::clone(&serving).keep(source, shutdown));
        Ok(serving)
    }

    async fn keep(self: Arc<Self>, source: ServingSource, mut shutdown: watch::Receiver<bool>) {
        let mut pause = RETRY_FIRST;
        loop {
            let next = match self.renew(&source).await {
                Ok(()) => {
                    pause = RETRY_FIRST;
                    self.say(None);
                    LOOK
                }
                Err(error) => {
                    self.say(Some(error.to_string()));
                    pause = (pause * 2).min(RETRY_MAX);
                    pause
                }
            };
            tokio::select! {
                _ = shutdown.wait_for(|ending| *ending) => return,
                () = sleep(next) => {}
            }
        }
    }

    async fn renew(&self, source: &ServingSource) -> Result<(), ServingError> {
        let next = match source {
            ServingSource::Files { certificate, key } => read(certificate, key)?,
            ServingSource::Ca { .. } if !self.is_due(SystemTime::now()) => return Ok(()),
            ServingSource::Ca { address, roots, token } => {
                let next = ca::issue(address, roots, token).await?;
                tracing::info!("a serving certificate from the CA");
                next
            }
        };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(())
    }

    fn say(&self, fault: Option<String>) {
        let mut said = self.fault.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = fault.as_ref().filter(|_| *said != fault) {
            tracing::warn!(%error, "no new serving certificate");
        }
        *said = fault;
    }

    /// Half of the life is over, or there was none.
    fn is_due(&self, now: SystemTime) -> bool {
        self.held().is_none_or(|held| {
            let life = held.not_after.duration_since(held.not_before).unwrap_or_default();
            now >= held.not_before + life / 2
        })
    }

    fn held(&self) -> Option<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why nobody can connect.
    pub(crate) fn missing(&self, now: SystemTime) -> Option<String> {
        let fault = self.fault.read().unwrap_or_else(PoisonError::into_inner).clone();
        match self.held() {
            None => Some(format!("no serving certificate yet: {}", fault.unwrap_or_default())),
            Some(held) if now >= held.not_after => {
                Some(format!("the serving certificate has expired: {}", fault.unwrap_or_default()))
            }
            Some(_) => None,
        }
    }

    /// TLS 1.3 with the mesh's order of key exchanges, HTTP/2 only, no client certificate, no tickets.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![X25519MLKEM768, X25519, SECP256R1];
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.held().map(|held| held.key)
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Held, ServingError> {
    let file = |path: &Path| {
        std::fs::read(path)
            .map_err(|error| ServingError::File { path: path.to_owned(), error: error.to_string() })
    };
    pair(&file(certificate)?, &Zeroizing::new(file(key)?))
}

/// A chain and its key, both PEM.
fn pair(chain: &[u8], key: &[u8]) -> Result<Held, ServingError> {
    let failed = |error: String| ServingError::Pair(error);
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let chain: Vec<CertificateDer<'static>> = chain.map_err(|error| failed(pem_fault(&error)))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| failed(pem_fault(&error)))?;
    let key = Zeroizing::new(key);
    let leaf = chain.first().ok_or_else(|| failed("expected a certificate, got none".to_owned()))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| failed(error.to_string()))?;
    let time = |time: x509_parser::time::ASN1Time| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
    };
    let (not_before, not_after) = (time(parsed.validity().not_before), time(parsed.validity().not_after));
    let signing = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| failed(error.to_string()))?;
    let key = CertifiedKey::new(chain, signing);
    key.keys_match().map_err(|error| failed(error.to_string()))?;
    Ok(Held { key: Arc::new(key), not_before, not_after })
}

#[cfg(test)]
mod tests;
