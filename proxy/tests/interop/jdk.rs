//! The JDK, as Ignite's own TLS uses it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{
    BYTES, Files, PATIENCE, echo, hear_the_echo, inbound,
    kit::{Ca, wire::run},
    line_with, outbound, started,
};

/// The JDK changes its key after so many bytes, by its own setting.
const KEY_LIMITS: &str =
    "jdk.tls.keyLimits=AES/GCM/NoPadding KeyUpdate 2^20, ChaCha20-Poly1305 KeyUpdate 2^20\n";

impl Files {
    async fn key_store(&self) -> PathBuf {
        let mut export = Command::new("openssl");
        export.args(["pkcs12", "-export", "-passout", "pass:password", "-in"]).arg(self.path("peer.pem"));
        let done = export.arg("-out").arg(self.path("peer.p12")).output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.path("peer.p12")
    }

    async fn java(&self, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
        fs::write(self.path("java.security"), KEY_LIMITS).unwrap();
        let mut command = Command::new("java");
        command.arg(format!("-Djava.security.properties={}", self.path("java.security").display()));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/Peer.java")).args(arguments);
        started(command.stdout(Stdio::piped()).kill_on_drop(true))
    }
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
        echo(application).await;
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
        hear_the_echo(application).await;
        line_with(&mut lines, "echoed").await;
        assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
    })
    .await;
}
