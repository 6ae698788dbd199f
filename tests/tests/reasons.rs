//! For each reason that a connection can end for, the test that ends one for it. Those of certificates are the tables' of
//! `ringmail_tests::adversary::certificates` and of `identity/tests`, which counts its own.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

use std::{collections::BTreeSet, fs, path::Path};

/// The reason as the page of reasons has it, and a file whose tests end a connection for it.
const PRODUCED_BY: &[(&str, &str)] = &[
    ("aborted", "proxy/tests/ends.rs"),
    ("application_reset", "proxy/tests/ends.rs"),
    ("authorization_changed", "proxy/tests/ends.rs"),
    ("black_holed", "tests/tests/streams.rs"),
    ("complete", "proxy/tests/ends.rs"),
    ("denied_by_peer", "proxy/tests/ends.rs"),
    ("destination_rule_unsupported", "tests/tests/kube/policies.rs"),
    ("dial_failed", "tests/tests/adversary_addresses.rs"),
    ("dial_refused", "tests/tests/adversary_addresses.rs"),
    ("dial_timeout", "tests/tests/adversary_addresses.rs"),
    ("dial_unreachable", "tests/tests/adversary_addresses.rs"),
    ("drained", "tests/tests/adversary_addresses.rs"),
    ("fenced", "tests/tests/sidecar_faults/main.rs"),
    ("foreign_destination", "tests/tests/adversary_addresses.rs"),
    ("half_close_timeout", "proxy/tests/ends.rs"),
    ("handshake_eof", "tests/src/adversary/handshakes.rs"),
    ("handshake_failed", "tests/src/adversary/handshakes.rs"),
    ("handshake_refused_by_peer", "tests/src/adversary/handshakes.rs"),
    ("handshake_timeout", "tests/src/adversary/handshakes.rs"),
    ("identity_mismatch", "tests/tests/adversary/main.rs"),
    ("limit_connections_per_source", "tests/tests/adversary_addresses.rs"),
    ("mode_changed", "tests/tests/modes.rs"),
    ("no_client_certificate", "tests/tests/adversary/main.rs"),
    ("no_credentials", "tests/tests/adversary_addresses.rs"),
    ("no_original_destination", "tests/tests/adversary_addresses.rs"),
    ("no_policy", "tests/tests/adversary_addresses.rs"),
    ("outside_refused", "proxy/tests/route.rs"),
    ("own_address", "tests/tests/adversary_addresses.rs"),
    ("peer_failed", "proxy/tests/ends.rs"),
    ("peer_refused", "proxy/tests/refusals.rs"),
    ("plaintext_refused", "tests/src/adversary/handshakes.rs"),
    ("policy_denied", "tests/tests/modes.rs"),
    ("remote_reset", "tests/tests/adversary_addresses.rs"),
    ("root_removed", "proxy/tests/ends.rs"),
    ("stream_cut", "proxy/tests/ends.rs"),
    ("tls_failed", "tests/src/adversary/records.rs"),
    ("tls_version_refused", "tests/src/adversary/handshakes.rs"),
    ("unknown_destination", "tests/tests/adversary_addresses.rs"),
];

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

/// `dial_failed` is `DialFailed` in a test of the proxy's own.
fn variant(reason: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    format!("Reason::{}", reason.split('_').map(capital).collect::<String>())
}

#[test]
fn every_reason_has_a_test_that_names_it() {
    let page = read("docs/reasons.md");
    let words = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let of_connections = |word: &&str| !word.starts_with("certificate_") && !word.starts_with("spiffe_id_");
    let all: BTreeSet<&str> = words.filter(of_connections).collect();
    let listed: BTreeSet<&str> = PRODUCED_BY.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(listed, all);
    for (reason, file) in PRODUCED_BY {
        let text = read(file);
        let named = text.contains(&format!("\"{reason}\"")) || text.contains(&variant(reason));
        assert!(named || text.contains(&format!("reason={reason}")), "{reason} is not in {file}");
    }
}
