//! Starting, saying how it is, and ending.

use std::os::unix::fs::FileExt;
use std::process::Stdio;

use rcgen::KeyPair;
use ringmail_evidence::shown;

use crate::support::{Ca, TOKEN, ask, command, csr, folder, request};

#[tokio::test]
async fn sigterm_ends_cleanly_and_soon() {
    let ca = Ca::start(&[]);
    let channel = ca.connect().await;
    ask(channel.clone(), Some(TOKEN), request(&csr(&KeyPair::generate().unwrap()))).await.unwrap();
    let began = std::time::Instant::now();
    assert_eq!(ca.terminate(), Some(0));
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn readiness_and_expiries_are_served_over_plain_http() {
    let ca = Ca::start(&[]);
    assert!(ca.page("/healthz/ready").ends_with("ready\n"));
    assert!(ca.page("/healthz/live").starts_with("HTTP/1.1 200"));
    assert!(ca.page("/debug").starts_with("HTTP/1.1 404"));
    let ten_years = 10.0 * 365.0 * 24.0 * 3600.0;
    for series in ["ringmail_ca_root_expiry_seconds", "ringmail_ca_signer_expiry_seconds"] {
        let left = ca.metric(series);
        assert!((ten_years - 60.0..=ten_years).contains(&left), "{series}: {left}");
    }
}

#[test]
fn faulty_settings_end_with_usage_and_all_faults() {
    let folder = folder();
    let mut command = command(folder.path());
    let flags = ["--ttl", "forever", "--trust-domain", "UPPER"];
    let output = command.args(flags).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let faults = String::from_utf8(output.stderr).unwrap();
    for expected in [
        "ttl=\"forever\"",
        "trust-domain=\"UPPER\"",
        "ca-dir, ca-secret, root-secret, state-dir: expected exactly one",
    ] {
        assert!(faults.contains(expected), "{faults}");
    }
}

#[test]
fn a_key_that_cannot_be_used_ends_the_start_with_its_reason() {
    let folder = folder();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let log = Ca::try_start(folder, &["--ca-dir", empty.to_str().unwrap()]).err().unwrap();
    assert!(log.iter().any(|line| line["message"].as_str().unwrap().contains("no CA in it")), "{log:?}");
}

#[tokio::test]
async fn audit_lines_are_written_whatever_the_log_level() {
    // The filter names only the module that says where the CA listens.
    let ca = Ca::start(&["--log-level", "ringmail_ca=info"]);
    ca.leaf().await;
    assert_eq!(ca.audit()["outcome"], "issued");
}

/// How often `text` is in the memory of a process that it may write.
fn copies(pid: i32, text: &[u8]) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let place = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(place(to) - place(from)).unwrap()];
        if memory.read_exact_at(&mut bytes, place(from)).is_ok() {
            found += bytes.windows(text.len()).filter(|window| *window == text).count();
        }
    }
    found
}

#[tokio::test]
async fn the_text_of_the_signing_key_is_wiped_once_it_is_read() {
    let folder = Ca::start(&[]).kill();
    let ca = Ca::start_in(folder, &[]);
    ca.leaf().await;
    let root = std::fs::read_to_string(ca.path("state").join("root.pem")).unwrap();
    let (certificate, key) = root.split_once("-----BEGIN PRIVATE KEY-----").unwrap();
    let line = |text: &str, number: usize| text.lines().nth(number).unwrap().as_bytes().to_owned();
    let looked = copies(ca.pid(), &line(key, 2));
    // What is not wiped is found in this way.
    assert!(copies(ca.pid(), &line(certificate, 3)) > 0, "the search finds nothing at all");
    shown!("S6", "copies of the CA's key as text in its memory", looked, "0");
    assert_eq!(looked, 0);
}
