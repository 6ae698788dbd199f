//! AuthorizationPolicy: which policies count, and in which order.

use super::*;

const CLIENT: Option<&str> = Some("cluster.local/ns/ignite/sa/client");

fn rule(from: &str) -> String {
    format!("rules: [{{from: [{{source: {from}}}]}}]")
}

/// AuthorizationPolicy reference, overview: "If there are no ALLOW policies for the workload, allow the request."
#[test]
fn without_an_allow_policy_everyone_may() {
    assert_eq!(ask(&inbound(&[]), None, THIN), (true, "no AuthorizationPolicy selects the pod".to_owned()));
    let deny = authorization("ignite/deny", &format!("{{action: DENY, {}}}", rule("{namespaces: [dev]}")));
    assert_eq!(
        ask(&inbound(&[deny]), CLIENT, THIN),
        (true, "no AuthorizationPolicy with action ALLOW selects the pod".to_owned())
    );
}

/// AuthorizationPolicy reference, overview: "If any of the ALLOW policies match the request, allow the request."
/// and "Deny the request."
#[test]
fn an_allow_policy_denies_whom_it_does_not_name() {
    let one = authorization("ignite/one", &format!("{{{}}}", rule("{namespaces: [gold]}")));
    let two = authorization("ignite/two", &format!("{{action: ALLOW, {}}}", rule("{namespaces: [ignite]}")));
    let both = inbound(&[one, two]);
    assert_eq!(ask(&both, CLIENT, THIN), (true, "AuthorizationPolicy ignite/two rule 0".to_owned()));
    assert_eq!(
        ask(&both, Some("cluster.local/ns/dev/sa/x"), THIN),
        (false, "AuthorizationPolicy ignite/one no rule matches, nor in 1 other ALLOW policies".to_owned())
    );
}

/// AuthorizationPolicy reference, overview: "If there are any DENY policies that match the request, deny the
/// request." comes before ALLOW.
#[test]
fn a_deny_that_matches_wins_over_every_allow() {
    let allow = authorization("ignite/allow", "{rules: [{}]}");
    let deny = authorization("ignite/deny", &format!("{{action: DENY, {}}}", rule("{namespaces: [ignite]}")));
    let both = inbound(&[allow, deny]);
    assert_eq!(ask(&both, CLIENT, THIN), (false, "AuthorizationPolicy ignite/deny rule 0".to_owned()));
    assert!(ask(&both, Some("cluster.local/ns/dev/sa/x"), THIN).0);
}

/// AuthorizationPolicy reference, rules: "If not set, the match will never occur. This is equivalent to setting a
/// default of deny for the target workloads if the action is ALLOW."
#[test]
fn an_allow_without_rules_denies_all_and_a_deny_without_rules_denies_none() {
    for spec in ["{}", "{action: ALLOW}", "{rules: null}", "{rules: []}"] {
        assert!(!allows(&[authorization("ignite/none", spec)], CLIENT, THIN), "{spec}");
    }
    let deny = [authorization("ignite/none", "{action: DENY}")];
    assert!(allows(&deny, CLIENT, THIN));
    assert!(reported(set(&deny).reports(), "none", "no effect"));
}

/// AuthorizationPolicy reference, Rule: "An empty rule is always matched."
#[test]
fn an_empty_rule_matches_everyone() {
    assert!(allows(&[authorization("ignite/all", "{rules: [{}]}")], None, THIN));
    assert!(!allows(&[authorization("ignite/all", "{action: DENY, rules: [{}]}")], CLIENT, THIN));
}

/// AuthorizationPolicy reference, selector: "If the authorization policy is in the root namespace, the selector
/// will additionally match with workloads in all namespaces."
#[test]
fn scope_is_the_namespace_or_all_for_the_root_namespace() {
    let spec = |app: &str| format!("{{selector: {{matchLabels: {{app: {app}}}}}}}");
    for (name, spec, reaches) in [
        ("ignite/ns", "{}".to_owned(), true),
        ("elsewhere/ns", "{}".to_owned(), false),
        ("istio-system/mesh", "{}".to_owned(), true),
        ("ignite/pods", spec("ignite"), true),
        ("ignite/pods", spec("other"), false),
        ("istio-system/pods", spec("ignite"), true),
        ("istio-system/pods", spec("other"), false),
        ("elsewhere/pods", spec("ignite"), false),
    ] {
        assert_eq!(allows(&[authorization(name, &spec)], CLIENT, THIN), !reaches, "{name} {spec}");
    }
}

/// Authorization on TCP task: "Istio ignores the invalid ALLOW rule. The final result is that the request is
/// rejected, because it does not match any ALLOW rules."
#[test]
fn an_allow_rule_with_an_http_field_is_dropped_and_the_others_stay() {
    let set = [authorization(
        "ignite/tcp",
        "{rules: [{to: [{operation: {methods: [GET], ports: ['10800']}}]}, {to: [{operation: {ports: ['8080']}}]}]}",
    )];
    assert!(!allows(&set, CLIENT, THIN));
    assert_eq!(ask(&inbound(&set), CLIENT, 8080), (true, "AuthorizationPolicy ignite/tcp rule 1".to_owned()));
    assert!(reported(super::set(&set).reports(), "tcp", "rule 0: methods cannot be known at this layer"));
}

/// Authorization on TCP task: an ALLOW rule with an HTTP-only field "becomes invalid" as a whole, also where one
/// of several alternatives has none.
#[test]
fn an_http_field_in_one_alternative_drops_the_whole_rule() {
    let set = [authorization(
        "ignite/tcp",
        "{rules: [{to: [{operation: {ports: ['10800']}}, {operation: {paths: [/x]}}]}]}",
    )];
    assert!(!allows(&set, CLIENT, THIN));
}

/// AuthorizationPolicy reference, overview: "For a DENY rule, missing attributes are treated as matches. This
/// means all TCP traffic on port 8080 would be denied in the example above."
#[test]
fn a_deny_rule_leaves_its_http_fields_out() {
    let set = [authorization(
        "ignite/tcp",
        "{action: DENY, rules: [{to: [{operation: {methods: [POST], ports: ['8080']}}]}]}",
    )];
    assert!(!allows(&set, CLIENT, 8080));
    assert!(allows(&set, CLIENT, THIN));
    assert!(reported(super::set(&set).reports(), "tcp", "matches more than it says"));
}

/// AuthorizationPolicy reference, overview: "If we were to remove the ports match, all TCP traffic would be
/// denied."
#[test]
fn a_deny_rule_of_http_fields_alone_denies_everything() {
    for rule in [
        "{to: [{operation: {methods: [POST]}}]}",
        "{from: [{source: {requestPrincipals: ['*']}}]}",
        "{when: [{key: 'request.headers[x]', values: [y]}]}",
        "{when: [{key: connection.sni, notValues: [y]}]}",
        "{when: [{key: some.attribute.of.tomorrow, values: [y]}]}",
    ] {
        let deny = authorization("ignite/http", &format!("{{action: DENY, rules: [{rule}]}}"));
        assert!(!allows(&[deny], CLIENT, THIN), "{rule}");
        let allow = authorization("ignite/http", &format!("{{action: ALLOW, rules: [{rule}]}}"));
        assert!(!allows(&[allow], CLIENT, THIN), "{rule}");
    }
}

/// AuthorizationPolicy reference, overview: "AUDIT policies do not affect whether requests are allowed or denied
/// to the workload."
#[test]
fn an_audit_policy_decides_nothing_and_is_reported() {
    let set = [authorization("ignite/audit", "{action: AUDIT, rules: [{}]}")];
    assert_eq!(ask(&inbound(&set), None, THIN), (true, "no AuthorizationPolicy selects the pod".to_owned()));
    assert!(reported(super::set(&set).reports(), "audit", "AUDIT has no effect"));
    assert!(reported(inbound(&set).reports(), "audit", "nothing is audited"));
}

/// AuthorizationPolicy reference, overview: "the CUSTOM action is evaluated first". No authorizer can be asked
/// here, so what the rules match is denied: the answer a failed authorizer gives.
#[test]
fn what_a_custom_policy_matches_is_denied_and_reported() {
    let custom = "{action: CUSTOM, provider: {name: x}, rules: [{to: [{operation: {ports: ['10800']}}]}]}";
    let set = [authorization("ignite/allow", "{rules: [{}]}"), authorization("ignite/ext", custom)];
    let (allowed, origin) = ask(&inbound(&set), CLIENT, THIN);
    assert!(!allowed);
    assert_eq!(origin, "AuthorizationPolicy ignite/ext rule 0 (CUSTOM: no external authorizer to ask)");
    assert!(allows(&set, CLIENT, 8080));
    assert!(reported(super::set(&set).reports(), "ext", "no external authorizer"));
}

/// AuthorizationPolicy reference, dry-run example: "dry-run the policy without actually enforcing it".
#[test]
fn a_dry_run_is_not_enforced_and_reported() {
    let annotated = |value: &str, spec: &str| {
        let note = format!("annotations: {{istio.io/dry-run: {value}}}, name: dry");
        [authorization("ignite/dry", spec).replace("name: dry", &note)]
    };
    let dry = annotated("'true'", "{action: DENY, rules: [{}]}");
    assert!(allows(&dry, CLIENT, THIN));
    assert!(reported(set(&dry).reports(), "dry", "not enforced"));
    assert!(allows(&annotated("'1'", "{}"), CLIENT, THIN));
    for enforced in ["'false'", "'perhaps'"] {
        assert!(!allows(&annotated(enforced, "{action: DENY, rules: [{}]}"), CLIENT, THIN), "{enforced}");
    }
    assert!(!allows(&annotated("'true'", "{action: CUSTOM, rules: [{}]}"), CLIENT, THIN));
}

/// AuthorizationPolicy reference, targetRef: "specifies the gateway the policy should be applied to".
#[test]
fn a_policy_for_a_gateway_is_not_the_pods() {
    let target = "{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}";
    for fields in [
        format!("targetRefs: [{target}]"),
        format!("targetRef: {target}"),
        format!("targetRefs: [{target}], targetRef: {{}}"),
        format!("targetRef: {target}, targetRefs: []"),
    ] {
        let set = [authorization("ignite/gateway", &format!("{{{fields}}}"))];
        assert!(allows(&set, CLIENT, THIN), "{fields}");
        assert!(reported(super::set(&set).reports(), "gateway", "gateways or waypoints"), "{fields}");
    }
    for fields in ["targetRef: {}", "targetRefs: []"] {
        assert!(!allows(&[authorization("ignite/pods", &format!("{{{fields}}}"))], CLIENT, THIN), "{fields}");
    }
}
