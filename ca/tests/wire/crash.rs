//! SIGKILL and a full disk at any point: the next start finds one whole root, or none yet.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_evidence::shown;
use ringmail_identity::TrustBundle;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::support::{Ca, command, folder, verify};

/// Each starts a CA twice, and most of that is waiting.
fn rounds() -> u64 {
    if ringmail_evidence::nightly() { 200 } else { 50 }
}

fn root(state: &Path) -> Option<CertificateDer<'static>> {
    let text = fs::read(state.join("root.pem")).ok()?;
    // A published root is whole: a half one would fail here.
    Some(CertificateDer::from_pem_slice(&text).unwrap())
}

/// A first start that is still going on.
fn begin(folder: &Path) -> Child {
    let state = folder.join("state");
    command(folder).args(["--state-dir".as_ref(), state.as_os_str()]).spawn().unwrap()
}

/// Watches for `name` in the state folder; the published root ends the wait in any case, since a
/// temporary file may come and go between two looks.
fn await_file(folder: &Path, name: &str) -> Duration {
    let (began, state) = (Instant::now(), folder.join("state"));
    while !state.join(name).exists() && !state.join("root.pem").exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "{name} never appeared");
        std::hint::spin_loop();
    }
    began.elapsed()
}

/// How long a first start takes until its root is published.
fn time_to_publish() -> Duration {
    let folder = folder();
    let mut child = begin(folder.path());
    let took = await_file(folder.path(), "root.pem");
    child.kill().unwrap();
    child.wait().unwrap();
    took
}

#[tokio::test]
async fn a_killed_first_start_never_costs_the_root() {
    let (mut before, mut after) = (0, 0);
    let usual = time_to_publish();
    let rounds = rounds();
    for round in 0..rounds {
        let folder = folder();
        let state = folder.path().join("state");
        let mut child = begin(folder.path());
        // Kills around the publication by the clock, and kills the moment each file appears.
        match round % 3 {
            0 => std::thread::sleep(usual.mul_f64(0.5 + round as f64 / rounds as f64)),
            1 => drop(await_file(folder.path(), ".root.pem.tmp")),
            _ => drop(await_file(folder.path(), "root.pem")),
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let published = root(&state);
        let ca = Ca::start_in(Arc::clone(&folder), &[]);
        let now = root(&state).unwrap();
        match published {
            Some(published) => {
                assert_eq!(published, now, "the published root stays");
                after += 1;
            }
            None => before += 1,
        }
        assert_eq!(ca.bundle().roots()[0].der, now);
    }
    shown!(
        "F3",
        "first starts killed before and after their root was published",
        format!("{before} and {after}"),
        ">= 5 each; none cost a root"
    );
    assert!(before >= 5 && after >= 5, "{before} before and {after} after: the kills miss one side");
}

#[tokio::test]
async fn old_leaves_verify_after_every_kill_while_issuing_and_reloading() {
    let folder = folder();
    let extra = folder.path().join("extra.pem");
    let other = Ca::start(&[]);
    let foreign = fs::read(other.path("bundle.pem")).unwrap();
    fs::write(&extra, &foreign).unwrap();
    let flags = ["--extra-roots", extra.to_str().unwrap()];
    let first = Ca::start_in(Arc::clone(&folder), &flags);
    let (old, bundle) = (first.leaf().await, first.bundle());
    first.kill();
    for round in 0..rounds() {
        let ca = Ca::start_in(Arc::clone(&folder), &flags);
        let leaf = ca.leaf().await;
        // Changing the roots makes the CA rewrite its bundle at the next look.
        fs::write(
            &extra,
            if round % 2 == 0 { [foreign.clone(), foreign.clone()].concat() } else { foreign.clone() },
        )
        .unwrap();
        // It looks four times a second: kills before, in and after its writing, spread over all of that time.
        std::thread::sleep(Duration::from_millis(round * 37 % 300));
        drop(ca.kill());
        let published = fs::read(folder.path().join("bundle.pem")).unwrap();
        let now = TrustBundle::from_pem("cluster.local".parse().unwrap(), &published).unwrap();
        for chain in [&old, &leaf] {
            verify(&now, &chain[..1]).unwrap();
            verify(&bundle, &chain[..1]).unwrap();
        }
    }
    shown!("F3", "kills while issuing and reloading after which every leaf verified", rounds(), "all");
}

/// With a limit of one block per file the kernel ends the program in the middle of a write.
fn start_until_a_write_is_cut(folder: &Path, state: &Path) {
    let ca = command(folder);
    let status = Command::new("sh")
        .args(["-c", "ulimit -f 1; exec \"$0\" \"$@\""])
        .arg(ca.get_program())
        .args(ca.get_args())
        .args(["--state-dir".as_ref(), state.as_os_str()])
        .env_clear()
        .stdout(Stdio::null())
        .status()
        .unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(status.signal(), Some(nix::libc::SIGXFSZ), "the write was not cut: {status:?}");
}

#[tokio::test]
async fn a_root_cut_in_the_middle_of_its_write_is_no_root_at_all() {
    let folder = folder();
    let state = folder.path().join("state");
    start_until_a_write_is_cut(folder.path(), &state);
    assert!(!state.join("root.pem").exists());
    let ca = Ca::start_in(Arc::clone(&folder), &[]);
    ca.leaf().await;
}

#[tokio::test]
async fn a_bundle_cut_in_the_middle_of_its_write_leaves_the_old_one() {
    let folder = folder();
    let bundle = folder.path().join("bundle.pem");
    let state = folder.path().join("state");
    drop(Ca::start_in(Arc::clone(&folder), &[]).kill());
    let whole = fs::read(&bundle).unwrap();
    start_until_a_write_is_cut(folder.path(), &state);
    assert_eq!(fs::read(&bundle).unwrap(), whole);
}

#[tokio::test]
async fn a_truncated_root_refuses_to_start_until_told_otherwise() {
    let folder = folder();
    let first = Ca::start_in(Arc::clone(&folder), &[]);
    let (old, state) = (first.leaf().await, first.path("state"));
    first.kill();
    let text = fs::read(state.join("root.pem")).unwrap();
    fs::write(state.join("root.pem"), &text[..text.len() / 2]).unwrap();
    let flags = ["--state-dir", state.to_str().unwrap()];
    let log = Ca::try_start(Arc::clone(&folder), &flags).err().unwrap();
    let said =
        |words: &str| log.iter().any(|line| line["message"].as_str().unwrap_or_default().contains(words));
    assert!(said("does not end") && said("--bootstrap-new-root"), "{log:#?}");
    let ca = Ca::start_in(folder, &["--bootstrap-new-root"]);
    verify(&ca.bundle(), &old[..1]).unwrap();
    verify(&ca.bundle(), &ca.leaf().await[..1]).unwrap();
    assert_eq!(ca.bundle().roots().len(), 2, "the lost root stays in the bundle");
}
