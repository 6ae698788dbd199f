//! Rotating the root of a Secret while its CAs run.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringmail_evidence::shown;
use ringmail_identity::CertificateDer;

use crate::kube_bundle;
use crate::support::fake_api_server::{FakeApiServer, data, key};
use crate::support::{Ca, eventually, folder, verify};

const FLAGS: [&str; 2] = ["--root-secret", "ringmail-ca-root"];

struct Operator {
    folder: std::sync::Arc<tempfile::TempDir>,
    server: FakeApiServer,
}

impl Operator {
    fn of(server: &FakeApiServer) -> Self {
        Self { folder: folder(), server: server.clone() }
    }

    fn rotate(&self, flags: &[&str]) -> Output {
        let kubeconfig = self.server.kubeconfig(self.folder.path());
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail-ca"));
        command.args(["rotate-root", "--kubeconfig", &kubeconfig]).args(flags).env_clear().output().unwrap()
    }

    fn done(&self, flags: &[&str]) -> String {
        let output = self.rotate(flags);
        assert!(output.status.success(), "{flags:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, flags: &[&str], expected: &str) {
        let output = self.rotate(flags);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains(expected), "{flags:?}: {error}");
    }
}

/// How long it takes until `holds`.
fn takes(what: &str, holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    eventually(what, holds);
    began.elapsed()
}

async fn leaf(ca: &Ca) -> Vec<CertificateDer<'static>> {
    ca.leaf().await[..1].to_vec()
}

#[tokio::test]
async fn both_replicas_follow_each_stage_at_once_and_no_certificate_is_cut_off() {
    let server = FakeApiServer::start(&["ringmail-system"]);
    let operator = Operator::of(&server);
    let cas = [Ca::on(&server, &FLAGS), Ca::on(&server, &FLAGS)];
    let old = leaf(&cas[0]).await;
    operator.refused(&["--stage", "sign"], "--stage trust comes first");

    assert!(operator.done(&["--stage", "trust"]).contains("next, in 12 h: --stage sign"));
    for ca in &cas {
        let took = takes("both are trusted", || ca.bundle().roots().len() == 2);
        assert!(took < Duration::from_secs(3), "{took:?}");
        verify(&ca.bundle(), &old).unwrap();
    }
    operator.refused(&["--stage", "sign"], "expected at least 12 h 0 min");

    server.conflicts(2);
    operator.done(&["--stage", "sign", "--min-age", "1ms"]);
    for ca in &cas {
        let signer = || ca.bundle().roots()[0].der.clone();
        takes("the new one signs", || verify_under(&signer(), &old).is_err());
        let new = leaf(ca).await;
        verify(&ca.bundle(), &new).unwrap();
        verify(&ca.bundle(), &old).unwrap();
        verify_under(&signer(), &new).unwrap();
    }
    operator.refused(&["--stage", "trust"], "--stage retire comes first");
    operator.refused(&["--stage", "retire"], "expected at least 24 h 0 min");
    assert!(operator.done(&["--stage", "sign"]).contains("signs already"));

    let new = leaf(&cas[1]).await;
    operator.done(&["--stage", "retire", "--min-age", "1ms"]);
    for ca in &cas {
        takes("the old one has left", || ca.bundle().roots().len() == 1);
        verify(&ca.bundle(), &new).unwrap();
        assert!(verify(&ca.bundle(), &old).is_err());
    }
    assert!(operator.done(&[]).contains("no rotation in progress"));
    // The mark follows, so that a restart finds what it expects.
    let mark = key("configmaps", "ringmail-system", "ringmail-ca-root-cert");
    let root =
        data(&server.get(&key("secrets", "ringmail-system", "ringmail-ca-root")).unwrap())["ca.crt"].clone();
    eventually("the configmap has the new root alone", || {
        data(&server.get(&mark).unwrap())["root-cert.pem"] == root
    });
    drop(cas);
    verify(&Ca::on(&server, &FLAGS).bundle(), &new).unwrap();
}

fn verify_under(root: &CertificateDer<'static>, leaf: &[CertificateDer<'static>]) -> Result<(), String> {
    let trust_domain = "cluster.local".parse().unwrap();
    let bundle = ringmail_identity::TrustBundle::new(trust_domain, vec![root.clone()]).unwrap();
    verify(&bundle, leaf).map(|_| ())
}

#[tokio::test]
async fn a_stage_can_be_undone() {
    let server = FakeApiServer::start(&["ringmail-system"]);
    let operator = Operator::of(&server);
    let ca = Ca::on(&server, &FLAGS);
    let first = ca.bundle().roots()[0].der.clone();
    operator.done(&["--stage", "trust"]);
    operator.done(&["--stage", "sign", "--min-age", "1ms"]);
    eventually("the new one signs", || ca.bundle().roots()[0].der != first);
    operator.done(&["--stage", "undo"]);
    eventually("the old one signs again", || ca.bundle().roots()[0].der == first);
    assert_eq!(ca.bundle().roots().len(), 2);
    operator.refused(&["--stage", "undo"], "expected at least 24 h");
    operator.done(&["--stage", "undo", "--min-age", "1ms"]);
    eventually("the new one has left", || ca.bundle().roots().len() == 1);
}

#[tokio::test]
async fn a_secret_of_another_root_is_not_taken_while_running() {
    let server = FakeApiServer::start(&["ringmail-system"]);
    let ca = Ca::on(&server, &FLAGS);
    let first = ca.bundle().roots()[0].der.clone();
    let stranger = FakeApiServer::start(&["ringmail-system"]);
    drop(Ca::on(&stranger, &FLAGS));
    let secret = key("secrets", "ringmail-system", "ringmail-ca-root");
    let own = server.get(&secret).unwrap();
    server.put(&secret, stranger.get(&secret).unwrap());
    ca.await_metric("ringmail_ca_reloads_total{result=\"refused\"}", 1.0);
    let line = ca.line(|line| line["level"] == "ERROR");
    assert!(line["error"].as_str().unwrap().contains("no root in common with the bundle in force"), "{line}");
    server.delete(&secret);
    ca.await_metric("ringmail_ca_reloads_total{result=\"refused\"}", 2.0);
    verify_under(&first, &leaf(&ca).await).unwrap();
    server.put(&secret, own);
    verify_under(&first, &leaf(&ca).await).unwrap();
}

/// What the next kill waits, of what the last one did: steps that differ, so that no two ways there end at the same moments.
const EARLIER: f64 = 0.8;
const LATER: f64 = 1.15;

/// The command is one write: killed at any moment, the Secret holds the stage before or the one after, and serves.
#[tokio::test]
async fn a_killed_rotation_leaves_a_whole_root_and_every_leaf_valid() {
    let rounds = if ringmail_evidence::nightly() { 200 } else { 18 };
    let server = FakeApiServer::start(&["ringmail-system"]);
    let operator = Operator::of(&server);
    let first = Ca::on(&server, &FLAGS);
    let mut old = leaf(&first).await;
    let began = Instant::now();
    operator.done(&["--stage", "trust"]);
    // Around the moment of the write, however busy the machine is: later after one that came before it, and the other way round.
    let mut killed_after = began.elapsed();
    let mut moved = 0;
    let kubeconfig = server.kubeconfig(operator.folder.path());
    for _ in 0..rounds {
        let before = server.get(&key("secrets", "ringmail-system", "ringmail-ca-root")).unwrap();
        let stage = ["sign", "retire", "trust"][(moved % 3) as usize];
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail-ca"));
        command.args(["rotate-root", "--kubeconfig", &kubeconfig, "--stage", stage, "--min-age", "1ms"]);
        let mut child = command.env_clear().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(killed_after);
        child.kill().unwrap();
        child.wait().unwrap();
        let after = server.get(&key("secrets", "ringmail-system", "ringmail-ca-root")).unwrap();
        let was_through = before["data"] != after["data"];
        moved += u32::from(was_through);
        killed_after = killed_after.mul_f64(if was_through { EARLIER } else { LATER });
        // One that starts on what is there serves at once; it is killed too.
        let ca = Ca::on(&server, &FLAGS);
        let new = leaf(&ca).await;
        // The mark of the mesh's roots is the first one's to write, and by day stages are hours apart.
        eventually("the mark follows", || {
            kube_bundle::holds(&server, "ringmail-system", &kube_bundle::bundle(&ca))
        });
        verify(&ca.bundle(), &new).unwrap();
        if stage != "retire" {
            verify(&ca.bundle(), &old).unwrap();
        }
        old = new;
        drop(ca.kill());
    }
    shown!(
        "F3",
        "rotations and CAs killed, and the rotations of them that were through",
        format!("{rounds}, {moved}"),
        "every start serves"
    );
    assert!(moved >= 3 && moved < rounds, "{moved} of {rounds}: the kills miss one side");
}
