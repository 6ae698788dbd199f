//! What is told of the resources around one pod.

use super::*;

#[test]
fn only_enforced_policies_that_select_the_pod_are_told_with_action_and_rules() {
    let set = set(&[
        authorization("ns/a", "{action: DENY, rules: [{}, {}]}"),
        authorization("ns/b", "{}"),
        authorization("ns/c", "{action: AUDIT, rules: [{}]}"),
        authorization("ns/d", "{selector: {matchLabels: {app: other}}}"),
        authorization("else/e", "{}"),
    ]);
    let pod = Pod { namespace: "ns".into(), ..Pod::default() };
    let settings = Settings::new("cluster.local".parse().unwrap());
    let told = Inbound::compile(&set, &settings, &pod).authorizations();
    let told: Vec<_> =
        told.iter().map(|policy| (policy.origin.to_string(), policy.action, policy.rules)).collect();
    let expected = [("AuthorizationPolicy ns/a", "DENY", 2), ("AuthorizationPolicy ns/b", "ALLOW", 0)];
    assert_eq!(told, expected.map(|(name, action, rules)| (name.to_owned(), action, rules)));
}

#[test]
fn a_rule_is_told_by_its_host_and_what_it_says_of_each_port() {
    let set = set(&[
        workload_entry("ns/w", "{address: 10.0.0.1, labels: {app: web}}"),
        destination_rule(
            "ns/ports",
            "{host: web, trafficPolicy: {tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, tls: \
             {mode: ISTIO_MUTUAL}}, {port: {number: 81}}]}}",
        ),
        destination_rule("ns/wide", "{host: '*.local'}"),
        destination_rule("ns/other", "{host: other}"),
    ]);
    let (workload, _) = set.workloads(&"cluster.local".parse().unwrap()).remove(0).unwrap();
    let told = set.rules_naming(&workload);
    let told: Vec<_> = told.iter().map(|rule| (rule.origin.to_string(), &*rule.host, &*rule.tls)).collect();
    let ports = "DISABLE, port 80 ISTIO_MUTUAL, port 81 left to the client";
    assert_eq!(
        told,
        [
            ("DestinationRule ns/ports".to_owned(), "web.ns.svc.cluster.local", ports),
            ("DestinationRule ns/wide".to_owned(), "*.local", ""),
        ]
    );
}

#[test]
fn policies_with_a_selector_and_ports_with_a_mode_are_told() {
    let set = set(&[
        peer_authentication("ns/all", "{mtls: {mode: STRICT}}"),
        peer_authentication(
            "ns/some",
            "{selector: {matchLabels: {app: web}}, portLevelMtls: {80: {mode: DISABLE}, 443: {mode: UNSET}}}",
        ),
        authorization("ns/right", "{selector: {matchLabels: {app: web}}}"),
    ]);
    let told: Vec<_> = set.selecting().map(|policy| policy.origin.to_string()).collect();
    assert_eq!(told, ["PeerAuthentication ns/some", "AuthorizationPolicy ns/right"]);
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let pod = Pod { namespace: "ns".into(), labels, ..Pod::default() };
    let settings = Settings::new("cluster.local".parse().unwrap());
    let inbound = Inbound::compile(&set, &settings, &pod);
    assert_eq!(inbound.ports_with_modes().collect::<Vec<_>>(), [80, 443]);
}
