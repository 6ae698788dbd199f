//! OpenSSL, which changes its key whenever it is told to.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};

use super::{
    Files, PATIENCE, free_address, inbound,
    kit::{Ca, wire::run},
    line_with, outbound, started,
};

const SUITES: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// OpenSSL takes a command for one only where it is all that one read of its input gives.
const APART: Duration = Duration::from_millis(150);

impl Files {
    fn openssl(&self, role: &str, suite: &str) -> Command {
        let mut command = Command::new("openssl");
        command.args([role, "-tls1_3", "-ciphersuites", suite]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.arg("-cert").arg(self.path("peer.pem")).arg("-key").arg(self.path("peer.pem"));
        command.arg("-CAfile").arg(self.path("root.pem")).kill_on_drop(true);
        command
    }
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
            let port = free_address().await;
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
