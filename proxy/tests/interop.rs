//! Other people's TLS at the other end: OpenSSL's and the JDK's, both ways, with key updates from either side.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

mod kit;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kit::{
    Ca, Handles, context, pair,
    wire::{NO_POLICY, run, start},
};
use ringmail_proxy::{record::Direction, tls};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};

/// A JVM starts within seconds, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// OpenSSL takes a command for one only where it is all that one read of its input gives.
const APART: Duration = Duration::from_millis(150);

const SUITES: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// The JDK changes its key after so many bytes, by its own setting.
const KEY_LIMITS: &str =
    "jdk.tls.keyLimits=AES/GCM/NoPadding KeyUpdate 2^20, ChaCha20-Poly1305 KeyUpdate 2^20\n";

/// Enough for several key updates of the JDK in each direction.
const BYTES: usize = 6 << 20;

/// Files of a peer: `peer.pem` (chain and key), `root.pem`, `peer.p12` and the JDK's settings.
struct Files(TempDir);

impl Files {
    fn new(ca: &Ca) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let (leaf, key) = ca.leaf("spiffe://cluster.local/ns/ignite/sa/peer");
        fs::write(files.path("root.pem"), ca.pem()).unwrap();
        fs::write(files.path("peer.pem"), [leaf.pem(), ca.pem(), key.serialize_pem()].concat()).unwrap();
        fs::write(files.path("java.security"), KEY_LIMITS).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn key_store(&self) -> PathBuf {
        let mut export = Command::new("openssl");
        export.args(["pkcs12", "-export", "-passout", "pass:password", "-in"]).arg(self.path("peer.pem"));
        let done = export.arg("-out").arg(self.path("peer.p12")).output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.path("peer.p12")
    }

    fn openssl(&self, role: &str, suite: &str) -> Command {
        let mut command = Command::new("openssl");
        command.args([role, "-tls1_3", "-ciphersuites", suite]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.arg("-cert").arg(self.path("peer.pem")).arg("-key").arg(self.path("peer.pem"));
        command.arg("-CAfile").arg(self.path("root.pem")).kill_on_drop(true);
        command
    }

    async fn java(&self, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut command = Command::new("java");
        command.arg(format!("-Djava.security.properties={}", self.path("java.security").display()));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/Peer.java")).args(arguments);
        started(command.stdout(Stdio::piped()).kill_on_drop(true))
    }
}

fn started(command: &mut Command) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

async fn line_with(lines: &mut Lines<BufReader<ChildStdout>>, text: &str) -> String {
    let mut seen = Vec::new();
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with {text}: {seen:#?}");
    };
    timeout(PATIENCE, found).await.unwrap()
}

/// A sidecar that lets one peer in, before an application that is the caller.
async fn inbound(ca: &Ca, listener: &TcpListener) -> (Handles, TcpStream) {
    let credentials = ca.credentials("n1");
    let handles = context(&credentials, "", NO_POLICY);
    let (tcp, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let stream =
        tls::accept(tcp, Vec::new(), &credentials, PATIENCE).await.map_err(|(error, _)| error).unwrap();
    let (sidecar, application) = pair().await;
    start(&handles, Direction::Inbound, stream, sidecar).await;
    (handles, application)
}

/// A sidecar that reaches a peer, for an application that is the caller.
async fn outbound(ca: &Ca, address: SocketAddr) -> (Handles, TcpStream) {
    let credentials = ca.credentials("n1");
    let handles = context(&credentials, "", NO_POLICY);
    let tcp = TcpStream::connect(address).await.unwrap();
    let stream =
        tls::connect(tcp, address.ip(), &credentials, PATIENCE).await.map_err(|(error, _)| error).unwrap();
    let (sidecar, application) = pair().await;
    start(&handles, Direction::Outbound, stream, sidecar).await;
    (handles, application)
}

/// Messages both ways with a key update of OpenSSL's after each pair, and then the end, which it follows.
async fn exchange(mut application: TcpStream, child: &mut Child, lines: &mut Lines<BufReader<ChildStdout>>) {
    let input = child.stdin.as_mut().unwrap();
    let mut buffer = [0; 64];
    for (round, command) in ["k\n", "K\n", "K\n", "k\n"].into_iter().enumerate() {
        let said = format!("hear {round}\n");
        input.write_all(said.as_bytes()).await.unwrap();
        timeout(PATIENCE, application.read_exact(&mut buffer[..said.len()])).await.unwrap().unwrap();
        assert_eq!(&buffer[..said.len()], said.as_bytes());
        let answer = format!("answer {round}");
        application.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        line_with(lines, &answer).await;
        sleep(APART).await;
        input.write_all(command.as_bytes()).await.unwrap();
        sleep(APART).await;
    }
    drop(application);
    timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
}

#[tokio::test]
async fn openssl_dials_and_changes_its_key() {
    run(async {
        let ca = Ca::new("root");
        let files = Files::new(&ca);
        for suite in SUITES {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let mut command = files.openssl("s_client", suite);
            let (mut child, mut lines) = started(command.args(["-alpn", "istio", "-connect", &address]));
            let (handles, application) = inbound(&ca, &listener).await;
            exchange(application, &mut child, &mut lines).await;
            drop(handles);
        }
    })
    .await;
}

#[tokio::test]
async fn openssl_is_dialled_and_changes_its_key() {
    run(async {
        let ca = Ca::new("root");
        let files = Files::new(&ca);
        for suite in SUITES {
            let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            let mut command = files.openssl("s_server", suite);
            command.args(["-alpn", "istio", "-Verify", "2", "-naccept", "1", "-accept", &port.to_string()]);
            let (mut child, mut lines) = started(&mut command);
            line_with(&mut lines, "ACCEPT").await;
            let (handles, application) = outbound(&ca, port).await;
            exchange(application, &mut child, &mut lines).await;
            drop(handles);
        }
    })
    .await;
}

#[tokio::test]
async fn the_jdk_dials_changes_its_key_and_ends_in_order() {
    run(async {
        let ca = Ca::new("root");
        let files = Files::new(&ca);
        let store = files.key_store().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, bytes) = (listener.local_addr().unwrap().port().to_string(), BYTES.to_string());
        let (mut child, mut lines) = files.java(&["client", &port, store.to_str().unwrap(), &bytes]).await;
        let (_handles, application) = inbound(&ca, &listener).await;
        let (mut from, mut to) = application.into_split();
        timeout(PATIENCE, tokio::io::copy(&mut from, &mut to)).await.unwrap().unwrap();
        to.shutdown().await.unwrap();
        let line = line_with(&mut lines, "received").await;
        assert!(line.starts_with(&format!("received {BYTES} TLS_AES")), "{line}");
        assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
    })
    .await;
}

#[tokio::test]
async fn the_jdk_is_dialled_changes_its_key_and_ends_in_order() {
    run(async {
        let ca = Ca::new("root");
        let files = Files::new(&ca);
        let store = files.key_store().await;
        let (mut child, mut lines) = files.java(&["server", store.to_str().unwrap()]).await;
        let port = line_with(&mut lines, "port ").await[5..].parse().unwrap();
        let (_handles, application) = outbound(&ca, SocketAddr::from(([127, 0, 0, 1], port))).await;
        let (mut from, mut to) = application.into_split();
        let sent: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
        let sending = async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut received = Vec::with_capacity(BYTES);
        let both = async { tokio::join!(sending, from.read_to_end(&mut received)).1.unwrap() };
        assert_eq!(timeout(PATIENCE, both).await.unwrap(), BYTES);
        assert!(received == sent);
        line_with(&mut lines, "echoed").await;
        assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
    })
    .await;
}
