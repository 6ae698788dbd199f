//! What a control plane of a later version says that is not known here: nobody is let in by it, nothing goes out in
//! plaintext, and what concerns something else works on.

use std::sync::Arc;

use ringmail_policy::{Answer, Destination, Inbound, Mode, Outbound, Request, Resources, Route};
use ringmail_xds::Resource;
use ringmail_xds::ringmail::{self, ClientTls, EXTENSION, ModeDecision, PortMode, PortTls, TlsDecision};
use ringmail_xds::security::{Authorization, Clause, Empty, Match, Rule, StringMatch, string_match::Type};
use ringmail_xds::workload::Extension;

use super::wire::{destination, node};
use super::{THIN, authorization, inbound, pod, set, settings};

/// A word that no enumeration has.
const LATER: i32 = 77;
const OTHER: u16 = 47500;

fn decided(mode: i32) -> Option<ModeDecision> {
    Some(ModeDecision { mode, decided_by: Some(ringmail::Origin::default()) })
}

fn exact(text: &str) -> StringMatch {
    StringMatch { r#type: Some(Type::Exact(text.to_owned())) }
}

fn policy(action: i32, matches: Vec<Match>) -> Authorization {
    let rules = vec![Rule { clauses: vec![Clause { matches }] }];
    Authorization {
        name: "later".to_owned(),
        namespace: "ignite".to_owned(),
        action,
        rules,
        ..Authorization::default()
    }
}

fn read(policy: &Authorization) -> Inbound {
    Inbound::from_wire(&inbound(&[]).to_wire().0, [policy]).unwrap()
}

fn allows(inbound: &Inbound, peer: &str) -> bool {
    let identity = format!("spiffe://{peer}").parse().unwrap();
    let (source, destination) = ("10.0.0.9".parse().unwrap(), ([10, 0, 0, 2], THIN).into());
    inbound.authorize(&Request { identity: Some(&identity), source, destination }).allowed
}

const PEER: &str = "cluster.local/ns/a/sa/peer";
const STRANGER: &str = "cluster.local/ns/a/sa/stranger";

#[test]
fn a_mode_that_is_not_known_is_strict_and_is_reported() {
    let message = ringmail::Inbound {
        mode: decided(ringmail::Mode::Permissive.into()),
        ports: vec![PortMode { port: THIN.into(), mode: decided(LATER) }],
        ..ringmail::Inbound::default()
    };
    let read = Inbound::from_wire(&message, []).unwrap();
    assert_eq!((read.mode(THIN).mode, read.mode(OTHER).mode), (Mode::Strict, Mode::Permissive));
    assert!(read.reports()[0].text.starts_with("mode 77: not known to this version"), "{:?}", read.reports());
}

#[test]
fn a_client_speaks_mutual_tls_to_a_port_whose_mode_is_not_known() {
    let known = destination(&Resources::default(), node().workload(&settings().trust_domain).unwrap());
    let (mut workload, mut message) = (known.workload().to_wire(), known.to_wire());
    message.mode = decided(LATER);
    workload.tunnel_protocol = LATER;
    let read = Destination::from_wire(&workload, &message, &settings()).unwrap();
    assert!(matches!(read.route(THIN), Route::Mesh { .. }), "{:?}", read.route(THIN));
}

#[test]
fn what_a_client_is_told_to_speak_and_does_not_know_is_refused_on_that_port_alone() {
    let known = destination(&Resources::default(), node().workload(&settings().trust_domain).unwrap());
    let mut message = known.to_wire();
    let told = TlsDecision { tls: LATER, decided_by: Some(ringmail::Origin::default()) };
    assert!(ClientTls::try_from(LATER).is_err());
    message.port_tls = vec![PortTls { port: THIN.into(), tls: Some(told) }];
    let read = Destination::from_wire(&known.workload().to_wire(), &message, &settings()).unwrap();
    assert!(matches!(read.route(THIN), Route::Refused { .. }), "{:?}", read.route(THIN));
    assert!(matches!(read.route(OTHER), Route::Mesh { .. }), "{:?}", read.route(OTHER));
}

#[test]
fn a_kind_that_is_not_known_decides_and_is_told_by_its_name() {
    let known = destination(&Resources::default(), node().workload(&settings().trust_domain).unwrap());
    let mut message = known.to_wire();
    let [kind, namespace, name] = ["MeshPolicy", "ignite", "later"].map(str::to_owned);
    message.entry = Some(ringmail::Origin { kind, namespace, name, detail: String::new() });
    let read = Destination::from_wire(&known.workload().to_wire(), &message, &settings()).unwrap();
    let mut outbound = Outbound::on_demand(settings().mesh_ranges);
    outbound.insert("10.0.0.1".parse().unwrap(), Answer::Workload(Arc::new(read)));
    let route = outbound.route(([10, 0, 0, 1], THIN).into());
    let Route::Mesh { decided_by, .. } = route else { panic!("{route:?}") };
    assert_eq!(decided_by.to_string(), "MeshPolicy ignite/later");
}

#[test]
fn an_action_that_is_not_known_denies_what_its_rules_match() {
    let read = read(&policy(LATER, vec![Match { principals: vec![exact(PEER)], ..Match::default() }]));
    assert!(!allows(&read, PEER) && allows(&read, STRANGER));
    assert!(
        read.reports()[0].text.starts_with("action 77: not known to this version"),
        "{:?}",
        read.reports()
    );
}

/// Each asks something about the peer besides its name.
#[test]
fn a_question_that_is_not_known_lets_nobody_in_and_keeps_nobody_from_being_denied() {
    let later =
        Extension { name: EXTENSION.to_owned(), config: Some(ringmail::Memberships::default().to_any()) };
    let unread = Extension { name: EXTENSION.to_owned(), config: None };
    let of =
        |extension| Match { principals: vec![exact(PEER)], extensions: vec![extension], ..Match::default() };
    let texts = vec![exact(PEER), StringMatch { r#type: None }];
    let in_another_way = Match { not_namespaces: texts, principals: vec![exact(PEER)], ..Match::default() };
    for found in [of(later), of(unread), in_another_way] {
        let allow = read(&policy(0, vec![found.clone()]));
        assert!(!allows(&allow, PEER), "{found:?}");
        let text = &allow.reports()[0].text;
        assert!(
            text.starts_with("rule 0 asks what is not known to this version, nobody is allowed"),
            "{text}"
        );
        let deny = read(&policy(1, vec![found.clone()]));
        assert!(!allows(&deny, PEER) && allows(&deny, STRANGER), "{found:?}");
        // What stands beside it as an alternative is known, and holds.
        let beside = Match { principals: vec![exact(STRANGER)], ..Match::default() };
        let both = read(&policy(0, vec![found, beside]));
        assert!(!allows(&both, PEER) && allows(&both, STRANGER));
    }
}

/// Istio's own message has room for a `*` at one end and nowhere else: what it can say is said in it, so that whoever knows no more
/// than that understands it.
#[test]
fn namespaces_are_said_in_istios_words_where_it_has_some() {
    let said = |spec: &str| {
        let set =
            set(&[authorization("ignite/p", &format!("{{rules: [{{from: [{{source: {{{spec}}}}}]}}]}}"))]);
        let (_, policies) = Inbound::compile(&set, &settings(), &pod()).to_wire();
        let found = policies[0].rules[0].clauses[0].matches[0].clone();
        let texts =
            |texts: Vec<StringMatch>| texts.into_iter().filter_map(|text| text.r#type).collect::<Vec<_>>();
        (texts(found.namespaces), texts(found.not_namespaces))
    };
    let all = || {
        vec![
            Type::Exact("gold".to_owned()),
            Type::Prefix("a".to_owned()),
            Type::Suffix("b".to_owned()),
            Type::Presence(Empty {}),
        ]
    };
    assert_eq!(said("namespaces: [gold, 'a*', '*b', '*']"), (all(), vec![]));
    assert_eq!(said("notNamespaces: [gold, 'a*', '*b', '*']"), (vec![], all()));
    assert_eq!(said("namespaces: [gold, 'a*b']"), (vec![], vec![]));
}
