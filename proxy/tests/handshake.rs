//! The handshake as a matrix: who meets whom, and what each side then knows.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

mod kit;

use std::{fs, path::Path, sync::Arc, time::Duration};

use kit::{Ca, pair};
use ringmail_identity::PeerReason;
use ringmail_proxy::{
    config::Config,
    credentials::{Keeper, RefreshErrorReason, Status},
    reason::Reason,
    slab::Size,
    tls::{self, Credentials, CredentialsRx},
};
use rustls::{AlertDescription, CipherSuite, NamedGroup};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{sleep, timeout},
};

const DEADLINE: Duration = Duration::from_secs(5);

async fn meet(
    client: &Credentials,
    server: &Credentials,
) -> (Result<String, Reason>, Result<String, Reason>) {
    let (near, far) = pair().await;
    let address = near.peer_addr().unwrap().ip();
    let (connected, accepted) = tokio::join!(
        tls::connect(near, address, client, DEADLINE),
        tls::accept(far, Vec::new(), server, DEADLINE)
    );
    let name = |result: Result<tls::MeshStream, (tls::HandshakeError, Option<TcpStream>)>| {
        result.map(|stream| stream.peer().id.to_string()).map_err(|(error, _)| error.reason())
    };
    (name(connected), name(accepted))
}

#[tokio::test]
async fn each_side_learns_the_identity_of_the_other() {
    let ca = Ca::new("root");
    let (client, server) = meet(&ca.credentials("a"), &ca.credentials("b")).await;
    assert_eq!(client, Ok("spiffe://cluster.local/ns/ignite/sa/b".to_owned()));
    assert_eq!(server, Ok("spiffe://cluster.local/ns/ignite/sa/a".to_owned()));
}

#[tokio::test]
async fn a_peer_of_a_foreign_root_is_refused_by_both_sides() {
    let (ours, foreign) = (Ca::new("ours"), Ca::new("foreign"));
    let (client, _) = meet(&ours.credentials("a"), &foreign.credentials("b")).await;
    assert_eq!(client, Err(Reason::Certificate(PeerReason::UnknownIssuer)));
    let trusting = foreign.credentials_trusting("a", ours.bundle());
    let (client, server) = meet(&trusting, &ours.credentials("b")).await;
    assert_eq!(server, Err(Reason::Certificate(PeerReason::UnknownIssuer)));
    // The server's refusal comes after the client believes to be done, as TLS 1.3 has it.
    assert_eq!(client, Ok("spiffe://cluster.local/ns/ignite/sa/b".to_owned()));
}

/// Passes on what comes, and tells in how many writes it came: nobody writes while this reads.
async fn passing(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> usize {
    let (mut writes, mut chunk) = (0, vec![0; 1 << 16]);
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return writes,
            Ok(read) => {
                writes += 1;
                to.write_all(&chunk[..read]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_flight_is_one_write_however_many_messages_it_has() {
    let ca = Ca::new("root");
    let (client, server) = (ca.credentials("a"), ca.credentials("b"));
    let ((near, towards_near), (towards_far, far)) = (pair().await, pair().await);
    let address = near.peer_addr().unwrap().ip();
    let (from_near, to_near) = towards_near.into_split();
    let (from_far, to_far) = towards_far.into_split();
    let clients = tokio::spawn(passing(from_near, to_far));
    let servers = tokio::spawn(passing(from_far, to_near));
    let met = tokio::join!(
        tls::connect(near, address, &client, DEADLINE),
        tls::accept(far, Vec::new(), &server, DEADLINE)
    );
    assert!(met.0.is_ok() && met.1.is_ok());
    drop(met);
    // The client says hello, and then all from its certificate on; the server all at once.
    assert_eq!((clients.await.unwrap(), servers.await.unwrap()), (2, 1));
}

/// Writes what a source would hand out for `id` into `dir`.
fn write_files(ca: &Ca, id: &str, dir: &Path) {
    let (leaf, key) = ca.leaf(id);
    fs::write(dir.join("tls.crt"), leaf.pem()).unwrap();
    fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
}

/// Follows the files of `dir` as the account `ignite/node` of `own`, known as `aliases` too.
fn keep(own: &str, aliases: &str, dir: &Path) -> (CredentialsRx, Arc<Status>) {
    let dir = dir.display();
    let settings = format!(
        "trust_domain: {own}\ntrust_domain_aliases: [{aliases}]\nnamespace: ignite\nservice_account: node\n\
         identity_source: files\ncert_file: {dir}/tls.crt\nkey_file: {dir}/tls.key\nbundle_file: {dir}/ca.crt\n"
    );
    let config = Config::from_text("test.yaml", &settings).unwrap();
    let (sender, receiver) = watch::channel(None);
    let status = Arc::new(Status::default());
    let books = Arc::clone(&status);
    tokio::spawn(async move { Keeper::default().run(&config, sender, books).await });
    (receiver, status)
}

/// The credentials of a proxy of `own` with the alias setting `aliases`.
async fn credentials_of(ca: &Ca, own: &str, aliases: &str) -> Arc<Credentials> {
    let dir = tempfile::tempdir().unwrap();
    write_files(ca, &format!("spiffe://{own}/ns/ignite/sa/node"), dir.path());
    let (mut credentials, _) = keep(own, aliases, dir.path());
    let held = timeout(DEADLINE, credentials.wait_for(Option::is_some)).await.unwrap().unwrap();
    Arc::clone(held.as_ref().unwrap())
}

#[tokio::test]
async fn a_peer_of_an_alias_is_accepted_by_both_sides_and_one_of_a_foreign_domain_by_none() {
    let ca = Ca::new("root");
    let own = credentials_of(&ca, "cluster.local", "old.example, older.example").await;
    let stern = credentials_of(&ca, "cluster.local", "").await;
    // Whoever meets it is accepted: what is seen is the verdict of the others.
    let old = credentials_of(&ca, "old.example", "cluster.local").await;
    let name = |domain: &str| Ok(format!("spiffe://{domain}/ns/ignite/sa/node"));
    assert_eq!(meet(&old, &own).await, (name("cluster.local"), name("old.example")));
    assert_eq!(meet(&own, &old).await, (name("old.example"), name("cluster.local")));
    let foreign = Err(Reason::Certificate(PeerReason::ForeignTrustDomain));
    assert_eq!(meet(&old, &stern).await.1, foreign);
    assert_eq!(meet(&stern, &old).await.0, foreign);
    let elsewhere = credentials_of(&ca, "elsewhere.example", "cluster.local").await;
    assert_eq!(meet(&elsewhere, &own).await.1, foreign);
    assert_eq!(meet(&own, &elsewhere).await.0, foreign);
}

#[tokio::test]
async fn a_certificate_of_an_alias_is_not_taken_for_our_own() {
    let (ca, dir) = (Ca::new("root"), tempfile::tempdir().unwrap());
    write_files(&ca, "spiffe://old.example/ns/ignite/sa/node", dir.path());
    let (credentials, status) = keep("cluster.local", "old.example", dir.path());
    timeout(DEADLINE, async {
        while status.last_error().is_none() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(status.last_error().unwrap().reason, RefreshErrorReason::WrongIdentity);
    assert!(credentials.borrow().is_none());
}

#[tokio::test]
async fn the_hybrid_group_aes_128_and_tls_13_are_what_two_sidecars_agree_on() {
    let ca = Ca::new("root");
    let (near, far) = pair().await;
    let address = near.peer_addr().unwrap().ip();
    let (client, server) = (ca.credentials("a"), ca.credentials("b"));
    let (connected, accepted) = tokio::join!(
        tls::connect(near, address, &client, DEADLINE),
        tls::accept(far, Vec::new(), &server, DEADLINE)
    );
    for stream in [connected.unwrap(), accepted.unwrap()] {
        // A suite of TLS 1.3 alone.
        assert_eq!(stream.agreed().suite, Some(CipherSuite::TLS13_AES_128_GCM_SHA256));
        assert_eq!(stream.agreed().group, Some(NamedGroup::X25519MLKEM768));
    }
}

/// A client of plain rustls that does as `config` says, against our server.
async fn foreign_client(config: rustls::ClientConfig, server: &Credentials) -> Result<(), Reason> {
    let (near, far) = pair().await;
    let name = rustls::pki_types::ServerName::IpAddress(near.peer_addr().unwrap().ip().into());
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let client = async {
        if let Ok(mut stream) = connector.connect(name, near).await {
            let _ = stream.read(&mut [0; 1]).await;
        }
    };
    let server = async {
        let result = tls::accept(far, Vec::new(), server, DEADLINE).await;
        result.map(|_| ()).map_err(|(error, _)| error.reason())
    };
    tokio::join!(client, server).1
}

fn foreign_config(ca: &Ca, with_certificate: bool, alpn: &[&str]) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let svid = ca.svid("spiffe://cluster.local/ns/ignite/sa/guest");
    let mut config = if with_certificate {
        builder.with_client_auth_cert(svid.chain().to_vec(), svid.key().der()).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let ca = Ca::new("root");
    let refused = foreign_client(foreign_config(&ca, false, &["istio"]), &ca.credentials("b")).await;
    assert_eq!(refused, Err(Reason::NoClientCertificate));
}

#[tokio::test]
async fn istios_protocol_names_and_none_at_all_are_accepted_and_others_refused() {
    let ca = Ca::new("root");
    let server = ca.credentials("b");
    for alpn in [&["istio"] as &[&str], &["istio-peer-exchange", "istio"], &[]] {
        assert_eq!(foreign_client(foreign_config(&ca, true, alpn), &server).await, Ok(()), "{alpn:?}");
    }
    let refused = foreign_client(foreign_config(&ca, true, &["h2"]), &server).await;
    assert_eq!(refused, Err(Reason::HandshakeFailed));
}

/// A ClientHello of TLS 1.2: signature algorithms and groups, but no supported_versions extension.
fn hello_of_tls_12() -> Vec<u8> {
    let extensions: &[u8] = &[0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 23];
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, extensions.len() as u8]);
    body.extend(extensions);
    let mut record = vec![0x16, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    record.extend(body);
    record
}

#[tokio::test]
async fn whoever_speaks_no_tls_13_is_refused_with_the_reason() {
    let ca = Ca::new("root");
    let server = ca.credentials("b");
    let rows: &[(&str, &[u8], Reason)] = &[
        ("ignite discovery", &[0, 0, 0x47, 0x47, 0xac, 0xed, 0, 5], Reason::PlaintextRefused),
        ("thin client of 22 bytes", &[22, 0, 0, 0, 1, 1, 0, 7, 0, 0, 0, 2], Reason::PlaintextRefused),
        ("http", b"GET /ignite?cmd=version HTTP/1.1\r\nHost: a\r\n\r\n", Reason::PlaintextRefused),
        ("memcached", &[0x80, 0, 0, 0, 0, 0, 0, 0], Reason::PlaintextRefused),
        ("random", &[0x9c, 0x11, 0xfe, 0x03, 0x77, 0x21, 0x90, 0x00], Reason::PlaintextRefused),
        ("tls 1.2", &hello_of_tls_12(), Reason::TlsVersionRefused),
        ("half a hello, then the end", &[0x16, 3, 1, 0, 200, 1, 0, 0], Reason::HandshakeEof),
        ("nothing, then the end", &[], Reason::HandshakeEof),
    ];
    for (what, bytes, expected) in rows {
        let (mut near, far) = pair().await;
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let refused = tls::accept(far, Vec::new(), &server, DEADLINE).await.map(|_| ());
        let (error, _) = refused.unwrap_err();
        assert_eq!(error.reason(), *expected, "{what}: {error}");
    }
}

/// What is no record of TLS, on its way from somebody who has spoken TLS before.
const GARBAGE: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n\r\n",
    &[22, 3, 3, 0x7f, 0xff, 1],
    &[22, 3, 3, 0, 0, 22, 3, 3, 0, 0],
    &[0x99, 3, 3, 0, 1, 0],
    &[21, 3, 3, 0, 1, 2],
];

#[tokio::test]
async fn whoever_has_spoken_tls_is_never_called_plaintext() {
    let ca = Ca::new("root");
    let (client, server) = (ca.credentials("a"), ca.credentials("b"));
    let name = rustls::pki_types::ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    for garbage in GARBAGE {
        let (mut near, far) = pair().await;
        let config = Arc::new(foreign_config(&ca, true, &["istio"]));
        let mut hello = Vec::new();
        rustls::ClientConnection::new(config, name.clone()).unwrap().write_tls(&mut hello).unwrap();
        near.write_all(&[&hello, *garbage].concat()).await.unwrap();
        let (error, _) = tls::accept(far, Vec::new(), &server, DEADLINE).await.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), Reason::HandshakeFailed, "{garbage:?}: {error}");
    }
    for (answer, expected) in [
        (GARBAGE[0], Reason::PlaintextRefused),
        (GARBAGE[1], Reason::HandshakeFailed),
        (GARBAGE[2], Reason::HandshakeFailed),
        (GARBAGE[3], Reason::PlaintextRefused),
        (GARBAGE[4], Reason::HandshakeFailed),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Reason::PlaintextRefused),
    ] {
        let (near, mut far) = pair().await;
        let address = near.peer_addr().unwrap().ip();
        far.write_all(answer).await.unwrap();
        let (error, _) = tls::connect(near, address, &client, DEADLINE).await.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), expected, "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn silence_and_half_a_handshake_end_at_the_deadline() {
    let ca = Ca::new("root");
    let server = ca.credentials("b");
    let short = Duration::from_millis(300);
    for bytes in [&[] as &[u8], &[0x16, 3, 1, 0, 200, 1, 0]] {
        let (mut near, far) = pair().await;
        near.write_all(bytes).await.unwrap();
        let refused = timeout(DEADLINE, tls::accept(far, Vec::new(), &server, short)).await.unwrap();
        assert_eq!(refused.map(|_| ()).unwrap_err().0.reason(), Reason::HandshakeTimeout);
    }
}

#[tokio::test]
async fn bytes_that_were_read_before_the_handshake_are_part_of_it() {
    let ca = Ca::new("root");
    let (client, server) = (ca.credentials("a"), ca.credentials("b"));
    let (near, mut far) = pair().await;
    let address = near.peer_addr().unwrap().ip();
    let connecting = tls::connect(near, address, &client, DEADLINE);
    let accepting = async {
        let mut first = vec![0; 6];
        far.read_exact(&mut first).await.unwrap();
        tls::accept(far, first, &server, DEADLINE).await
    };
    let (connected, accepted) = tokio::join!(connecting, accepting);
    assert!(connected.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn a_refused_client_is_told_by_an_alert() {
    let (ours, foreign) = (Ca::new("ours"), Ca::new("foreign"));
    let client = foreign.credentials_trusting("a", ours.bundle());
    let server = ours.credentials("b");
    let (near, far) = pair().await;
    let address = near.peer_addr().unwrap().ip();
    let (connected, accepted) = tokio::join!(tls::connect(near, address, &client, DEADLINE), async {
        let refused = tls::accept(far, Vec::new(), &server, DEADLINE).await;
        let (_, socket) = refused.map(|_| ()).unwrap_err();
        ringmail_proxy::ending::finish(socket.unwrap()).await;
    });
    let () = accepted;
    let mut stream = connected.unwrap();
    let read = std::future::poll_fn(|cx| stream.poll_fill(cx, Size::Small)).await;
    let alert = tls::stream::alert_of(&read.unwrap_err());
    assert_eq!(alert, Some(AlertDescription::CertificateUnknown));
}
