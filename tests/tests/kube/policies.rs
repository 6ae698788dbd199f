//! Policies as `kubectl apply` brings them: what they decide, how soon, and what is said of those that do not hold.

use std::{thread::sleep, time::Duration};

use ringmail_tests::kube::{Place, Toolbox, metrics, place::peer_authentication, stage, toolbox::dial};

/// How long a policy may take from `kubectl apply` to every sidecar.
const APPLIED_WITHIN: Duration = Duration::from_secs(2);

/// An event is written by the replica that leads, after it has compiled what was applied.
const TOLD_WITHIN: Duration = Duration::from_secs(15);

const THIN: u16 = 10800;
const COMMUNICATION: u16 = 47100;

#[test]
#[ignore = "needs a cluster"]
fn authorization_decides_by_principal_namespace_port_and_address_within_two_seconds() {
    let stage = stage();
    let place = Place::in_mesh(stage, "authz").unwrap();
    let outside = Place::in_mesh(stage, "authz-outside").unwrap();
    place.kubectl(&["create", "serviceaccount", "guest"]).unwrap();
    Toolbox::server("server").begin(&place).unwrap();
    Toolbox::idle("guest").spec("serviceAccountName: guest").begin(&place).unwrap();
    Toolbox::idle("outsider").begin(&outside).unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    for (place, pod) in [(&place, "server"), (&place, "guest"), (&outside, "outsider")] {
        place.ready(pod).unwrap();
    }
    let (server, member) = (place.address("server").unwrap(), place.address("member").unwrap());
    let address = format!("action: ALLOW, rules: [{{from: [{{source: {{ipBlocks: [\"{member}\"]}}}}]}}]");
    let guest = r#"from: [{source: {principals: ["cluster.local/ns/authz/sa/guest"]}}]"#;
    let not_guest = format!("action: DENY, rules: [{{{guest}}}]");
    let only_guest = format!("action: ALLOW, rules: [{{{guest}}}]");
    // Who is served on 10800: the member, the guest, the outsider; and the member on 47100.
    let rows: &[(&str, &[&str], [bool; 4])] = &[
        ("nothing is said", &[], [true; 4]),
        ("one principal", &[&only_guest], [false, true, false, false]),
        ("all but one principal", &[&not_guest], [true, false, true, true]),
        (
            "one namespace",
            &[r#"action: ALLOW, rules: [{from: [{source: {namespaces: ["authz-outside"]}}]}]"#],
            [false, false, true, false],
        ),
        (
            "one port",
            &[r#"action: ALLOW, rules: [{to: [{operation: {ports: ["10800"]}}]}]"#],
            [true, true, true, false],
        ),
        (
            "all but one port",
            &[r#"action: DENY, rules: [{to: [{operation: {ports: ["10800"]}}]}]"#],
            [false, false, false, true],
        ),
        ("one address", &[&address], [true, false, false, true]),
        ("who is denied is not allowed", &[&not_guest, &only_guest], [false; 4]),
        ("nobody", &["{}"], [false; 4]),
    ];
    for (what, specs, served) in rows {
        for (number, spec) in specs.iter().enumerate() {
            let spec = if *spec == "{}" { "" } else { spec };
            place
                .apply(&format!(
                    "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, \
                     metadata: {{name: policy-{number}}}, spec: {{{spec}}}}}"
                ))
                .unwrap();
        }
        sleep(APPLIED_WITHIN);
        let dials = [
            (&place, "member", THIN),
            (&place, "guest", THIN),
            (&outside, "outsider", THIN),
            (&place, "member", COMMUNICATION),
        ];
        let heard = dials.map(|(place, pod, port)| dial(place, pod, &server, port).unwrap().is_some());
        assert_eq!(heard, *served, "{what}: member, guest, outsider on 10800, member on 47100");
        place.kubectl(&["delete", "authorizationpolicies", "--all"]).unwrap();
    }
    assert!(metrics::ended(&place, "server", "policy_denied").unwrap() > 0.0);
}

#[test]
#[ignore = "needs a cluster"]
fn a_destination_rule_brings_tls_and_takes_it_away_within_two_seconds() {
    let stage = stage();
    let place = Place::in_mesh(stage, "rules").unwrap();
    // Without a sidecar of its own: what the client says is what the server hears.
    Toolbox::server("server").annotations("sidecar.istio.io/inject: 'false'").begin(&place).unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    place.ready("server").unwrap();
    place.kubectl(&["expose", "pod", "server", "--port=10800"]).unwrap();
    let server = place.address("server").unwrap();
    let rule = |tls: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: server}}, \
             spec: {{host: server.rules.svc.cluster.local, trafficPolicy: {{{tls}}}}}}}"
        )
    };
    let by_port =
        "tls: {mode: ISTIO_MUTUAL}, portLevelSettings: [{port: {number: 10800}, tls: {mode: DISABLE}}]";
    let rows = [
        ("tls: {mode: DISABLE}", true),
        ("tls: {mode: ISTIO_MUTUAL}", false),
        (by_port, true),
        ("tls: {mode: SIMPLE}", false),
    ];
    assert_eq!(dial(&place, "member", &server, THIN).unwrap().as_deref(), Some("server"));
    for (tls, served) in rows {
        place.apply(&rule(tls)).unwrap();
        sleep(APPLIED_WITHIN);
        let heard = dial(&place, "member", &server, THIN).unwrap();
        assert_eq!(heard.as_deref(), served.then_some("server"), "{tls}");
    }
    let log = place.kubectl(&["logs", "member", "-c", metrics::ISTIO_PROXY]).unwrap();
    for reason in ["protection=destination_rule_disable", "reason=destination_rule_unsupported"] {
        assert!(log.contains(reason), "no line says {reason}:\n{log}");
    }
}

#[test]
#[ignore = "needs a cluster"]
fn a_destination_rule_that_turns_tls_off_is_served_by_a_permissive_pod_of_the_mesh_and_by_no_strict_one() {
    let stage = stage();
    let place = Place::in_mesh(stage, "disabled").unwrap();
    Toolbox::server("server").begin(&place).unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    place.ready("server").unwrap();
    place.kubectl(&["expose", "pod", "server", "--name=thin", "--port=10800"]).unwrap();
    let server = place.address("server").unwrap();
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: thin}, \
                spec: {host: thin, trafficPolicy: {tls: {mode: DISABLE}}}}";
    // What is heard on the port that the rule is about and on another one, and in which words the server counts it.
    let check = |what: &str, served: bool, [plain, mutual]: [f64; 2]| {
        sleep(APPLIED_WITHIN);
        let heard = dial(&place, "member", &server, THIN).unwrap();
        assert_eq!(heard.as_deref(), served.then_some("server"), "{what}: on 10800");
        let heard = dial(&place, "member", &server, COMMUNICATION).unwrap();
        assert_eq!(heard.as_deref(), Some("server"), "{what}: on 47100");
        let opened = ["none", "mutual_tls"]
            .map(|security| metrics::opened(&place, "server", "destination", security).unwrap());
        assert_eq!(opened, [plain, mutual], "{what}: in plaintext, in mutual TLS");
    };
    check("nothing is said", true, [0.0, 2.0]);
    place.apply(rule).unwrap();
    check("the rule", true, [1.0, 3.0]);
    place.apply(ringmail_tests::kube::STRICT).unwrap();
    check("STRICT", false, [1.0, 4.0]);
    assert_eq!(metrics::ended(&place, "server", "plaintext_refused").unwrap(), 1.0);
    place.kubectl(&["delete", "peerauthentication", "default"]).unwrap();
    check("the rule again", true, [2.0, 5.0]);
    place.kubectl(&["delete", "destinationrule", "thin"]).unwrap();
    check("no rule", true, [2.0, 7.0]);
}

#[test]
#[ignore = "needs a cluster"]
fn what_does_not_hold_of_a_policy_is_told_by_an_event_that_names_the_field() {
    let stage = stage();
    let place = Place::in_mesh(stage, "halves").unwrap();
    let rows = [
        (
            "AuthorizationPolicy",
            "authorizationpolicy",
            r#"action: ALLOW, rules: [{to: [{operation: {methods: ["GET"]}}]}]"#,
            "methods",
        ),
        (
            "PeerAuthentication",
            "peerauthentication",
            "mtls: {mode: STRICT}, portLevelMtls: {10800: {mode: DISABLE}}",
            "portLevelMtls",
        ),
        (
            "DestinationRule",
            "destinationrule",
            "host: server, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}",
            "loadBalancer",
        ),
    ];
    for (kind, object, spec, field) in rows {
        let group = if kind == "DestinationRule" { "networking" } else { "security" };
        place
            .apply(&format!(
                "{{apiVersion: {group}.istio.io/v1, kind: {kind}, metadata: {{name: half}}, spec: {{{spec}}}}}"
            ))
            .unwrap();
        let selector = format!("--field-selector=involvedObject.name=half,involvedObject.kind={kind}");
        place
            .until(TOLD_WITHIN, &format!("an event of {object} half names {field}"), || {
                let events =
                    place.kubectl(&["get", "events", &selector, "-o", "jsonpath={.items[*].message}"])?;
                Ok(events.contains(field).then_some(()))
            })
            .unwrap();
    }
    // What no version of the field allows is refused at once, by name.
    let refused = place.apply(&peer_authentication("halves", "wrong", "mtls: {mode: STRICTT}")).unwrap_err();
    assert!(format!("{refused:#}").contains("spec.mtls.mode"), "{refused:#}");
}
