//! What must be said aloud.

use super::*;

fn texts(reports: &[Report]) -> Vec<String> {
    reports.iter().map(|report| report.text.clone()).collect()
}

#[test]
fn other_kinds_are_reported_and_not_fatal() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {}\n\
                ---\napiVersion: example.org/v1\nkind: PeerAuthentication\nmetadata: {name: other}\n";
    let set = Resources::parse([("mixed.yaml", text)]).unwrap();
    let lines: Vec<_> = set.reports().iter().map(Report::to_string).collect();
    assert_eq!(
        lines,
        [
            "Service shop/web (mixed.yaml:1): ignored: Service of v1 has no meaning here",
            "PeerAuthentication /other (mixed.yaml:6): ignored: PeerAuthentication of example.org/v1 has no meaning here",
        ]
    );
}

#[test]
fn what_has_no_effect_is_reported_with_its_line() {
    let text = "apiVersion: networking.istio.io/v1beta1\nkind: DestinationRule\nmetadata: {name: dr, namespace: a}\n\
                spec:\n  host: x\n  subsets: [{name: v1}]\n  trafficPolicy:\n    connectionPool: {tcp: {}}\n    tls:\n      \
                mode: ISTIO_MUTUAL\n      sni: x\n";
    let set = Resources::parse([("dr.yaml", text)]).unwrap();
    let lines: Vec<_> = set.reports().iter().map(|report| (report.line, report.text.as_str())).collect();
    assert_eq!(
        lines,
        [(6, "subsets have no effect"), (8, "connectionPool has no effect"), (11, "sni has no effect")]
    );
    let paths: Vec<_> = set.reports().iter().map(|report| report.path.as_str()).collect();
    assert_eq!(paths, ["spec.subsets", "spec.trafficPolicy.connectionPool", "spec.trafficPolicy.tls.sni"]);
    assert!(set.reports().iter().all(|report| report.source == "dr.yaml" && report.name == "dr"));
}

#[test]
fn what_of_a_port_has_no_effect_is_reported_and_the_rest_of_it_holds() {
    let port = "{port: {number: 80}, connectionPool: {tcp: {}}, loadBalancer: {simple: RANDOM}, outlierDetection: {}}";
    let rule = format!("{{host: x, trafficPolicy: {{portLevelSettings: [{port}]}}}}");
    let set = set(&[destination_rule("a/r", &rule)]);
    let texts = texts(set.reports());
    let fields = ["connectionPool", "loadBalancer", "outlierDetection"];
    assert_eq!(texts, fields.map(|field| format!("{field} has no effect")));
}

#[test]
fn what_of_a_workloads_entry_has_no_effect_is_reported_and_it_is_reached_all_the_same() {
    let set = set(&[workload_entry("a/n1", "{address: 10.0.0.1, ports: {web: 80}, weight: 3}")]);
    let texts = texts(set.reports());
    let told = |field: &str| format!("{field} has no effect: connections are not balanced or renumbered");
    assert_eq!(texts, ["ports", "weight"].map(told));
    assert_eq!(ringmail_policy::Outbound::compile(&set, &settings()).workloads().count(), 1);
}

#[test]
fn a_rule_of_layer_seven_says_what_becomes_of_it_by_its_action() {
    let told = |action: &str| {
        let spec = format!("{{action: {action}, rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]}}");
        let set = set(&[authorization("ns/p", &spec)]);
        texts(set.reports()).join("; ")
    };
    assert!(told("ALLOW").contains("the whole rule is dropped from this ALLOW policy"), "{}", told("ALLOW"));
    assert!(
        told("DENY").contains("left out, so this DENY rule matches more than it says"),
        "{}",
        told("DENY")
    );
    assert!(told("AUDIT").contains("from this AUDIT policy"), "{}", told("AUDIT"));
    let custom = "CUSTOM, provider: {name: x}";
    assert!(told(custom).contains("this CUSTOM rule matches more"), "{}", told(custom));
}

#[test]
fn a_deny_without_rules_is_told_of_and_one_with_rules_is_not() {
    let told = |spec: &str| {
        let set = set(&[authorization("ns/p", spec)]);
        texts(set.reports())
    };
    assert_eq!(told("{action: DENY}"), ["has no effect: a DENY policy without rules"]);
    assert_eq!(told("{action: DENY, rules: [{}]}"), [""; 0]);
    assert_eq!(told("{action: ALLOW}"), [""; 0]);
}

#[test]
fn each_field_of_layer_seven_is_named_once() {
    let operation = "{operation: {methods: [GET], paths: [/a]}}";
    let spec = format!("{{action: DENY, rules: [{{to: [{operation}, {operation}]}}]}}");
    let set = set(&[authorization("ns/p", &spec)]);
    let texts = texts(set.reports());
    assert_eq!(texts.len(), 1, "{texts:?}");
    for field in ["methods", "paths"] {
        assert_eq!(texts[0].matches(field).count(), 1, "{field} in {texts:?}");
    }
}

#[test]
fn a_policy_that_is_enforced_otherwise_than_written_says_so_of_the_pod_and_others_say_nothing() {
    let told = |fields: &str| {
        let inbound = inbound(&[authorization("ignite/p", &format!("{{{fields}}}"))]);
        texts(inbound.reports())
    };
    for (fields, expected) in [
        ("rules: [{}]", None),
        ("action: ALLOW", None),
        ("action: DENY, rules: [{}]", None),
        ("action: AUDIT, rules: [{}]", Some("AUDIT selects this pod")),
        ("action: CUSTOM, provider: {name: x}, rules: [{}]", Some("CUSTOM selects this pod")),
    ] {
        let told = told(fields);
        assert_eq!(told.len(), usize::from(expected.is_some()), "{fields}: {told:?}");
        assert!(expected.is_none_or(|text| told[0].starts_with(text)), "{fields}: {told:?}");
    }
}

#[test]
fn a_principal_that_can_never_match_is_reported() {
    let principal = |value: &str| {
        let set = set(&[authorization(
            "ns/p",
            &format!("{{rules: [{{from: [{{source: {{principals: ['{value}']}}}}]}}]}}"),
        )]);
        set.reports().first().map(|report| report.text.clone()).unwrap_or_default()
    };
    assert!(principal("spiffe://cluster.local/ns/a/sa/b").contains("without spiffe://"));
    assert!(principal("cluster.local/*/sa/b").contains("ordinary character"));
    assert_eq!(principal("*/sa/b"), "");
}

#[test]
fn a_star_inside_a_value_is_reported_where_it_stands_for_itself() {
    let reports = |spec: &str| {
        let text = format!("{{rules: [{{{spec}}}]}}");
        let set = set(&[authorization("ns/p", &text)]);
        set.reports().iter().any(|report| report.text.contains("ordinary character"))
    };
    let source = |field: &str, value: &str| reports(&format!("from: [{{source: {{{field}: ['{value}']}}}}]"));
    let when = |key: &str, value: &str| reports(&format!("when: [{{key: {key}, values: ['{value}']}}]"));
    for value in ["*prod*", "a*b", "**"] {
        for (field, key) in [("trustDomains", "source.trustDomain"), ("principals", "source.principal")] {
            assert!(source(field, value) && when(key, value), "{field} {value}");
        }
        assert!(!source("namespaces", value) && !when("source.namespace", value), "{value}");
    }
    for value in ["*", "a*", "*a", "a"] {
        assert!(!source("trustDomains", value) && !when("source.trustDomain", value), "{value}");
    }
}

#[test]
fn shadowed_mesh_and_namespace_policies_are_reported_and_others_are_not() {
    let strict = |name: &str| peer_authentication(name, "{mtls: {mode: STRICT}}");
    let set = [strict("ignite/a"), strict("ignite/b"), strict("istio-system/c"), strict("istio-system/d")];
    let inbound = inbound(&[&set[..], &[strict("elsewhere/e"), strict("elsewhere/f")]].concat());
    let names: Vec<_> = inbound.reports().iter().map(|report| report.name.as_str()).collect();
    assert_eq!(names, ["b", "d"]);
    assert!(inbound.reports()[0].text.contains("PeerAuthentication ignite/a is older"));
}

#[test]
fn remote_addresses_are_reported_as_the_connections_own() {
    let rule = "{rules: [{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}]}";
    assert!(reported(set(&[authorization("ns/p", rule)]).reports(), "p", "connection's own source address"));
}
