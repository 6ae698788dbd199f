//! Every bound on the input, tried at its edge.

use ringmail_policy::{
    MAX_FAULTS, MAX_LIST_ITEMS, MAX_RESOURCES, MAX_SERVICE_ACCOUNTS, MAX_TEXT_BYTES, MAX_YAML_DEPTH,
    MAX_YAML_NODES,
};

use ringmail_evidence::shown;

use super::*;

fn is_limit(error: &ParseError, what: &str) -> bool {
    matches!(error, ParseError::Limit { what: limited, .. } if *limited == what)
}

#[test]
fn text_beyond_the_limit_is_refused_also_when_spread_over_sources() {
    let half = format!("#{}\n", "x".repeat(MAX_TEXT_BYTES / 2 - 2));
    assert_eq!(2 * half.len(), MAX_TEXT_BYTES);
    assert!(Resources::parse([("a", &*half), ("b", &*half)]).is_ok());
    let faults = Resources::parse([("a", &*half), ("b", &*half), ("c", "#"), ("d", "#")]).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(is_limit(&faults[0], "bytes of text") && &*faults[0].place().source == "c");
}

#[test]
fn resources_beyond_the_limit_are_refused() {
    let item = |n: usize| {
        format!(
            "- {{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: a{n}}}}}\n"
        )
    };
    let list = |n: usize| {
        let items: String = (0..n).map(item).collect();
        format!("apiVersion: v1\nkind: List\nitems:\n{items}")
    };
    let last = authorization("ns/last", "{action: DENY}");
    let all = Resources::parse([("a", &*list(MAX_RESOURCES - 1)), ("b", &*last)]).unwrap();
    assert!(reported(all.reports(), "last", "without rules"), "the last of as many as there may be is read");
    let more = [
        ("a", &*list(MAX_RESOURCES)),
        ("b", "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: b}}"),
    ];
    let faults = Resources::parse(more).unwrap_err();
    assert!(faults.len() == 1 && is_limit(&faults[0], "resources"), "{faults:?}");
}

#[test]
fn lists_beyond_the_limit_are_refused() {
    let rules = |n: usize| authorization("ns/a", &format!("{{rules: [{}]}}", vec!["{}"; n].join(", ")));
    assert!(Resources::parse([("a", &*rules(MAX_LIST_ITEMS))]).is_ok());
    assert!(faults(&rules(MAX_LIST_ITEMS + 1))[0].to_string().contains("at most 512 items, read 513"));
    let accounts = |n: usize| {
        let names: Vec<_> = (0..n).map(|n| format!("sa{n}")).collect();
        let source = format!("{{serviceAccounts: [{}]}}", names.join(", "));
        authorization("ns/a", &format!("{{rules: [{{from: [{{source: {source}}}]}}]}}"))
    };
    assert!(Resources::parse([("a", &*accounts(MAX_SERVICE_ACCOUNTS))]).is_ok());
    assert!(faults(&accounts(MAX_SERVICE_ACCOUNTS + 1))[0].to_string().contains("at most 16 items, read 17"));
}

#[test]
fn nesting_beyond_the_limit_is_refused() {
    let nested = |depth: usize| {
        let inner = depth - 1;
        format!("apiVersion: v1\nkind: A\nx: {}{}\n", "[".repeat(inner), "]".repeat(inner))
    };
    assert!(Resources::parse([("a", &*nested(MAX_YAML_DEPTH))]).is_ok());
    for depth in [MAX_YAML_DEPTH + 1, 100_000] {
        assert!(matches!(faults(&nested(depth))[0], ParseError::Syntax { .. }), "{depth}");
    }
}

#[test]
fn values_beyond_the_limit_are_refused() {
    let values = |count: usize| format!("apiVersion: v1\nkind: A\nx: [{}]\n", "x,".repeat(count));
    assert!(Resources::parse([("a", &*values(MAX_YAML_NODES - 7))]).is_ok());
    assert!(matches!(faults(&values(MAX_YAML_NODES + 1))[0], ParseError::Syntax { .. }));
}

/// Each alias doubles what it repeats: 64 lines would stand for 2^64 values.
#[test]
fn aliases_that_multiply_are_refused_quickly() {
    let mut text = "apiVersion: v1\nkind: A\na0: &a0 [x, x]\n".to_owned();
    for level in 1..64 {
        text += &format!("a{level}: &a{level} [*a{}, *a{}]\n", level - 1, level - 1);
    }
    assert!(matches!(faults(&text)[0], ParseError::Syntax { .. }));
}

#[test]
fn faults_beyond_the_limit_are_left_out() {
    let text: String =
        (0..2 * MAX_FAULTS).map(|n| peer_authentication(&format!("ns/a{n}"), "{x: y}")).collect();
    assert_eq!(faults(&text).len(), MAX_FAULTS);
    let one: Vec<_> = (0..2 * MAX_FAULTS).map(|n| format!("x{n}: y")).collect();
    let one = peer_authentication("ns/a", &format!("{{{}}}", one.join(", ")));
    assert_eq!(faults(&one).len(), MAX_FAULTS);
}

/// As the API server or a directory may have them: much, and with fields of a later version.
#[test]
fn ten_megabytes_of_policies_are_read_and_fields_that_nobody_knows_are_named() {
    let principals: Vec<String> =
        (0..500).map(|n| format!("cluster.local/ns/namespace-{n}/sa/account-{n}")).collect();
    let spec = format!("{{rules: [{{from: [{{source: {{principals: [{}]}}}}]}}]}}", principals.join(", "));
    let one = |n: usize| authorization(&format!("ns/a{n}"), &spec);
    let text: String = (0..10 * 1024 * 1024 / one(0).len() + 1).map(one).collect();
    assert!(text.len() >= 10 * 1024 * 1024);
    let began = std::time::Instant::now();
    assert!(Resources::parse([("a", &*text)]).is_ok());
    let took = began.elapsed();
    shown!("A21", "ms to read 10 MiB of policies", took.as_millis(), "< 20,000");
    assert!(took.as_secs() < 20, "{took:?}");
    let later = authorization("ns/a", "{rules: [{}], laterField: {x: 1}}");
    assert!(faults(&later)[0].to_string().contains("laterField"), "{:?}", faults(&later));
    shown!(
        "A21",
        "bombs of aliases, depth and size in policies, and unknown fields",
        "refused, each named",
        "exactly"
    );
}
