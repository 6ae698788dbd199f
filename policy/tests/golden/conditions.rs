//! AuthorizationPolicy: what one rule asks.

use super::*;

const CLIENT: &str = "cluster.local/ns/gold/sa/client";

/// Whether an ALLOW of one rule lets the peer in.
fn allowed_by(rule: &str, peer: Option<&str>, port: u16) -> bool {
    allows(&[authorization("ignite/p", &format!("{{rules: [{rule}]}}"))], peer, port)
}

/// Whether a DENY of one rule keeps the peer out.
fn denied_by(rule: &str, peer: Option<&str>) -> bool {
    !allows(&[authorization("ignite/p", &format!("{{action: DENY, rules: [{rule}]}}"))], peer, THIN)
}

fn source(fields: &str) -> String {
    format!("{{from: [{{source: {{{fields}}}}}]}}")
}

/// AuthorizationPolicy reference, Rule: "Exact match", "Prefix match: abc* will match on value abc and abcd",
/// "Suffix match: *abc will match on value abc and xabc", "Presence match: * will match when value is not empty".
#[test]
fn strings_match_exactly_by_prefix_by_suffix_or_by_presence() {
    for (value, matches) in [
        ("cluster.local/ns/gold/sa/client", true),
        ("cluster.local/ns/gold/sa/clien", false),
        ("cluster.local/ns/gold/*", true),
        ("cluster.local/ns/gold/sa/client*", true),
        ("cluster.local/ns/dev/*", false),
        ("*/sa/client", true),
        ("*/sa/other", false),
        ("*", true),
        ("cluster.local/*/client", false),
        ("CLUSTER.LOCAL/ns/gold/sa/client", false),
        ("spiffe://cluster.local/ns/gold/sa/client", false),
    ] {
        let rule = source(&format!("principals: ['{value}']"));
        assert_eq!(allowed_by(&rule, Some(CLIENT), THIN), matches, "{value}");
        assert!(!allowed_by(&rule, None, THIN), "{value} without identity");
    }
}

/// AuthorizationPolicy reference, Source: "Fields in the source are ANDed together." and the example of two
/// principals, two namespaces and an excluded address.
#[test]
fn fields_are_anded_and_values_are_ored() {
    let rule =
        source("principals: ['x', '*/sa/client'], namespaces: [prod, gold], notIpBlocks: [203.0.113.4]");
    assert!(allowed_by(&rule, Some(CLIENT), THIN));
    assert!(!allowed_by(&rule, Some("cluster.local/ns/dev/sa/client"), THIN));
    assert!(!allowed_by(&rule, Some("cluster.local/ns/gold/sa/other"), THIN));
    let excluded = source("namespaces: [gold], notIpBlocks: [10.0.1.9]");
    assert!(!allowed_by(&excluded, Some(CLIENT), THIN));
}

/// AuthorizationPolicy reference, Rule: "A match occurs when at least one source, one operation and all
/// conditions matches the request."
#[test]
fn one_source_one_operation_and_every_condition_must_hold() {
    let rule = "{from: [{source: {namespaces: [dev]}}, {source: {namespaces: [gold]}}], \
                 to: [{operation: {ports: ['1']}}, {operation: {ports: ['10800']}}], \
                 when: [{key: source.namespace, values: [gold]}, {key: destination.port, values: ['10800']}]}";
    assert!(allowed_by(rule, Some(CLIENT), THIN));
    assert!(!allowed_by(rule, Some(CLIENT), 1), "a condition fails");
    assert!(!allowed_by(rule, Some("cluster.local/ns/dev/sa/x"), THIN), "the other condition fails");
    assert!(!allowed_by(rule, Some(CLIENT), 8080), "no operation");
    assert!(!allowed_by(rule, Some("cluster.local/ns/x/sa/x"), THIN), "no source");
}

/// Authorization policy examples page: DENY with `notPrincipals: ["*"]` "enforces mTLS".
#[test]
fn a_negative_match_without_identity_holds_in_a_deny_and_fails_in_an_allow() {
    for fields in [
        "notPrincipals: ['*']",
        "notPrincipals: [some/other/peer]",
        "notNamespaces: ['*']",
        "notServiceAccounts: [gold/client]",
        "notTrustDomains: [cluster.local]",
    ] {
        assert!(denied_by(&source(fields), None), "{fields}");
        assert!(!allowed_by(&source(fields), None, THIN), "{fields}");
    }
    assert!(!denied_by(&source("notPrincipals: ['*']"), Some(CLIENT)));
    for key in ["source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain"] {
        let rule = format!("{{when: [{{key: {key}, notValues: [x]}}]}}");
        assert!(denied_by(&rule, None), "{key}");
        assert!(!allowed_by(&rule, None, THIN), "{key}");
        assert!(allowed_by(&rule, Some(CLIENT), THIN), "{key}");
    }
}

/// The same holds for what an identity of another form (here one of SPIRE's) does not have.
#[test]
fn an_identity_without_namespace_is_like_none_to_questions_about_namespaces() {
    let workload = Some("cluster.local/region/payments");
    assert!(!allowed_by(&source("namespaces: ['*']"), workload, THIN));
    assert!(!allowed_by(&source("notNamespaces: [dev]"), workload, THIN));
    assert!(denied_by(&source("notNamespaces: [dev]"), workload));
    assert!(allowed_by(&source("principals: [cluster.local/region/payments]"), workload, THIN));
}

/// AuthorizationPolicy reference, namespaces: "A list of namespaces derived from the peer certificate."
#[test]
fn namespaces_come_from_the_certificate() {
    for (value, matches) in [("gold", true), ("go*", true), ("*ld", true), ("*", true), ("old", false)] {
        assert_eq!(
            allowed_by(&source(&format!("namespaces: ['{value}']")), Some(CLIENT), THIN),
            matches,
            "{value}"
        );
    }
    assert!(!allowed_by(&source("namespaces: [gold]"), None, THIN));
    assert!(!allowed_by(&source("notNamespaces: [gold]"), Some(CLIENT), THIN));
}

/// A sidecar of Istio reads every `*` of a namespace as "anything", wherever it stands.
#[test]
fn a_star_anywhere_in_a_namespace_stands_for_anything() {
    for (value, namespace, matches) in [
        ("*prod*", "prod", true),
        ("*prod*", "eu-prod-1", true),
        ("*prod*", "eu-prd-1", false),
        ("a*b", "ab", true),
        ("a*b", "a-1-b", true),
        ("a*b", "a-1-c", false),
        ("a*a", "a", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("**", "any", true),
        ("*", "any", true),
    ] {
        let peer = format!("cluster.local/ns/{namespace}/sa/x");
        let rules = [
            source(&format!("namespaces: ['{value}']")),
            format!("{{when: [{{key: source.namespace, values: ['{value}']}}]}}"),
        ];
        for rule in rules {
            assert_eq!(denied_by(&rule, Some(&peer)), matches, "deny {value} for {namespace}");
            assert_eq!(allowed_by(&rule, Some(&peer), THIN), matches, "allow {value} for {namespace}");
        }
        let others = source(&format!("notNamespaces: ['{value}']"));
        assert_eq!(denied_by(&others, Some(&peer)), !matches, "deny all but {value} for {namespace}");
    }
}

/// AuthorizationPolicy reference, serviceAccounts: either `<namespace>/<serviceAccount>` or `<serviceAccount>`, the
/// latter in the policy's own namespace.
#[test]
fn service_accounts_are_relative_to_the_policys_namespace() {
    let own = Some("cluster.local/ns/ignite/sa/client");
    assert!(allowed_by(&source("serviceAccounts: [client]"), own, THIN));
    assert!(!allowed_by(&source("serviceAccounts: [client]"), Some(CLIENT), THIN));
    assert!(allowed_by(&source("serviceAccounts: [gold/client]"), Some(CLIENT), THIN));
    assert!(!allowed_by(&source("serviceAccounts: [gold/clien]"), Some(CLIENT), THIN));
    assert!(!allowed_by(&source("serviceAccounts: [client]"), None, THIN));
}

/// AuthorizationPolicy reference, ipBlocks: "Single IP (e.g. 203.0.113.4) and CIDR (e.g. 203.0.113.0/24) are
/// supported." and remoteIpBlocks, which without any header is the same address.
#[test]
fn blocks_hold_addresses_and_ranges() {
    for (value, matches) in [
        ("10.0.1.9", true),
        ("10.0.1.8", false),
        ("10.0.1.0/24", true),
        ("10.0.2.0/24", false),
        ("0.0.0.0/0", true),
        ("::/0", false),
        ("::ffff:10.0.1.0/120", true),
    ] {
        for field in ["ipBlocks", "remoteIpBlocks"] {
            assert_eq!(
                allowed_by(&source(&format!("{field}: ['{value}']")), None, THIN),
                matches,
                "{field} {value}"
            );
        }
        for key in ["source.ip", "remote.ip"] {
            let rule = format!("{{when: [{{key: {key}, values: ['{value}']}}]}}");
            assert_eq!(allowed_by(&rule, None, THIN), matches, "{key} {value}");
        }
    }
    assert!(allowed_by("{when: [{key: destination.ip, values: [10.0.0.2]}]}", None, THIN));
    assert!(!allowed_by("{when: [{key: destination.ip, notValues: [10.0.0.0/24]}]}", None, THIN));
}

/// The same address in IPv6 form is the same address.
#[test]
fn a_mapped_source_address_is_the_ipv4_address() {
    let inbound =
        inbound(&[authorization("ignite/p", &format!("{{rules: [{}]}}", source("ipBlocks: [10.0.1.9]")))]);
    let request = Request {
        identity: None,
        source: "::ffff:10.0.1.9".parse().unwrap(),
        destination: ([10, 0, 0, 2], THIN).into(),
    };
    assert!(inbound.authorize(&request).allowed);
}

/// AuthorizationPolicy reference, ports: "A list of ports as specified in the connection."
#[test]
fn ports_are_those_of_the_connection() {
    let to = |fields: &str| format!("{{to: [{{operation: {{{fields}}}}}]}}");
    assert!(allowed_by(&to("ports: ['10800', '8080']"), None, 8080));
    assert!(!allowed_by(&to("ports: ['10800']"), None, 8080));
    assert!(allowed_by(&to("notPorts: ['10800']"), None, 8080));
    assert!(!allowed_by(&to("notPorts: ['10800']"), None, THIN));
}

/// Trust domain migration task: a policy for a principal holds under the trust domain's aliases too, and
/// `cluster.local` in a policy stands for the local trust domain.
#[test]
fn principals_hold_under_every_name_of_the_trust_domain() {
    let mut settings = settings();
    settings.trust_domain = "new-td".parse().unwrap();
    settings.trust_domain_aliases = vec!["old-td".parse().unwrap()];
    let admits = |spec: &str, peer: &str| {
        let set = set(&[authorization("ignite/p", &format!("{{rules: [{}]}}", source(spec)))]);
        ask(&Inbound::compile(&set, &settings, &pod()), Some(peer), THIN).0
    };
    for value in [
        "old-td/ns/a/sa/b",
        "new-td/ns/a/sa/b",
        "cluster.local/ns/a/sa/b",
        "*-td/ns/a/sa/b",
        "old*/ns/a/sa/b",
    ] {
        let spec = format!("principals: ['{value}']");
        for peer in ["new-td/ns/a/sa/b", "old-td/ns/a/sa/b"] {
            assert!(admits(&spec, peer), "{value} for {peer}");
            assert!(!admits(&format!("notPrincipals: ['{value}']"), peer), "not {value} for {peer}");
        }
        assert!(!admits(&spec, "foreign/ns/a/sa/b"), "{value} for a foreign peer");
        assert!(!admits(&spec, "old-td/ns/a/sa/c"), "{value} for another peer");
    }
    assert!(admits("principals: ['*-td/ns/a/sa/b']", "third-td/ns/a/sa/b"), "a suffix covers others too");
    assert!(admits("principals: [foreign/ns/a/sa/b]", "foreign/ns/a/sa/b"));
    assert!(!admits("principals: [foreign/ns/a/sa/b]", "new-td/ns/a/sa/b"));
    assert!(admits("trustDomains: [old-td]", "new-td/ns/a/sa/b"));
    assert!(!admits("trustDomains: [foreign]", "new-td/ns/a/sa/b"));
}
