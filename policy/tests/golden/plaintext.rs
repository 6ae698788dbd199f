//! What a server is told of its clients: the ports that DestinationRules have some of them dial in plaintext.

use ringmail_policy::{Client, Inbound, OutsideReason, Pod, Route};
use ringmail_xds::ringmail;

use super::wire::node;
use super::*;

const THIN_SERVICE: u16 = 80;
const DISABLE: &str = "tls: {mode: DISABLE}";

fn told(documents: &[String]) -> Inbound {
    let workload = node().workload(&settings().trust_domain).unwrap();
    let inbound = inbound(documents).known_as(&workload, &set(documents), &settings());
    let arrived = arrived(&inbound);
    for port in [THIN, 47500, 9] {
        assert_eq!(arrived.plaintext_from_mesh(port), inbound.plaintext_from_mesh(port), "{port}");
    }
    arrived
}

fn by_port(port: u16, tls: &str) -> String {
    format!("portLevelSettings: [{{port: {{number: {port}}}, {tls}}}]")
}

#[test]
fn a_port_is_in_plaintext_where_some_client_is_told_so() {
    let rule = |name: &str, host: &str, more: &str, policy: &str| {
        destination_rule(name, &format!("{{host: {host}, {more} trafficPolicy: {{{policy}}}}}"))
    };
    let thin = "ignite-thin.ignite.svc.cluster.local";
    let (of_port, by_service) = (by_port(THIN_SERVICE, DISABLE), format!("{DISABLE}, {}", by_port(80, "")));
    let mutual = "tls: {mode: ISTIO_MUTUAL}";
    // On the port of the Service ignite-thin, on that of ignite-headless, and on a port of no Service.
    let rows: &[(&str, Vec<String>, [bool; 3])] = &[
        ("nothing is said", vec![], [false; 3]),
        ("one host", vec![rule("ignite/a", thin, "", DISABLE)], [true, false, false]),
        ("a short name", vec![rule("ignite/a", "ignite-thin", "", DISABLE)], [true, false, false]),
        ("every host", vec![rule("istio-system/a", "'*.cluster.local'", "", DISABLE)], [true; 3]),
        ("the workload's own host", vec![rule("ignite/a", "db", "", DISABLE)], [false, false, true]),
        ("one port of the Service", vec![rule("ignite/a", thin, "", &of_port)], [true, false, false]),
        ("all ports but that of the Service", vec![rule("ignite/a", thin, "", &by_service)], [false; 3]),
        ("mutual TLS", vec![rule("ignite/a", thin, "", mutual)], [false; 3]),
        ("another host", vec![rule("ignite/a", "other", "", DISABLE)], [false; 3]),
        (
            "a rule of the clients' own namespace",
            vec![rule("apps/a", thin, "exportTo: ['.'],", DISABLE)],
            [true, false, false],
        ),
        (
            "a rule that the Service's namespace shows to another one",
            vec![rule("ignite/a", thin, "exportTo: [apps],", DISABLE)],
            [true, false, false],
        ),
        (
            "a rule for some pods of the clients' namespace",
            vec![rule("apps/a", thin, "workloadSelector: {matchLabels: {app: old}},", DISABLE)],
            [true, false, false],
        ),
        (
            "what is said for everybody does not undo what is said for some",
            vec![
                created(1, &rule("ignite/a", thin, "", mutual)),
                created(2, &rule("apps/b", thin, "", DISABLE)),
            ],
            [true, false, false],
        ),
        (
            "a younger rule for the same host and clients decides for nobody",
            vec![
                created(1, &rule("ignite/a", thin, "", mutual)),
                created(2, &rule("ignite/b", thin, "", DISABLE)),
            ],
            [false; 3],
        ),
        (
            "a more specific host takes its port out of the whole",
            vec![
                created(1, &rule("ignite/a", "'*.cluster.local'", "", DISABLE)),
                created(2, &rule("ignite/b", thin, "", mutual)),
            ],
            [false, true, true],
        ),
    ];
    for (what, documents, expected) in rows {
        let inbound = told(documents);
        let ports = [THIN, 47500, 9].map(|port| inbound.plaintext_from_mesh(port).is_some());
        assert_eq!(ports, *expected, "{what}");
    }
}

#[test]
fn the_rule_that_says_so_is_named_also_after_the_journey() {
    let documents =
        [destination_rule("ignite/a", &format!("{{host: ignite-thin, trafficPolicy: {{{DISABLE}}}}}"))];
    let said = told(&documents).plaintext_from_mesh(THIN).unwrap().to_string();
    assert_eq!(said, "DestinationRule ignite/a");
}

#[test]
fn a_client_that_is_told_plaintext_is_told_of_the_same_port_as_the_server() {
    let documents = [destination_rule(
        "apps/a",
        &format!("{{host: ignite-thin.ignite.svc.cluster.local, trafficPolicy: {{{DISABLE}}}}}"),
    )];
    let resources = set(&documents);
    let workload = std::sync::Arc::new(node().workload(&settings().trust_domain).unwrap());
    let client = Pod { namespace: "apps".to_owned(), ..Pod::default() };
    let settings = settings();
    let mut client = Client::new(&resources, &settings, Some(&client));
    let seen = client.destination(workload, ringmail_policy::Origin::Default("a test".into())).unwrap();
    for port in [THIN, 47500, 9] {
        let plain =
            matches!(seen.route(port), Route::Outside { reason: OutsideReason::DestinationRuleDisable, .. });
        assert_eq!(plain, told(&documents).plaintext_from_mesh(port).is_some(), "{port}");
    }
}

#[test]
fn a_workload_entry_says_in_files_by_which_host_a_pod_is_known() {
    let entry = workload_entry("ignite/node", "{address: 10.0.0.2, labels: {app: ignite}}");
    let rule = destination_rule("ignite/a", &format!("{{host: ignite, trafficPolicy: {{{DISABLE}}}}}"));
    assert!(inbound(&[entry, rule.clone()]).plaintext_from_mesh(THIN).is_some());
    assert!(inbound(&[rule]).plaintext_from_mesh(THIN).is_none());
}

#[test]
fn a_control_plane_that_does_not_know_of_it_says_nothing_and_the_mode_stays_what_it_is() {
    let (message, _) = inbound(&[]).to_wire();
    assert_eq!(message.plaintext, None);
    let strict = peer_authentication("ignite/strict", "{mtls: {mode: STRICT}}");
    let rule = destination_rule("ignite/a", &format!("{{host: ignite-thin, trafficPolicy: {{{DISABLE}}}}}"));
    let inbound = told(&[strict, rule]);
    assert!(inbound.plaintext_from_mesh(THIN).is_some());
    assert_eq!(inbound.mode(THIN).mode.as_str(), "STRICT");
}

#[test]
fn a_port_that_is_none_is_refused() {
    let (mut message, _) = inbound(&[]).to_wire();
    let port = ringmail::PlaintextPort { port: 65536, decided_by: None };
    message.plaintext = Some(ringmail::PlaintextPorts { whole: None, ports: vec![port] });
    let error = Inbound::from_wire(&message, []).unwrap_err().to_string();
    assert!(error.contains("plaintext.ports.port"), "{error}");
}
