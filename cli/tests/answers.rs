//! The binary as a script sees it: exit codes, what goes to which stream, no colour where nobody looks.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const POLICIES: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: n1, namespace: ignite}
spec: {address: 10.0.0.1, serviceAccount: ignite, labels: {security.istio.io/tlsMode: istio}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: n2, namespace: ignite}
spec: {address: 10.0.0.2, serviceAccount: ignite, labels: {security.istio.io/tlsMode: istio}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

fn ringmail(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmail")).args(arguments).output().unwrap()
}

fn explain(folder: &Path, from: &str, more: &[&str]) -> Output {
    let folder = folder.to_str().unwrap();
    ringmail(&[&["explain", "--config", folder, "--from", from, "--to", "10.0.0.2:47500"], more].concat())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn explain_says_yes_or_no_by_its_exit_code_and_nothing_in_colour_to_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("all.yaml"), POLICIES).unwrap();
    let served = explain(folder.path(), "ignite/n1", &[]);
    assert_eq!(served.status.code(), Some(0), "{}", stderr(&served));
    assert!(stdout(&served).ends_with("\nserved over mutual TLS\n"));
    let refused = explain(folder.path(), "10.9.9.9", &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stdout(&refused).contains("PeerAuthentication istio-system/default"));
    for output in [served, refused] {
        assert!(!stdout(&output).contains('\x1b') && stderr(&output).is_empty());
    }
}

#[test]
fn explain_gives_json_to_scripts() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("all.yaml"), POLICIES).unwrap();
    let output = explain(folder.path(), "ignite/n1", &["-o", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["outcome"], "mutual_tls");
    assert_eq!(answer["steps"][0]["decided_by"], "WorkloadEntry ignite/n2");
    assert_eq!(answer["to"]["port"], 47500);
}

#[test]
fn faulty_policies_are_listed_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.yaml"), POLICIES.replace("10.0.0.1", "10.0.0.one:")).unwrap();
    let output = explain(folder.path(), "ignite/n1", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("are refused (1 fault)") && stderr(&output).contains("bad.yaml"),
        "{}",
        stderr(&output)
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn a_proxy_that_is_not_there_is_1_and_a_wrong_command_line_is_64() {
    // Port 1 on loopback: nobody listens there, and nobody without privileges may.
    for command in ["certs", "connections"] {
        let output = ringmail(&[command, "127.0.0.1:1"]);
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(
            said.starts_with("ringmail: http://127.0.0.1:1/") && said.contains("cannot connect"),
            "{said}"
        );
    }
    for wrong in [&["certs"][..], &["explain", "--from", "n1"], &["demo", "--ignite", "3"], &["fly"]] {
        assert_eq!(ringmail(wrong).status.code(), Some(64), "{wrong:?}");
    }
    assert_eq!(ringmail(&["--help"]).status.code(), Some(0));
}
