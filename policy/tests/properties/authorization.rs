//! Who may connect.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ringmail_identity::SpiffeId;
use ringmail_policy::{Inbound, Request};

use super::{compile, document};

const PEERS: [Option<&str>; 7] = [
    None,
    Some("td/ns/a/sa/x"),
    Some("old/ns/a/sa/x"),
    Some("td/ns/b/sa/y"),
    Some("foreign/ns/a/sa/x"),
    Some("td/ns/here/sa/x"),
    Some("td/no/service/account"),
];
const SOURCES: [&str; 2] = ["10.0.0.1", "192.168.0.1"];
const PORTS: [u16; 2] = [1, 2];

/// A field of a source or an operation, or a key of a condition, with values to choose from.
const SOURCE_FIELDS: [(&str, &[&str]); 5] = [
    (
        "principals",
        &["td/ns/a/sa/x", "cluster.local/ns/b/sa/y", "td/ns/a/*", "*/sa/x", "*", "foreign/ns/a/sa/x"],
    ),
    ("namespaces", &["a", "b", "h*", "*e", "*er*", "h*r*e", "*"]),
    ("ipBlocks", &["10.0.0.0/8", "10.0.0.2", "192.168.0.1"]),
    ("trustDomains", &["td", "old", "foreign", "*"]),
    ("requestPrincipals", &["*"]),
];
const ACCOUNTS: (&str, &[&str]) = ("serviceAccounts", &["x", "a/x", "b/y"]);
const OPERATION_FIELDS: [(&str, &[&str]); 2] = [("ports", &["1", "2", "3"]), ("methods", &["GET"])];
const KEYS: [(&str, &str, &[&str]); 5] = [
    ("source.namespace", "namespaces", &["a", "b", "h*e", "*"]),
    ("source.principal", "principals", &["td/ns/a/sa/x", "*"]),
    ("source.ip", "ipBlocks", &["10.0.0.0/8"]),
    ("destination.port", "ports", &["1"]),
    ("request.headers[x]", "methods", &["y"]),
];

/// One question: the field it is about, whether it has `not` in front, the values.
#[derive(Clone, Debug)]
struct Ask {
    field: &'static str,
    negated: bool,
    values: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Rule {
    from: Vec<Vec<Ask>>,
    to: Vec<Vec<Ask>>,
    when: Vec<(&'static str, Ask)>,
}

#[derive(Clone, Debug)]
struct Policy {
    namespace: &'static str,
    selector: Option<&'static str>,
    action: &'static str,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    peer: Option<&'static str>,
    source: &'static str,
    port: u16,
}

fn ask(field: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = Ask> + Clone {
    (any::<bool>(), subsequence(values.to_vec(), 1..=values.len())).prop_map(move |(negated, values)| Ask {
        field,
        negated,
        values,
    })
}

/// One or two fields, each at most once with and without `not`.
fn fields(all: &[(&'static str, &'static [&'static str])]) -> impl Strategy<Value = Vec<Ask>> + use<> {
    let each: Vec<_> = all.iter().map(|(field, values)| ask(field, values).boxed()).collect();
    subsequence(each, 1..=2).prop_flat_map(|asks| asks)
}

fn rule() -> impl Strategy<Value = Rule> {
    let source = prop_oneof![
        4 => fields(&SOURCE_FIELDS),
        1 => fields(&[ACCOUNTS, SOURCE_FIELDS[2]]),
    ];
    let condition =
        select(KEYS.to_vec()).prop_flat_map(|(key, field, values)| (Just(key), ask(field, values)));
    (
        prop::collection::vec(source, 0..3),
        prop::collection::vec(fields(&OPERATION_FIELDS), 0..2),
        prop::collection::vec(condition, 0..2),
    )
        .prop_map(|(from, to, when)| Rule { from, to, when })
}

fn policy() -> impl Strategy<Value = Policy> {
    (
        select(vec!["here", "here", "istio-system", "there"]),
        select(vec![None, Some("db"), Some("web")]),
        select(vec!["ALLOW", "ALLOW", "DENY", "CUSTOM", "AUDIT"]),
        prop::collection::vec(rule(), 0..3),
    )
        .prop_map(|(namespace, selector, action, rules)| Policy { namespace, selector, action, rules })
}

fn connection() -> impl Strategy<Value = Connection> {
    (select(PEERS.to_vec()), select(SOURCES.to_vec()), select(PORTS.to_vec()))
        .prop_map(|(peer, source, port)| Connection { peer, source, port })
}

impl Policy {
    fn document(&self, index: usize) -> String {
        let fields = |asks: &Vec<Ask>| -> String {
            let each: Vec<_> = asks.iter().map(|ask| format!("{}: {:?}", ask.name(), ask.values)).collect();
            each.join(", ")
        };
        let alternatives = |key: &str, member: &str, all: &Vec<Vec<Ask>>| {
            let items: Vec<_> =
                all.iter().map(|asks| format!("{{{member}: {{{}}}}}", fields(asks))).collect();
            if items.is_empty() { String::new() } else { format!("{key}: [{}], ", items.join(", ")) }
        };
        let rule = |rule: &Rule| {
            let when: Vec<_> = rule
                .when
                .iter()
                .map(|(key, ask)| {
                    let values = if ask.negated { "notValues" } else { "values" };
                    format!("{{key: '{key}', {values}: {:?}}}", ask.values)
                })
                .collect();
            let when = if when.is_empty() { String::new() } else { format!("when: [{}]", when.join(", ")) };
            format!(
                "{{{}{}{when}}}",
                alternatives("from", "source", &rule.from),
                alternatives("to", "operation", &rule.to)
            )
        };
        let rules: Vec<_> = self.rules.iter().map(rule).collect();
        let selector = self.selector.map(|app| format!("selector: {{matchLabels: {{app: {app}}}}}, "));
        let spec = format!(
            "{{{}action: {}, rules: [{}]}}",
            selector.unwrap_or_default(),
            self.action,
            rules.join(", ")
        );
        document("AuthorizationPolicy", self.namespace, &format!("p{index}"), None, &spec)
    }
}

impl Ask {
    fn name(&self) -> String {
        if self.negated {
            let (first, rest) = self.field.split_at(1);
            format!("not{}{rest}", first.to_uppercase())
        } else {
            self.field.to_owned()
        }
    }

    fn is_http(&self) -> bool {
        matches!(self.field, "requestPrincipals" | "methods")
    }
}

fn compiled(policies: &[Policy]) -> Inbound {
    let documents: Vec<_> =
        policies.iter().enumerate().map(|(index, policy)| policy.document(index)).collect();
    compile(&documents)
}

fn decide(inbound: &Inbound, connection: Connection) -> bool {
    let identity: Option<SpiffeId> = connection.peer.map(|peer| format!("spiffe://{peer}").parse().unwrap());
    let request = Request {
        identity: identity.as_ref(),
        source: connection.source.parse().unwrap(),
        destination: ([10, 9, 9, 9], connection.port).into(),
    };
    inbound.authorize(&request).allowed
}

fn text_matches(pattern: &str, value: &str) -> bool {
    match (pattern, pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        ("*", _, _) => !value.is_empty(),
        (_, Some(end), _) => value.ends_with(end),
        (_, None, Some(start)) => value.starts_with(start),
        (_, None, None) => value == pattern,
    }
}

/// Every `*` stands for any text, the empty one included.
fn glob_matches(pattern: &str, value: &str) -> bool {
    match pattern.chars().next() {
        None => value.is_empty(),
        Some('*') => (0..=value.len()).any(|from| glob_matches(&pattern[1..], &value[from..])),
        Some(first) => value.strip_prefix(first).is_some_and(|rest| glob_matches(&pattern[1..], rest)),
    }
}

/// Whether one value matches; `None` when the connection does not have what is asked about.
fn value_matches(field: &str, value: &str, connection: Connection) -> Option<bool> {
    let ours = |domain: &str| ["td", "old"].contains(&domain);
    let parts = |principal: &'static str| principal.split('/').collect::<Vec<_>>();
    let account = || match parts(connection.peer?)[..] {
        [_, "ns", namespace, "sa", name] => Some((namespace, name)),
        _ => None,
    };
    Some(match field {
        "principals" => {
            let peer = connection.peer?;
            match (value.split_once('/'), peer.split_once('/')) {
                (Some((domain, path)), Some((peers, peer_path)))
                    if value.split('/').count() == 5 && (ours(domain) || domain == "cluster.local") =>
                {
                    ours(peers) && path == peer_path
                }
                _ => text_matches(value, peer),
            }
        }
        "namespaces" => glob_matches(value, account()?.0),
        "serviceAccounts" => {
            let (namespace, name) = value.split_once('/').unwrap_or(("here", value));
            account()? == (namespace, name)
        }
        "trustDomains" => {
            let domain = parts(connection.peer?)[0];
            (ours(value) && ours(domain)) || text_matches(value, domain)
        }
        "ipBlocks" => match value.strip_suffix(".0.0.0/8") {
            Some(first) => connection.source.starts_with(&format!("{first}.")),
            None => connection.source.parse::<IpAddr>() == value.parse(),
        },
        "ports" => value == connection.port.to_string(),
        other => panic!("no oracle for {other}"),
    })
}

fn ask_holds(ask: &Ask, connection: Connection, denying: bool) -> bool {
    let answers: Vec<_> =
        ask.values.iter().map(|value| value_matches(ask.field, value, connection)).collect();
    if answers.contains(&None) {
        return ask.negated && denying;
    }
    answers.contains(&Some(true)) != ask.negated
}

fn rule_matches(rule: &Rule, connection: Connection, denying: bool) -> bool {
    let everything =
        || rule.from.iter().chain(&rule.to).flatten().chain(rule.when.iter().map(|(_, ask)| ask));
    if !denying && everything().any(Ask::is_http) {
        return false;
    }
    let holds = |ask: &Ask| ask.is_http() || ask_holds(ask, connection, denying);
    let some = |all: &[Vec<Ask>]| all.is_empty() || all.iter().any(|asks| asks.iter().all(holds));
    some(&rule.from) && some(&rule.to) && rule.when.iter().all(|(_, ask)| holds(ask))
}

fn oracle(policies: &[Policy], connection: Connection) -> bool {
    let applies =
        |policy: &&Policy| policy.namespace != "there" && policy.selector.is_none_or(|app| app == "db");
    let of =
        |action: &'static str| policies.iter().filter(applies).filter(move |policy| policy.action == action);
    // A service account without namespace is one of the policy's own; the oracle knows "here" alone.
    let matches =
        |policy: &Policy, denying| policy.rules.iter().any(|rule| rule_matches(rule, connection, denying));
    if of("CUSTOM").chain(of("DENY")).any(|policy| matches(policy, true)) {
        return false;
    }
    of("ALLOW").count() == 0 || of("ALLOW").any(|policy| matches(policy, false))
}

/// Policies whose service accounts the oracle can resolve.
fn policies() -> impl Strategy<Value = Vec<Policy>> {
    prop::collection::vec(policy(), 0..6).prop_map(|mut all| {
        for policy in &mut all {
            let relative = policy.namespace != "here";
            for ask in policy.rules.iter_mut().flat_map(|rule| rule.from.iter_mut().flatten()) {
                if relative && ask.field == "serviceAccounts" {
                    ask.values = vec!["a/x"];
                }
            }
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn verdicts_are_those_of_the_oracle(policies in policies(), connections in prop::collection::vec(connection(), 8)) {
        let inbound = compiled(&policies);
        for connection in connections {
            prop_assert_eq!(decide(&inbound, connection), oracle(&policies, connection), "{:?}", connection);
        }
    }

    #[test]
    fn the_order_of_policies_says_nothing(
        (policies, shuffled) in policies().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        connection in connection(),
    ) {
        prop_assert_eq!(decide(&compiled(&policies), connection), decide(&compiled(&shuffled), connection));
    }

    #[test]
    fn one_more_deny_policy_lets_nobody_in(mut policies in policies(), mut deny in policy(), connection in connection()) {
        let before = decide(&compiled(&policies), connection);
        deny.action = "DENY";
        policies.push(deny);
        prop_assert!(before || !decide(&compiled(&policies), connection));
    }

    #[test]
    fn a_deny_that_matches_everything_keeps_everybody_out(mut policies in policies(), connection in connection()) {
        let everything = Rule { from: Vec::new(), to: Vec::new(), when: Vec::new() };
        policies.push(Policy { namespace: "istio-system", selector: None, action: "DENY", rules: vec![everything] });
        prop_assert!(!decide(&compiled(&policies), connection));
    }

    #[test]
    fn one_more_rule_in_an_allow_policy_keeps_nobody_out(
        mut policies in policies(),
        rule in rule(),
        at in any::<prop::sample::Index>(),
        connection in connection(),
    ) {
        let allows: Vec<_> = (0..policies.len()).filter(|&index| policies[index].action == "ALLOW").collect();
        prop_assume!(!allows.is_empty());
        let before = decide(&compiled(&policies), connection);
        policies[allows[at.index(allows.len())]].rules.push(rule);
        prop_assert!(!before || decide(&compiled(&policies), connection));
    }
}
