//! Two sides of one handshake in memory: one becomes keys for the tests, the other stays rustls's.

use std::{io::Cursor, sync::Arc};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Algorithm, CHACHA20_POLY1305};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, Connection, ConnectionTrafficSecrets, RootCertStore, ServerConfig, SupportedCipherSuite,
    client::{ClientConnectionData, UnbufferedClientConnection},
    crypto::{CryptoProvider, aws_lc_rs as provider},
    kernel::KernelConnection,
    pki_types::{PrivateKeyDer, ServerName},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, UnbufferedStatus},
    version::TLS13,
};

use super::super::{
    key::Key,
    schedule::{Schedule, Side, TakeSecrets, TrafficSecrets, take_secrets},
};

/// How often a test may update a key of one direction.
pub(super) const GENERATIONS: usize = 40;

/// A key's parts, from which as many keys can be made as a test needs.
#[derive(Clone)]
pub(super) struct Parts {
    algorithm: &'static Algorithm,
    key: Vec<u8>,
    iv: Vec<u8>,
    sequence: u64,
}

impl Parts {
    fn new((sequence, secrets): &(u64, ConnectionTrafficSecrets)) -> Self {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => panic!("a suite that is not offered"),
        };
        Self { algorithm, key: key.as_ref().to_vec(), iv: iv.as_ref().to_vec(), sequence: *sequence }
    }

    pub(super) fn key(&self) -> Key {
        Key::of(self.algorithm, &self.key, &self.iv, self.sequence).unwrap()
    }
}

/// One handshake: what the peer seals and opens with, generation by generation, and the side that rustls keeps.
pub(super) struct Session {
    pub(super) peer_seals: Vec<Parts>,
    pub(super) peer_opens: Vec<Parts>,
    pub(super) reference: Connection,
    suite: SupportedCipherSuite,
    traffic: TrafficSecrets,
}

impl Session {
    /// What this side makes its next keys from.
    pub(super) fn schedule(&self, side: Side) -> Schedule {
        Schedule::new(Some(self.suite.suite()), side, self.traffic.clone()).unwrap()
    }
}

fn configs(suite: SupportedCipherSuite) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["peer".to_owned()]).unwrap().self_signed(&key).unwrap();
    let crypto = Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        kx_groups: vec![provider::kx_group::X25519],
        ..provider::default_provider()
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&crypto))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let chain = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut server = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    client.enable_secret_extraction = true;
    server.enable_secret_extraction = true;
    server.key_log = Arc::new(TakeSecrets);
    server.send_tls13_tickets = 0;
    (Arc::new(client), Arc::new(server))
}

/// rustls's own key schedule.
enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

macro_rules! shake {
    ($peer:expr, $reference:expr, $kernel:path) => {{
        let (mut peer, mut reference) = ($peer, $reference);
        let mut incoming: Vec<u8> = Vec::new();
        loop {
            let mut to_reference = Vec::new();
            let UnbufferedStatus { discard, state } = peer.process_tls_records(&mut incoming);
            let done = match state.unwrap() {
                ConnectionState::EncodeTlsData(mut data) => {
                    let mut room = vec![0; 1 << 16];
                    let written = data.encode(&mut room).unwrap();
                    to_reference.extend_from_slice(&room[..written]);
                    false
                }
                ConnectionState::TransmitTlsData(sent) => {
                    sent.done();
                    false
                }
                ConnectionState::WriteTraffic(_) => true,
                ConnectionState::BlockedHandshake => false,
                state => panic!("{state:?}"),
            };
            incoming.drain(..discard);
            let mut to_reference = Cursor::new(to_reference);
            while reference.read_tls(&mut to_reference).unwrap() > 0 {
                reference.process_new_packets().unwrap();
            }
            while reference.wants_write() {
                reference.write_tls(&mut incoming).unwrap();
            }
            if done && !reference.is_handshaking() {
                break;
            }
        }
        let (secrets, kernel) = peer.dangerous_into_kernel_connection().unwrap();
        (secrets, $kernel(kernel), Connection::from(reference))
    }};
}

/// Shakes hands under `suite`.
pub(super) fn session(suite: SupportedCipherSuite, receiving: Side) -> Session {
    let (client, server) = configs(suite);
    let name = ServerName::try_from("peer").unwrap();
    let (secrets, mut kernel, reference) = match receiving {
        Side::Server => shake!(
            UnbufferedClientConnection::new(client, name).unwrap(),
            rustls::ServerConnection::new(server).unwrap(),
            Kernel::Client
        ),
        Side::Client => shake!(
            UnbufferedServerConnection::new(server).unwrap(),
            rustls::ClientConnection::new(client, name).unwrap(),
            Kernel::Server
        ),
    };
    let (mut peer_seals, mut peer_opens) = (vec![Parts::new(&secrets.tx)], vec![Parts::new(&secrets.rx)]);
    for _ in 0..GENERATIONS {
        let (seals, opens) = match &mut kernel {
            Kernel::Client(kernel) => (kernel.update_tx_secret(), kernel.update_rx_secret()),
            Kernel::Server(kernel) => (kernel.update_tx_secret(), kernel.update_rx_secret()),
        };
        peer_seals.push(Parts::new(&seals.unwrap()));
        peer_opens.push(Parts::new(&opens.unwrap()));
    }
    Session { peer_seals, peer_opens, reference, suite, traffic: take_secrets().unwrap() }
}
