//! Handshakes of the adversary, as a client and as a server, up to the point where it stops to behave.

use std::{
    io::{ErrorKind, Read},
    net::{Ipv4Addr, TcpStream},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, DistinguishedName, ServerConfig,
    ServerConnection, SignatureScheme,
    client::{ResolvesClientCert, danger::HandshakeSignatureValid},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use super::{
    ALERT, DATA, Ending, PATIENCE, ending_by, read_record, read_to_end,
    secrets::{Half, Told},
    throw,
};
use crate::intruder::Anyone;

/// The name that sidecars agree on.
const ALPN: &[u8] = b"istio";

/// What the adversary shows of itself; none for a client that shows nothing.
pub type Shown = Option<Arc<CertifiedKey>>;

/// One group and one suite: the smallest hello, and keys that [`Half`] knows.
fn provider() -> Arc<CryptoProvider> {
    let all = aws_lc_rs::default_provider();
    let suites = all.cipher_suites.iter().copied();
    Arc::new(CryptoProvider {
        cipher_suites: suites
            .filter(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
            .collect(),
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..all
    })
}

/// A client that believes every server.
///
/// # Errors
/// Only where rustls refuses its own suites.
pub fn client(shown: Shown, told: &Arc<Told>) -> Result<ClientConnection> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_cert_resolver(Arc::new(Shows(shown)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.key_log = Arc::clone(told) as _;
    config.enable_sni = false;
    Ok(ClientConnection::new(Arc::new(config), ServerName::IpAddress(Ipv4Addr::LOCALHOST.into()))?)
}

/// A server that believes every client and asks each for a certificate.
///
/// # Errors
/// Only where rustls refuses its own suites.
pub fn server(shown: Arc<CertifiedKey>, told: &Arc<Told>) -> Result<ServerConnection> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Anyone))
        .with_cert_resolver(Arc::new(Shows(Some(shown))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.key_log = Arc::clone(told) as _;
    config.send_tls13_tickets = 0;
    Ok(ServerConnection::new(Arc::new(config))?)
}

#[derive(Debug)]
struct Shows(Shown);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Behaves to the end of the connection: shakes hands, and reads on until it is told why not.
pub fn behave(mut tcp: &TcpStream, side: &mut Connection) -> Ending {
    let _ = tcp.set_read_timeout(Some(PATIENCE));
    // A refusal shows in what is read next; a failed write says less.
    if let Err(error) = side.complete_io(&mut tcp) {
        return by(side, &error, tcp);
    }
    loop {
        match side.read_tls(&mut tcp) {
            Ok(0) => return Ending::Fin,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return ending_by(&error),
        }
        match side.process_new_packets() {
            Ok(_) => {
                let _ = side.reader().read(&mut [0; 1024]);
            }
            Err(rustls::Error::AlertReceived(alert)) => return Ending::Alert(u8::from(alert)),
            Err(_) => return Ending::Fin,
        }
    }
}

/// Why a handshake ended. A write that met a closed socket has hidden the alert that is still to be read.
fn by(side: &mut Connection, error: &std::io::Error, tcp: &TcpStream) -> Ending {
    let ended = ending_by(error);
    if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
        return ended;
    }
    let (rest, _) = read_to_end(tcp);
    let mut rest = &rest[..];
    while side.read_tls(&mut rest).is_ok_and(|read| read > 0) {
        if let Err(rustls::Error::AlertReceived(alert)) = side.process_new_packets() {
            return Ending::Alert(u8::from(alert));
        }
    }
    ended
}

/// A complete handshake whose records are the adversary's own from here on.
pub struct Session {
    /// The socket.
    pub tcp: TcpStream,
    /// What the peer opens.
    pub seals: Half,
    opens: Half,
}

impl Session {
    /// Shakes hands as a client, in full.
    ///
    /// # Errors
    /// If it was refused.
    pub fn as_client(tcp: TcpStream, shown: Shown) -> Result<Self> {
        let told = Arc::default();
        let side = client(shown, &told)?;
        Self::shake(tcp, side.into(), &told, ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"])
    }

    /// The same as a server.
    ///
    /// # Errors
    /// If it was refused.
    pub fn as_server(tcp: TcpStream, shown: Arc<CertifiedKey>) -> Result<Self> {
        let told = Arc::default();
        let side = server(shown, &told)?;
        Self::shake(tcp, side.into(), &told, ["SERVER_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0"])
    }

    fn shake(tcp: TcpStream, mut side: Connection, told: &Told, [seals, opens]: [&str; 2]) -> Result<Self> {
        tcp.set_read_timeout(Some(PATIENCE))?;
        while side.is_handshaking() {
            side.complete_io(&mut &tcp).context("the adversary's handshake")?;
        }
        Ok(Self { tcp, seals: told.half(seals)?, opens: told.half(opens)? })
    }

    /// As a client up to the server's flight, so that what follows is sealed as a client's certificate would be.
    ///
    /// # Errors
    /// If it was refused.
    pub fn half_way(tcp: TcpStream, shown: Shown) -> Result<Self> {
        let told = Arc::default();
        let mut side = client(shown, &told)?;
        side.write_tls(&mut &tcp)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let opens = loop {
            side.read_tls(&mut &tcp)?;
            side.process_new_packets()?;
            if let Ok(opens) = told.half("SERVER_TRAFFIC_SECRET_0") {
                break opens;
            }
        };
        Ok(Self { tcp, seals: told.half("CLIENT_HANDSHAKE_TRAFFIC_SECRET")?, opens })
    }

    /// Says something to an application that echoes, and hears it: the connection is established.
    ///
    /// # Errors
    /// If it does not come back.
    pub fn settle(&mut self) -> Result<()> {
        self.say(DATA, b"settled")?;
        let echoed = self.opens.open(&read_record(&self.tcp)?)?;
        ensure!(echoed == (DATA, b"settled".to_vec()), "{echoed:?} came back");
        Ok(())
    }

    /// Sends one sealed record.
    ///
    /// # Errors
    /// Only where the library fails.
    pub fn say(&mut self, kind: u8, content: &[u8]) -> Result<()> {
        throw(&self.tcp, &self.seals.seal(kind, content, 0)?);
        Ok(())
    }

    /// Goes on under the next key.
    ///
    /// # Errors
    /// Only where the library fails.
    pub fn update(&mut self) -> Result<()> {
        self.seals = self.seals.updated()?;
        Ok(())
    }

    /// Reads to the end, through every sealed record.
    pub fn ending(&mut self) -> Ending {
        let _ = self.tcp.set_read_timeout(Some(PATIENCE));
        loop {
            let record = match read_record(&self.tcp) {
                Ok(record) => record,
                Err(error) => return ending_by(&error),
            };
            match self.opens.open(&record) {
                Ok((ALERT, alert)) if alert.len() == 2 => return Ending::Alert(alert[1]),
                Ok(_) => {}
                // Behind a key update of its own: there is an alert no more that could be read.
                Err(_) => return read_to_end(&self.tcp).1,
            }
        }
    }
}
