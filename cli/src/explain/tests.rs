//! The answers, from files as a user writes them.

use std::fs;
use std::path::Path;

use super::explanation::{Explanation, Outcome};
use super::*;

const CONFIG: &str = "namespace: ignite\nservice_account: ignite\nmesh_ranges: [10.0.0.0/8]\n";

const ENTRIES: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: n1, namespace: ignite}
spec: {address: 10.0.0.1, serviceAccount: ignite, labels: {app: ignite, security.istio.io/tlsMode: istio}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: n2, namespace: ignite}
spec: {address: 10.0.0.2, serviceAccount: ignite, labels: {app: ignite, security.istio.io/tlsMode: istio}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: bare, namespace: ignite}
spec: {address: 10.0.0.3}
";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: ignite}
spec: {mtls: {mode: STRICT}}
";

/// Only the nodes themselves may use the ring's port.
const RING_ONLY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ring, namespace: ignite}
spec:
  action: DENY
  rules:
  - from: [{source: {notPrincipals: [cluster.local/ns/ignite/sa/ignite]}}]
    to: [{operation: {ports: ['47500']}}]
";

fn explained(config: &str, policies: &[&str], from: &str, to: &str) -> Explanation {
    let folder = tempfile::tempdir().unwrap();
    for (number, policy) in policies.iter().enumerate() {
        fs::write(folder.path().join(format!("{number}.yaml")), policy).unwrap();
    }
    let mesh = MeshSettings { policy_dir: folder.path().to_owned(), ..MeshSettings::parse(config).unwrap() };
    let texts = policy_files::read(folder.path()).unwrap();
    let resources =
        Resources::parse(texts.iter().map(|text| (text.name.as_str(), text.text.as_str()))).unwrap();
    answer(&Files::new(&resources, &mesh), &from.parse().unwrap(), &to.parse().unwrap()).unwrap()
}

/// The last step's name, its decider and the outcome.
fn ending(explanation: &Explanation) -> (&'static str, &str, Outcome) {
    let last = explanation.steps.last().unwrap();
    (last.step, &last.decided_by, explanation.outcome)
}

#[test]
fn two_nodes_of_a_ring_speak_mutual_tls_and_each_decision_has_its_object() {
    let said = explained(CONFIG, &[ENTRIES, STRICT], "ignite/n1", "10.0.0.2:47500");
    let deciders: Vec<_> = said.steps.iter().map(|step| (step.step, &*step.decided_by)).collect();
    assert_eq!(
        deciders,
        [
            ("route", "WorkloadEntry ignite/n2"),
            ("mode", "PeerAuthentication ignite/default"),
            ("authorization", "no AuthorizationPolicy selects the pod"),
        ]
    );
    assert_eq!(said.outcome, Outcome::MutualTls);
    assert!(said.steps[0].decision.ends_with("spiffe://cluster.local/ns/ignite/sa/ignite"));
}

#[test]
fn each_way_to_be_refused_names_the_step_and_the_object_that_refuses() {
    let unknown = "no workload is known at the address";
    for (policies, from, to, expected) in [
        (&[ENTRIES, STRICT][..], "10.9.9.9", "10.0.0.2:47500", ("mode", "PeerAuthentication ignite/default")),
        (&[ENTRIES], "ignite/n1", "10.0.0.99:47500", ("route", unknown)),
        (
            &[ENTRIES, RING_ONLY],
            "10.9.9.9",
            "10.0.0.2:47500",
            ("authorization", "AuthorizationPolicy ignite/ring rule 0"),
        ),
    ] {
        let said = explained(CONFIG, policies, from, to);
        assert_eq!(ending(&said), (expected.0, expected.1, Outcome::Refused), "{from} {to}");
        assert!(!said.steps.last().unwrap().goes_on);
    }
}

#[test]
fn what_the_default_mode_takes_is_plaintext_from_outside_and_what_a_destination_rule_has_members_send() {
    let outside = explained(CONFIG, &[ENTRIES], "10.9.9.9", "10.0.0.2:10800");
    assert_eq!(outside.outcome, Outcome::Plaintext);
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain, namespace: ignite}
spec: {host: ignite.ignite.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}
";
    let inside = explained(CONFIG, &[ENTRIES, rule], "ignite/n1", "10.0.0.2:10800");
    assert_eq!(inside.steps[0].decided_by, "DestinationRule ignite/plain");
    assert_eq!(ending(&inside).2, Outcome::Plaintext);
    assert_eq!(
        (inside.steps[1].step, &*inside.steps[1].decided_by),
        ("mode", "DestinationRule ignite/plain")
    );
}

#[test]
fn what_has_no_sidecar_is_reached_in_plaintext_unless_the_settings_refuse_that() {
    let passed = explained(CONFIG, &[ENTRIES], "ignite/n1", "10.0.0.3:80");
    assert_eq!(ending(&passed), ("mode", "WorkloadEntry ignite/bare", Outcome::Plaintext));
    let abroad = explained(CONFIG, &[ENTRIES], "ignite/n1", "192.0.2.7:443");
    assert_eq!(abroad.outcome, Outcome::Plaintext);
    let refusing = format!("{CONFIG}outbound_outside: refuse\n");
    let refused = explained(&refusing, &[ENTRIES], "ignite/n1", "192.0.2.7:443");
    assert_eq!((refused.steps.len(), refused.outcome), (1, Outcome::Refused));
}

#[test]
fn a_pod_that_dials_itself_stays_local() {
    assert_eq!(explained(CONFIG, &[ENTRIES, STRICT], "ignite/n1", "10.0.0.1:47500").outcome, Outcome::Local);
}

#[test]
fn the_pod_of_the_settings_needs_no_entry_of_its_own() {
    let config = format!("{CONFIG}pod_addresses: [10.0.0.8]\npod_name: me\n");
    for from in ["10.0.0.8", "ignite/me"] {
        let said = explained(&config, &[ENTRIES, STRICT], from, "10.0.0.2:47500");
        assert_eq!(said.outcome, Outcome::MutualTls, "{from}");
        assert_eq!(said.from.name.as_deref(), Some("ignite/me"));
    }
}

#[test]
fn a_name_nobody_has_is_told_with_the_names_there_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), ENTRIES).unwrap();
    let mesh = MeshSettings::read(folder.path(), None).unwrap();
    let resources = Resources::parse([("a", ENTRIES)]).unwrap();
    let world = Files::new(&resources, &mesh);
    let error = world.client(&"ignite/n7".parse().unwrap(), None).unwrap_err().to_string();
    assert!(error.starts_with("no WorkloadEntry ignite/n7 in "), "{error}");
    assert!(error.ends_with("ignite/bare, ignite/n1, ignite/n2"), "{error}");
}

#[test]
fn the_table_shows_both_ends_every_step_and_the_outcome() {
    let said = explained(CONFIG, &[ENTRIES, STRICT], "ignite/n1", "10.0.0.2:47500");
    let text = show::render(&said, false);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("from  10.0.0.1        ignite/n1  sidecar  spiffe://"), "{text}");
    assert!(lines[1].starts_with("to    10.0.0.2:47500  ignite/n2  sidecar  spiffe://"), "{text}");
    assert!(lines[3].starts_with("STEP           DECISION"), "{text}");
    assert_eq!(lines.last(), Some(&"served over mutual TLS"));
}

#[test]
fn what_is_not_honoured_as_written_is_listed() {
    let shadowed = STRICT.replace("name: default", "name: second");
    let said = explained(CONFIG, &[ENTRIES, STRICT, &shadowed], "ignite/n1", "10.0.0.2:47500");
    assert!(said.notes.iter().any(|note| note.contains("ignite/second")), "{:?}", said.notes);
    assert!(show::render(&said, false).contains("not honoured as written:"));
}

#[test]
fn a_policy_directory_that_is_not_there_is_named() {
    let error = policy_files::read(Path::new("/nowhere/policy")).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/policy: cannot be read"), "{error}");
}
