//! Other people's TLS at the other end, both ways: OpenSSL's and the JDK's with key updates from either side, and Envoy's.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

mod envoy;
mod jdk;
#[path = "../kit/mod.rs"]
mod kit;
mod openssl;

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use kit::{
    Ca, Handles, context, pair,
    wire::{NO_POLICY, start},
};
use ringmail_proxy::{record::Direction, tls};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// A JVM starts within seconds, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Enough for several key updates of the JDK in each direction.
const BYTES: usize = 6 << 20;

/// Files of a peer: `peer.pem` (chain and key) and `root.pem`, and what a test adds to them.
struct Files(TempDir);

impl Files {
    fn new(ca: &Ca) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let (leaf, key) = ca.leaf("spiffe://cluster.local/ns/ignite/sa/peer");
        fs::write(files.path("root.pem"), ca.pem()).unwrap();
        fs::write(files.path("peer.pem"), [leaf.pem(), ca.pem(), key.serialize_pem()].concat()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
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

/// An application that gives back what it gets, and ends when the other side has.
async fn echo(application: TcpStream) {
    let (mut from, mut to) = application.into_split();
    timeout(PATIENCE, tokio::io::copy(&mut from, &mut to)).await.unwrap().unwrap();
    to.shutdown().await.unwrap();
}

/// An application that sends, ends, and is to get back all that it has sent, and the end.
async fn hear_the_echo(application: TcpStream) {
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
}

/// A port on which nobody listens now.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
