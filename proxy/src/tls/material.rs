//! Credentials made ready for handshakes: an SVID and a trust bundle become one pair of rustls
//! configurations, built once per renewal and shared by every handshake until the next.

use std::sync::Arc;

use ringmail_identity::{Svid, TrustBundle};
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tokio::sync::watch;

use super::{record::TakeSecrets, verifier::PeerVerifier};
use crate::config::{Config, KeyExchange, RecordLayer};

/// The protocol name that both an Envoy sidecar and this proxy offer for opaque TCP over mutual TLS.
/// Anything else is refused; a peer that offers none is accepted.
pub const ALPN: &[u8] = b"istio";

/// Why credentials could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// rustls cannot sign with the key.
    #[error("key of {id} cannot sign: {source}")]
    Key {
        /// Whose key.
        id: ringmail_identity::SpiffeId,
        /// What rustls said.
        source: rustls::Error,
    },
    /// rustls refused the combination of protocol versions and suites.
    #[error("tls settings: {0}")]
    Settings(rustls::Error),
}

/// What a user may choose of TLS.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// The key exchange groups, the preferred first.
    pub groups: Vec<KeyExchange>,
    /// Who makes the records.
    pub layer: RecordLayer,
}

impl TlsSettings {
    /// As the settings say.
    pub fn new(config: &Config) -> Self {
        Self { groups: config.key_exchange_groups.clone(), layer: config.record_layer }
    }
}

/// The defaults of the settings.
impl Default for TlsSettings {
    fn default() -> Self {
        let groups = vec![KeyExchange::X25519MlKem768, KeyExchange::X25519, KeyExchange::P256];
        Self { groups, layer: RecordLayer::Own }
    }
}

/// An SVID with its bundle, ready for handshakes.
pub struct Credentials {
    /// Grows by one with every renewal or change of the bundle.
    pub generation: u64,
    /// Who this proxy is.
    pub svid: Arc<Svid>,
    /// Whom it trusts.
    pub bundle: Arc<TrustBundle>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) layer: RecordLayer,
}

/// The receiving end of the credentials: `None` until the first ones are held.
pub type CredentialsRx = watch::Receiver<Option<Arc<Credentials>>>;

impl Credentials {
    /// Builds both configurations.
    ///
    /// # Errors
    /// [`MaterialError`] where the key cannot sign.
    pub fn new(
        svid: Arc<Svid>,
        bundle: Arc<TrustBundle>,
        generation: u64,
        tls: &TlsSettings,
    ) -> Result<Self, MaterialError> {
        let provider = Arc::new(provider(&tls.groups));
        let verifier = Arc::new(PeerVerifier::new(Arc::clone(&bundle), &provider));
        let signing_key = provider
            .key_provider
            .load_private_key(svid.key().der())
            .map_err(|source| MaterialError::Key { id: svid.id().clone(), source })?;
        let certified = CertifiedKey::new(svid.chain().to_vec(), signing_key);
        let resolver = Arc::new(SingleCertAndKey::from(certified));

        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(MaterialError::Settings)?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(Arc::clone(&resolver) as _);
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.ignore_client_order = true;
        // A resumed session would outlive the certificate and the bundle that it was verified under.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.enable_secret_extraction = true;

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(MaterialError::Settings)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(resolver);
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.enable_secret_extraction = true;
        if tls.layer == RecordLayer::Own {
            server.key_log = Arc::new(TakeSecrets);
            client.key_log = Arc::new(TakeSecrets);
        }

        let (server, client) = (Arc::new(server), Arc::new(client));
        Ok(Self { generation, svid, bundle, server, client, layer: tls.layer })
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("generation", &self.generation)
            .field("id", self.svid.id())
            .finish_non_exhaustive()
    }
}

/// AES-128-GCM first: with hardware support it is the fastest, and ChaCha20 a tenth of its speed.
fn provider(groups: &[KeyExchange]) -> CryptoProvider {
    let group = |group: &KeyExchange| match group {
        KeyExchange::P256 => aws_lc_rs::kx_group::SECP256R1,
        KeyExchange::X25519 => aws_lc_rs::kx_group::X25519,
        KeyExchange::X25519MlKem768 => aws_lc_rs::kx_group::X25519MLKEM768,
    };
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: groups.iter().map(group).collect(),
        ..aws_lc_rs::default_provider()
    }
}

#[cfg(test)]
mod simulated {
    use rustls::{
        ClientConnection, NoKeyLog, ServerConnection, SideData,
        pki_types::{ServerName, UnixTime},
        time_provider::TimeProvider,
    };

    use super::*;

    #[derive(Debug)]
    struct At(UnixTime);

    impl TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            Some(self.0)
        }
    }

    impl Credentials {
        /// A whole handshake in memory in which these dial `server`, when both clocks show `now`.
        pub(crate) fn handshake_at(&self, server: &Self, now: UnixTime) -> Result<(), rustls::Error> {
            let (mut client, mut far) =
                (ClientConfig::clone(&self.client), ServerConfig::clone(&server.server));
            (client.time_provider, far.time_provider) = (Arc::new(At(now)), Arc::new(At(now)));
            (client.key_log, far.key_log) = (Arc::new(NoKeyLog), Arc::new(NoKeyLog));
            let name = ServerName::from(std::net::IpAddr::from([10, 0, 0, 2]));
            let mut client = ClientConnection::new(Arc::new(client), name)?;
            let mut far = ServerConnection::new(Arc::new(far))?;
            while client.is_handshaking() || far.is_handshaking() {
                pass(&mut client, &mut far)?;
                pass(&mut far, &mut client)?;
            }
            Ok(())
        }
    }

    fn pass<A: SideData, B: SideData>(
        from: &mut rustls::ConnectionCommon<A>,
        to: &mut rustls::ConnectionCommon<B>,
    ) -> Result<(), rustls::Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            to.read_tls(&mut rest).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }
}
