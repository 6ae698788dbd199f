mod lies;

use std::{net::SocketAddr, time::Instant};

use ringmail_policy::{Mode, Route};
use ringmail_xds::{
    address_bytes, address_name, address_of,
    ringmail::{ModeDecision, Origin, Versioned},
    security::{Action, Clause, Match, Rule},
    workload::{
        self, NetworkAddress, Port, PortList, TunnelProtocol, Workload, WorkloadStatus, address::Type,
    },
};

use super::{fault::Incomplete, *};

const OWN: &str = "10.0.0.1";
const PEER: &str = "10.0.0.2";
const VIP: &str = "10.96.0.7";
const SERVICE: &str = "ignite/thin.ignite.svc.cluster.local";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

fn held() -> Held {
    let settings = Settings::new("cluster.local".parse().unwrap());
    let identity = Some("spiffe://cluster.local/ns/ignite/sa/default".parse().unwrap());
    Held::new(settings, Own { addresses: vec![ip(OWN)], identity })
}

fn workload(name: &str, address: &str) -> Workload {
    Workload {
        uid: format!("Kubernetes//Pod/ignite/{name}"),
        name: name.to_owned(),
        namespace: "ignite".to_owned(),
        addresses: vec![address_bytes(ip(address))],
        tunnel_protocol: TunnelProtocol::LegacyIstioMtls.into(),
        ..Workload::default()
    }
}

fn named(name: &str, version: &str, message: &impl Resource) -> NamedResource {
    let (name, version) = (name.to_owned(), version.to_owned());
    NamedResource { name, version, resource: Some(message.to_any()), aliases: Vec::new() }
}

fn answer<M: Resource>(resources: Vec<NamedResource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: M::TYPE_URL.to_owned(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn address(workload: Workload) -> NamedResource {
    let name = workload.uid.clone();
    named(&name, "1", &Address { r#type: Some(Type::Workload(workload)) })
}

fn destination(address: &str, uid: &str) -> NamedResource {
    let message = ringmail::Destination {
        uid: uid.to_owned(),
        entry: Some(Origin::default()),
        mode: ringmail::Inbound::permissive().mode,
        ..ringmail::Destination::default()
    };
    named(&address_name(ip(address)), "1", &message)
}

fn told(held: &mut Held, workloads: &[Workload]) {
    let addresses = workloads.iter().cloned().map(address).collect();
    assert_eq!(held.apply(&answer::<Address>(addresses, &[])), []);
    let destinations = workloads.iter().map(|workload| {
        let own = address_of(&workload.addresses[0]).unwrap().to_string();
        destination(&own, &workload.uid)
    });
    assert_eq!(held.apply(&answer::<ringmail::Destination>(destinations.collect(), &[])), []);
    held.take_changed();
}

fn inbound(mode: ringmail::Mode, policies: &[(&str, &str)]) -> DeltaDiscoveryResponse {
    let listed = |(name, version): &(&str, &str)| Versioned {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
    };
    let message = ringmail::Inbound {
        mode: Some(ModeDecision { mode: mode.into(), decided_by: Some(Origin::default()) }),
        authorizations: policies.iter().map(listed).collect(),
        ..ringmail::Inbound::default()
    };
    answer::<ringmail::Inbound>(vec![named(ringmail::Inbound::NAME, "1", &message)], &[])
}

fn deny_all(version: &str) -> DeltaDiscoveryResponse {
    let policy = Authorization {
        name: "deny".to_owned(),
        namespace: "ignite".to_owned(),
        action: Action::Deny.into(),
        rules: vec![Rule::default()],
        ..Authorization::default()
    };
    answer::<Authorization>(vec![named("ignite/deny", version, &policy)], &[])
}

fn allows(inbound: &Inbound) -> bool {
    let request = ringmail_policy::Request { identity: None, source: ip(PEER), destination: at(OWN, 10800) };
    inbound.authorize(&request).allowed
}

fn complete(held: &mut Held) -> Result<Arc<Inbound>, Incomplete> {
    held.take_changed();
    held.complete()
}

#[test]
fn nothing_is_decided_before_the_own_policies_and_the_own_address_are_there() {
    let mut held = held();
    assert_eq!(complete(&mut held).unwrap_err(), Incomplete::NoInbound);
    held.apply(&inbound(ringmail::Mode::Strict, &[("ignite/deny", "7")]));
    assert_eq!(complete(&mut held).unwrap_err(), Incomplete::NoPolicy("ignite/deny".to_owned()));
    held.apply(&deny_all("6"));
    assert_eq!(complete(&mut held).unwrap_err(), Incomplete::NoPolicy("ignite/deny".to_owned()));
    held.apply(&deny_all("7"));
    assert_eq!(complete(&mut held).unwrap_err(), Incomplete::OwnUnknown(OWN.to_owned()));
    told(&mut held, &[workload("n1", OWN)]);
    let decided = complete(&mut held).unwrap();
    assert_eq!(decided.mode(47500).mode, Mode::Strict);
    assert!(!allows(&decided));
}

#[test]
fn a_server_that_takes_this_pod_for_another_one_is_told_apart_from_one_that_does_not_know_it() {
    let mut held = held();
    held.apply(&inbound(ringmail::Mode::Strict, &[]));
    let other = Workload { service_account: "other".to_owned(), ..workload("n1", OWN) };
    told(&mut held, &[other]);
    assert_eq!(
        complete(&mut held).unwrap_err().to_string(),
        "discovery says that this pod's own address 10.0.0.1 is spiffe://cluster.local/ns/ignite/sa/other, expected \
         spiffe://cluster.local/ns/ignite/sa/default"
    );
}

#[test]
fn a_change_of_policies_counts_as_a_whole_or_not_at_all() {
    let mut held = held();
    told(&mut held, &[workload("n1", OWN)]);
    held.apply(&inbound(ringmail::Mode::Permissive, &[]));
    assert!(allows(&complete(&mut held).unwrap()));
    // The list comes first: until the policy is there, what held before does.
    held.apply(&inbound(ringmail::Mode::Strict, &[("ignite/deny", "1")]));
    let before = complete(&mut held).unwrap();
    assert!(allows(&before) && before.mode(47500).mode == Mode::Permissive);
    held.apply(&deny_all("1"));
    let after = complete(&mut held).unwrap();
    assert!(!allows(&after) && after.mode(47500).mode == Mode::Strict);
    // A policy that goes before the list does is still listed: nothing opens meanwhile.
    held.apply(&answer::<Authorization>(Vec::new(), &["ignite/deny"]));
    assert!(!allows(&complete(&mut held).unwrap()));
    held.apply(&inbound(ringmail::Mode::Strict, &[]));
    assert!(allows(&complete(&mut held).unwrap()));
}

#[test]
fn what_discovery_says_of_others_leaves_the_own_policies_the_same_object() {
    let mut held = held();
    told(&mut held, &[workload("n1", OWN)]);
    held.apply(&inbound(ringmail::Mode::Permissive, &[]));
    let before = complete(&mut held).unwrap();
    told(&mut held, &[workload("n2", PEER)]);
    assert!(Arc::ptr_eq(&before, &held.complete().unwrap()));
}

#[test]
fn an_address_is_open_until_both_messages_about_its_workload_are_there() {
    let mut held = held();
    held.ask(ip(PEER));
    let peer = workload("n2", PEER);
    for (resource, known) in [(address(peer.clone()), false), (destination(PEER, &peer.uid), true)] {
        let of_type = DeltaDiscoveryResponse {
            type_url: resource.resource.clone().unwrap().type_url,
            resources: vec![resource],
            ..DeltaDiscoveryResponse::default()
        };
        held.apply(&of_type);
        assert!(held.take_changed());
        assert_eq!(matches!(held.outbound().route(at(PEER, 47500)), Route::Mesh { .. }), known);
        assert_eq!(held.outbound().is_open(ip(PEER)), !known);
    }
    assert!(!held.take_changed());
}

/// A pod whose address was another pod's a moment ago: what was said of the old one must not be used for the new.
#[test]
fn what_is_said_of_a_workload_is_not_used_for_the_next_one_at_its_address() {
    let mut held = held();
    held.ask(ip(PEER));
    told(&mut held, &[workload("old", PEER)]);
    let young = Workload { service_account: "young".to_owned(), ..workload("young", PEER) };
    held.apply(&answer::<Address>(vec![address(young.clone())], &["Kubernetes//Pod/ignite/old"]));
    held.take_changed();
    assert!(held.outbound().is_open(ip(PEER)), "the old destination is not about the young pod");
    held.apply(&answer::<ringmail::Destination>(vec![destination(PEER, &young.uid)], &[]));
    held.take_changed();
    let Route::Mesh { identities, .. } = held.outbound().route(at(PEER, 1)) else { panic!("no route") };
    assert_eq!(identities[0].as_str(), "spiffe://cluster.local/ns/ignite/sa/young");
}

#[test]
fn a_workload_that_is_gone_and_an_address_that_never_was_leave_nobody() {
    let mut held = held();
    let unknown = "192.0.2.1";
    for address in [PEER, unknown] {
        held.ask(ip(address));
    }
    told(&mut held, &[workload("n2", PEER)]);
    held.apply(&answer::<Address>(Vec::new(), &["Kubernetes//Pod/ignite/n2", "/192.0.2.1"]));
    held.take_changed();
    for address in [PEER, unknown] {
        assert!(!held.outbound().is_open(ip(address)));
        assert!(matches!(held.outbound().route(at(address, 1)), Route::Outside { .. }), "{address}");
    }
}

#[test]
fn the_ranges_of_the_cluster_come_with_the_own_policies() {
    let mut held = held();
    held.ask(ip(PEER));
    held.apply(&answer::<Address>(Vec::new(), &["/10.0.0.2"]));
    let mut message = inbound(ringmail::Mode::Strict, &[]);
    let mesh = ringmail::Mesh { ranges: vec!["10.0.0.0/8".to_owned()] };
    let with_ranges = ringmail::Inbound {
        mesh: Some(mesh),
        ..ringmail::Inbound::from_any(message.resources[0].resource.as_ref().unwrap()).unwrap()
    };
    message.resources = vec![named(ringmail::Inbound::NAME, "2", &with_ranges)];
    held.apply(&message);
    held.take_changed();
    assert_eq!(held.outbound().route(at(PEER, 1)), Route::Unknown, "never in plaintext");
}

fn endpoint(name: &str, address: &str, in_mesh: bool) -> Workload {
    let ports = vec![Port { service_port: 80, target_port: 10800, app_protocol: 4 }];
    let tunnel = if in_mesh { TunnelProtocol::LegacyIstioMtls } else { TunnelProtocol::None };
    Workload {
        services: [(SERVICE.to_owned(), PortList { ports })].into(),
        tunnel_protocol: tunnel.into(),
        ..workload(name, address)
    }
}

fn service() -> NamedResource {
    let (namespace, hostname) = SERVICE.split_once('/').unwrap();
    let address = NetworkAddress { network: String::new(), address: address_bytes(ip(VIP)) };
    let service = workload::Service {
        name: "thin".to_owned(),
        namespace: namespace.to_owned(),
        hostname: hostname.to_owned(),
        addresses: vec![address],
        ports: Vec::new(),
    };
    named(SERVICE, "1", &Address { r#type: Some(Type::Service(service)) })
}

fn endpoints(held: &Held) -> Vec<String> {
    match held.outbound().route(at(VIP, 80)) {
        Route::Service { endpoints, .. } => endpoints.iter().map(ToString::to_string).collect(),
        Route::Mesh { .. } | Route::Outside { .. } | Route::Refused { .. } | Route::Unknown => Vec::new(),
    }
}

#[test]
fn a_service_stands_for_its_healthy_endpoints_while_one_is_in_the_mesh() {
    let mut held = held();
    held.ask(ip(VIP));
    held.apply(&answer::<Address>(vec![service()], &[]));
    held.take_changed();
    assert!(matches!(held.outbound().route(at(VIP, 80)), Route::Outside { .. }), "no endpoint");
    told(&mut held, &[endpoint("a", "10.0.0.3", false)]);
    assert!(matches!(held.outbound().route(at(VIP, 80)), Route::Outside { .. }), "none in the mesh");
    told(&mut held, &[endpoint("b", "10.0.0.4", true)]);
    assert_eq!(endpoints(&held), ["10.0.0.3:10800", "10.0.0.4:10800"]);
    let sick = Workload { status: WorkloadStatus::Unhealthy.into(), ..endpoint("a", "10.0.0.3", false) };
    told(&mut held, &[sick]);
    assert_eq!(endpoints(&held), ["10.0.0.4:10800"]);
    held.apply(&answer::<Address>(Vec::new(), &["Kubernetes//Pod/ignite/b"]));
    held.take_changed();
    assert!(endpoints(&held).is_empty());
}

/// Every resource that a server can lie with. What was known before stays.
#[test]
fn a_resource_that_lies_is_refused_by_itself_and_what_was_known_stays() {
    let mut held = held();
    held.ask(ip(PEER));
    told(&mut held, &[workload("n1", OWN), workload("n2", PEER)]);
    held.apply(&inbound(ringmail::Mode::Strict, &[]));
    let before = complete(&mut held).unwrap();
    let modeless = named(ringmail::Inbound::NAME, "2", &ringmail::Inbound::default());
    let no_range = ringmail::Inbound {
        mesh: Some(ringmail::Mesh { ranges: vec!["10.0.0.0/33".to_owned()] }),
        ..ringmail::Inbound::permissive()
    };
    let no_port = Match { destination_ports: vec![65_536], ..Match::default() };
    let rule = Rule { clauses: vec![Clause { matches: vec![no_port] }] };
    let bad_policy = Authorization { rules: vec![rule], ..Authorization::default() };
    let nothing = |name: &str| NamedResource { name: name.to_owned(), ..NamedResource::default() };
    let rows = [
        (answer::<ringmail::Inbound>(vec![modeless], &[]), "inbound: mode: expected a mode, got nothing"),
        (
            answer::<ringmail::Inbound>(vec![named("inbound", "2", &no_range)], &[]),
            "inbound: mesh.ranges: expected a range such as 10.0.0.0/8, got 10.0.0.0/33",
        ),
        (
            answer::<Authorization>(vec![named("a/b", "1", &bad_policy)], &[]),
            "a/b: destination_ports: expected a port from 1 to 65535, got 65536",
        ),
        (answer::<Address>(vec![nothing("x")], &[]), "x: expected a resource, got nothing"),
        (
            answer::<Address>(vec![named("x", "1", &Address::default())], &[]),
            "x: expected a workload or a service, got nothing",
        ),
        (answer::<Address>(vec![named("x", "1", &bad_policy)], &[]), "x: expected a resource of type"),
        (
            answer::<ringmail::Destination>(vec![named("peer", "1", &ringmail::Destination::default())], &[]),
            "peer: expected an address as its name, got nothing",
        ),
        (
            DeltaDiscoveryResponse { type_url: "x".to_owned(), ..DeltaDiscoveryResponse::default() },
            "expected an answer of a type that was asked for, got \"x\"",
        ),
    ];
    for (answer, expected) in rows {
        let faults = held.apply(&answer);
        assert_eq!(faults.len(), 1, "{expected}");
        assert!(faults[0].to_string().starts_with(expected), "{}", faults[0]);
        held.take_changed();
        assert!(Arc::ptr_eq(&before, &held.complete().unwrap()));
        assert!(matches!(held.outbound().route(at(PEER, 1)), Route::Mesh { .. }));
    }
}

#[test]
fn a_message_about_a_workload_that_cannot_be_verified_leads_nowhere() {
    let mut held = held();
    held.ask(ip(PEER));
    told(&mut held, &[Workload { service_account: "not/one".to_owned(), ..workload("n2", PEER) }]);
    assert_eq!(held.outbound().route(at(PEER, 1)), Route::Unknown);
    assert!(!held.outbound().is_open(ip(PEER)));
}

#[test]
fn a_server_that_sends_without_end_fills_its_bound_and_no_more() {
    let mut held = held();
    let many = |count: usize| {
        let workload = |number: usize| {
            let address = std::net::Ipv4Addr::from(0x0b00_0000 + u32::try_from(number).unwrap());
            address_of_pod(&format!("p{number}"), &address.to_string())
        };
        answer::<Address>((0..count).map(workload).collect(), &[])
    };
    let began = Instant::now();
    let faults = held.apply(&many(MAX_HELD + 2));
    assert_eq!(faults.len(), 2);
    assert!(faults[0].to_string().contains("more than 16384 workloads and services"), "{}", faults[0]);
    held.take_changed();
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

fn address_of_pod(name: &str, own: &str) -> NamedResource {
    address(workload(name, own))
}

#[test]
fn what_is_kept_brings_about_the_same_decisions_and_asks_for_the_same() {
    let mut held = held();
    for asked in [PEER, VIP, "192.0.2.1"] {
        held.ask(ip(asked));
    }
    told(&mut held, &[workload("n1", OWN), workload("n2", PEER), endpoint("b", "10.0.0.4", true)]);
    held.apply(&answer::<Address>(vec![service()], &["/192.0.2.1"]));
    held.apply(&deny_all("1"));
    held.apply(&inbound(ringmail::Mode::Strict, &[("ignite/deny", "1")]));
    complete(&mut held).unwrap();
    let mut next = self::held();
    for answer in held.answers() {
        next.ask_again(&answer);
        assert_eq!(next.apply(&answer), []);
    }
    assert!(!allows(&complete(&mut next).unwrap()));
    for asked in [PEER, VIP, "192.0.2.1"] {
        assert_eq!(next.outbound().route(at(asked, 80)), held.outbound().route(at(asked, 80)), "{asked}");
    }
    assert!(next.asked().any(|asked| asked == ip(PEER)));
    assert_eq!(next.versions(Authorization::TYPE_URL), held.versions(Authorization::TYPE_URL));
}

#[test]
fn an_address_that_is_no_longer_asked_for_is_forgotten() {
    let mut held = held();
    held.ask(ip(PEER));
    told(&mut held, &[workload("n2", PEER)]);
    let mut dropped = false;
    for number in 0..=u32::try_from(super::super::asked::MAX_ASKED).unwrap() {
        let change = held.ask(std::net::Ipv4Addr::from(0x0b00_0000 + number).into());
        dropped |= change.unsubscribe.contains(&ip(PEER));
    }
    assert!(dropped);
    held.take_changed();
    assert!(held.outbound().is_open(ip(PEER)));
}
