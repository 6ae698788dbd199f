//! The answers, from the objects of a cluster.

use serde_json::json;

use super::explanation::{Explanation, Outcome, Step};
use super::*;
use crate::cluster::Supposed;
use crate::cluster::fixture::{Fixture, policy};

fn explained(fixture: &Fixture, from: &str, to: &str) -> Explanation {
    tried(fixture, from, to).unwrap()
}

fn tried(fixture: &Fixture, from: &str, to: &str) -> Result<Explanation> {
    of_mesh(&fixture.mesh(&Supposed::default()), &from.parse().unwrap(), &to.parse().unwrap())
}

fn deciders(steps: &[Step]) -> Vec<(&'static str, &str)> {
    steps.iter().map(|step| (step.step, &*step.decided_by)).collect()
}

fn strict() -> serde_json::Value {
    policy("PeerAuthentication", "default", json!({"mtls": {"mode": "STRICT"}}))
}

#[test]
fn two_pods_of_a_ring_speak_mutual_tls_and_each_decision_has_its_object() {
    let own = policy(
        "AuthorizationPolicy",
        "ring",
        json!({"rules": [{"from": [{"source": {"principals": ["cluster.local/ns/ignite/sa/ignite"]}}]}]}),
    );
    let said = explained(&Fixture::with([strict(), own]), "ignite/ignite-0", "ignite/ignite-1:47500");
    assert_eq!(
        deciders(&said.steps),
        [
            ("route", "Pod ignite/ignite-1"),
            ("mode", "PeerAuthentication ignite/default"),
            ("authorization", "AuthorizationPolicy ignite/ring rule 0"),
        ]
    );
    assert_eq!(said.outcome, Outcome::MutualTls);
    assert_eq!(said.from.identity.as_deref(), Some("spiffe://cluster.local/ns/ignite/sa/ignite"));
}

#[test]
fn a_pod_without_a_sidecar_is_refused_by_what_asks_for_one() {
    let fixture = Fixture::with([strict()]);
    for from in ["ignite/bare", "10.0.0.9", "192.0.2.1"] {
        let said = explained(&fixture, from, "10.0.0.1:10800");
        let last = said.steps.last().unwrap();
        assert_eq!(
            (said.outcome, &*last.decided_by),
            (Outcome::Refused, "PeerAuthentication ignite/default"),
            "{from}"
        );
    }
    let to_bare = explained(&fixture, "ignite/ignite-0", "ignite/bare:80");
    assert_eq!((to_bare.outcome, &*to_bare.steps[0].decided_by), (Outcome::Plaintext, "Pod ignite/bare"));
}

#[test]
fn a_services_name_and_its_address_are_explained_for_each_endpoint() {
    let fixture = Fixture::new();
    for to in ["ignite.ignite:10800", "10.96.0.1:10800", "ignite/ignite:10800"] {
        let said = explained(&fixture, "ignite/ignite-0", to);
        assert_eq!(deciders(&said.steps), [("service", "Service ignite/ignite")], "{to}");
        assert_eq!((said.endpoints.len(), said.outcome), (3, Outcome::MutualTls), "{to}");
        let text = show::render(&said, false);
        assert!(text.contains("\nthe same for ignite/ignite-0 10.0.0.0:10800, "), "{text}");
        assert!(text.ends_with("\nserved over mutual TLS\n"), "{text}");
    }
    let plain = explained(&fixture, "ignite/bare", "ignite.ignite:10800");
    assert_eq!((plain.endpoints.len(), plain.outcome), (3, Outcome::Plaintext));
    assert!(plain.steps[1].decision.starts_with("kube-proxy chooses one of 3"), "{:?}", plain.steps);
}

#[test]
fn of_several_endpoints_the_worst_counts_and_each_way_is_shown() {
    let labels = json!({"matchLabels": {"extra": "yes"}});
    let deny =
        policy("AuthorizationPolicy", "deny", json!({"selector": labels, "action": "DENY", "rules": [{}]}));
    let mut fixture = Fixture::with([deny]);
    fixture.pods[2]["metadata"]["labels"]["extra"] = json!("yes");
    let said = explained(&fixture, "ignite/excluding", "ignite-headless.ignite.svc:47500");
    assert_eq!(said.outcome, Outcome::Refused);
    let text = show::render(&said, false);
    assert!(text.contains("ignite/ignite-2 10.0.0.2:47500: refused"), "{text}");
    assert!(text.ends_with("refused at 1 of 3 endpoints\n"), "{text}");
}

#[test]
fn what_is_excluded_from_the_capture_is_decided_by_no_policy() {
    let fixture = Fixture::with([strict()]);
    let out = explained(&fixture, "ignite/excluding", "ignite/ignite-0:10800");
    assert_eq!(
        deciders(&out.steps),
        [
            ("capture", "ringmail-init of Pod ignite/excluding: --outbound-exclude-ports=10800"),
            ("mode", "PeerAuthentication ignite/default"),
        ]
    );
    let into = explained(&fixture, "ignite/bare", "ignite/excluding:8080");
    assert_eq!((into.outcome, into.steps[1].step), (Outcome::Plaintext, "capture"));
    // A client in the mesh is told of the exclusion, and sends what the application understands.
    let in_mesh = explained(&fixture, "ignite/ignite-0", "ignite/excluding:8080");
    assert_eq!((in_mesh.outcome, in_mesh.steps[1].step), (Outcome::Plaintext, "capture"));
    let scraped = explained(&fixture, "ignite/ignite-0", "ignite/ignite-1:15020");
    assert_eq!(scraped.outcome, Outcome::Plaintext, "{:?}", scraped.steps);
}

#[test]
fn plaintext_that_a_destination_rule_asks_for_is_taken_from_a_member_by_its_name_and_not_where_the_port_is_strict()
 {
    let rule = || {
        let spec = json!({"host": "ignite", "trafficPolicy": {"tls": {"mode": "DISABLE"}}});
        policy("DestinationRule", "clear", spec)
    };
    let permissive = explained(&Fixture::with([rule()]), "ignite/ignite-0", "ignite/ignite-1:10800");
    assert_eq!(permissive.outcome, Outcome::Plaintext, "{:?}", permissive.steps);
    let by = "DestinationRule ignite/clear";
    assert_eq!(deciders(&permissive.steps)[..2], [("route", by), ("mode", by)]);
    let strict = explained(&Fixture::with([rule(), strict()]), "ignite/ignite-0", "ignite/ignite-1:10800");
    assert_eq!(
        (strict.outcome, deciders(&strict.steps)[1]),
        (Outcome::Refused, ("mode", "PeerAuthentication ignite/default"))
    );
    // What nobody asks for is refused as ever: a member whose own sidecar leaves the port alone.
    let nobodys = explained(&Fixture::new(), "ignite/excluding", "ignite/ignite-1:10800");
    assert_eq!(nobodys.outcome, Outcome::Refused, "{:?}", nobodys.steps);
}

#[test]
fn files_are_taken_as_if_they_had_been_applied() {
    let text = strict().to_string();
    let supposed = Supposed::parse(&[("strict.yaml".to_owned(), text)], "default").unwrap();
    let fixture = Fixture::new();
    let (from, to) = ("ignite/bare".parse().unwrap(), "ignite/ignite-0:10800".parse().unwrap());
    assert_eq!(explained(&fixture, "ignite/bare", "ignite/ignite-0:10800").outcome, Outcome::Plaintext);
    let said = of_mesh(&fixture.mesh(&supposed), &from, &to).unwrap();
    assert_eq!(
        (said.outcome, &*said.supposing[0]),
        (Outcome::Refused, "PeerAuthentication ignite/default (new)")
    );
    assert!(show::render(&said, false).contains("as if these had been applied:\n  PeerAuthentication"));
}

#[test]
fn a_setting_per_port_from_a_file_is_read_with_its_number() {
    let text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: ignite}\n\
                spec:\n  selector: {matchLabels: {app: ignite}}\n  portLevelMtls:\n    10800: {mode: STRICT}\n";
    let supposed = Supposed::parse(&[("a.yaml".to_owned(), text.to_owned())], "ignite").unwrap();
    let mesh = Fixture::new().mesh(&supposed);
    let (from, to) = ("ignite/bare".parse().unwrap(), "ignite/ignite-0:10800".parse().unwrap());
    let said = of_mesh(&mesh, &from, &to).unwrap();
    assert_eq!(said.steps.last().unwrap().decided_by, "PeerAuthentication ignite/a port 10800");
}

#[test]
fn what_cannot_be_read_is_told_with_what_holds_instead() {
    let broken = policy("AuthorizationPolicy", "broken", json!({"action": "SOMETIMES"}));
    let mut elsewhere = policy("PeerAuthentication", "broken", json!({"mtls": {"mode": "SOMETIMES"}}));
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    let said = explained(&Fixture::with([broken, elsewhere]), "ignite/ignite-0", "ignite/ignite-1:47500");
    assert_eq!(said.outcome, Outcome::Refused);
    assert_eq!(said.notes.len(), 1, "{:?}", said.notes);
    assert!(
        said.notes[0].starts_with("AuthorizationPolicy ignite/broken: spec.action: expected"),
        "{:?}",
        said.notes
    );
}

#[test]
fn who_or_what_is_not_there_is_said_with_what_there_is() {
    let mut fixture = Fixture::new();
    fixture.pods[1]["status"] = json!({"phase": "Pending"});
    fixture.pods[2]["status"]["phase"] = json!("Succeeded");
    for (from, to, expected) in [
        ("ignite/ignite-9", "10.0.0.0:80", "no pod ignite/ignite-9; namespace ignite has ignite-0, "),
        ("ignite/bare", "nowhere/x:80", "namespace nowhere has no pods"),
        ("ignite/bare", "ignite/ignite-1:80", "has no address yet (Pending)"),
        ("ignite/ignite-2", "10.0.0.0:80", "has ended (Succeeded)"),
        ("ignite/bare", "none.ignite:80", "there is no Service ignite/none"),
        ("ignite/bare", "example.com:443", "example.com is no name of the cluster's DNS"),
        ("ignite/bare", "example.com:443", "what is outside the cluster give its address"),
        ("ignite/bare", "ignite.ignite:80", "has no port 80; it has 10800"),
    ] {
        let error = format!("{:#}", tried(&fixture, from, to).unwrap_err());
        assert!(error.contains(expected), "{from} {to}: {error}");
    }
}

#[test]
fn a_pod_in_its_nodes_network_is_a_client_without_a_sidecar() {
    let mut fixture = Fixture::with([strict()]);
    fixture.pods[4]["spec"]["hostNetwork"] = json!(true);
    let said = explained(&fixture, "ignite/bare", "ignite/ignite-0:10800");
    assert_eq!(said.steps[0].decided_by, "Pod ignite/bare has its node's network");
    assert_eq!(said.outcome, Outcome::Refused);
}
