//! What travels from the control plane to a proxy: what is refused of it, and that on demand means "not known yet".

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ringmail_policy::{
    Answer, Client, Destination, Facts, Inbound, LeftAlone, Origin, Outbound, Resources, Route, Service,
    ServicePort, Workload,
};
use ringmail_xds::Resource;
use ringmail_xds::ringmail::{self, EXTENSION, Membership, Memberships, PortMode, PortRange};
use ringmail_xds::security::{self, Authorization, Clause, Match, Rule};
use ringmail_xds::workload;

use super::{THIN, authorization, destination_rule, id, inbound, pod, set, settings, workload_entry};

/// Every workload that is known, after a journey from the control plane to a proxy that asked for each.
pub(super) fn arrived(outbound: &Outbound) -> Outbound {
    let mut arrived = outbound.clone();
    for destination in outbound.destinations() {
        let (workload, message) = (destination.workload().to_wire(), destination.to_wire());
        let read = Arc::new(Destination::from_wire(&workload, &message, &settings()).unwrap());
        for address in &read.workload().addresses {
            arrived.insert(*address, Answer::Workload(Arc::clone(&read)));
        }
    }
    arrived
}

/// A route without the workload's labels: most of them stay behind.
pub(super) fn unlabelled(mut route: Route) -> Route {
    match &mut route {
        Route::Mesh { workload, .. }
        | Route::Outside { workload: Some(workload), .. }
        | Route::Refused { workload, .. } => Arc::make_mut(workload).labels.clear(),
        Route::Outside { workload: None, .. } | Route::Service { .. } | Route::Unknown => {}
    }
    route
}

pub(super) fn destination(resources: &Resources, workload: Workload) -> Destination {
    let pod = pod();
    let origin = Origin::Default("a test".into());
    Client::new(resources, &settings(), Some(&pod)).destination(Arc::new(workload), origin).unwrap()
}

/// A pod of Ignite with its headless Service and one for thin clients on another port.
pub(super) fn node() -> Facts {
    let service = |name: &str, port, target_port| ServicePort {
        host: format!("{name}.ignite.svc.cluster.local"),
        namespace: "ignite".to_owned(),
        port,
        target_port,
    };
    Facts {
        uid: "Kubernetes//Pod/ignite/ignite-0".to_owned(),
        name: "ignite-0".to_owned(),
        namespace: "ignite".to_owned(),
        owner: Some("ignite".to_owned()),
        service_account: "default".to_owned(),
        labels: [
            ("security.istio.io/tlsMode".to_owned(), "istio".to_owned()),
            ("app".to_owned(), "db".to_owned()),
        ]
        .into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        network: None,
        cluster: Some("Kubernetes".to_owned()),
        locality: Some("eu/a".to_owned()),
        services: vec![service("ignite-headless", 47500, 47500), service("ignite-thin", 80, THIN)],
        left_alone: LeftAlone::from_iter([9100..=9101]),
    }
}

fn workload() -> Workload {
    node().workload(&settings().trust_domain).unwrap()
}

#[test]
fn a_workload_arrives_as_it_was_but_for_labels_that_nobody_asks_for() {
    let mut sent = workload();
    sent.labels.insert("secret".to_owned(), "x".to_owned());
    let sent = destination(&set(&[]), sent);
    let read = Destination::from_wire(&sent.workload().to_wire(), &sent.to_wire(), &settings()).unwrap();
    let kept = [("app".to_owned(), "db".to_owned())].into();
    assert_eq!(**read.workload(), Workload { labels: kept, ..Workload::clone(sent.workload()) });
    assert_eq!(read.workload().service_host(THIN), "ignite-thin.ignite.svc.cluster.local");
    assert_eq!(read.workload().service_host(47500), "ignite-headless.ignite.svc.cluster.local");
    assert_eq!(read.workload().service_host(8080), "db.ignite.svc.cluster.local");
}

/// workload.proto, trust_domain and service_account: what is the default is left out.
#[test]
fn what_is_the_default_is_left_out_of_istios_message_and_anything_else_arrives() {
    let said = |message: &workload::Workload| {
        let workload::Workload { trust_domain, service_account, network, canonical_revision, .. } =
            message.clone();
        [trust_domain, service_account, network, canonical_revision]
    };
    assert_eq!(said(&workload().to_wire()), ["", "", "", "latest"]);
    let mut facts = Facts { service_account: "gold".to_owned(), network: Some("east".to_owned()), ..node() };
    facts.labels.insert("version".to_owned(), "v2".to_owned());
    let sent = destination(&set(&[]), facts.workload(&"td".parse().unwrap()).unwrap());
    let message = sent.workload().to_wire();
    assert_eq!(said(&message), ["td", "gold", "east", "v2"]);
    let read = Destination::from_wire(&message, &sent.to_wire(), &settings()).unwrap();
    assert_eq!(said(&read.workload().to_wire()), said(&message));
    assert_eq!(read.workload().identity, sent.workload().identity);
}

/// Trust domain migration task: the mesh's own workloads may present either of its names, and foreign ones theirs alone.
#[test]
fn a_workload_of_the_meshs_own_arrives_with_each_of_its_names_and_a_foreign_one_with_its_own() {
    let mut settings = settings();
    settings.trust_domain_aliases = vec!["old-td".parse().unwrap()];
    let identities = |trust_domain: &str| {
        let sent = destination(&set(&[]), node().workload(&trust_domain.parse().unwrap()).unwrap());
        let read = Destination::from_wire(&sent.workload().to_wire(), &sent.to_wire(), &settings).unwrap();
        let Route::Mesh { identities, .. } = read.route(THIN) else { panic!("not in the mesh") };
        identities.to_vec()
    };
    let own = [id("cluster.local/ns/ignite/sa/default"), id("old-td/ns/ignite/sa/default")];
    assert_eq!(identities("cluster.local"), own);
    assert_eq!(identities("foreign"), [id("foreign/ns/ignite/sa/default")]);
}

/// Destination Rule reference, host: "The name of a service from the service registry." A port is decided by the
/// rule of the Service whose port it is, and a port of a rule is the Service's.
#[test]
fn each_port_of_a_workload_is_decided_by_the_rule_of_its_service() {
    let rules = set(&[
        destination_rule(
            "ignite/thin",
            "{host: ignite-thin, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}}",
        ),
        destination_rule("ignite/counted", "{host: db, trafficPolicy: {tls: {mode: SIMPLE}}}"),
    ]);
    let destination = destination(&rules, workload());
    let reason = |port| match destination.route(port) {
        Route::Mesh { .. } => "mesh",
        Route::Outside { reason, .. } => reason.as_str(),
        Route::Refused { reason, .. } => reason.as_str(),
        Route::Service { .. } | Route::Unknown => "no workload",
    };
    assert_eq!(reason(THIN), "destination_rule_disable");
    assert_eq!(reason(47500), "mesh");
    assert_eq!(reason(8080), "tls_origination");
}

#[test]
fn on_demand_an_address_is_unknown_until_there_is_an_answer_even_outside_the_ranges() {
    let ranges = settings().mesh_ranges;
    let mut outbound = Outbound::on_demand(ranges);
    let (inside, outside): (SocketAddr, SocketAddr) =
        ("10.0.0.1:47500".parse().unwrap(), "192.0.2.1:443".parse().unwrap());
    for address in [inside, outside] {
        assert_eq!(outbound.route(address), Route::Unknown);
        assert!(outbound.is_open(address.ip()));
        outbound.insert(address.ip(), Answer::Nobody);
        assert!(!outbound.is_open(address.ip()));
    }
    assert_eq!(outbound.route(inside), Route::Unknown, "a pod that is not known yet may be there");
    assert!(matches!(outbound.route(outside), Route::Outside { .. }));
    outbound.insert(inside.ip(), Answer::Workload(Arc::new(destination(&set(&[]), workload()))));
    assert!(matches!(outbound.route(inside), Route::Mesh { .. }));
    assert!(outbound.in_mesh("::ffff:10.0.0.1".parse().unwrap()));
    outbound.forget(inside.ip());
    assert_eq!(outbound.route(inside), Route::Unknown);
    assert!(outbound.is_open(inside.ip()));
}

#[test]
fn a_service_leads_to_its_endpoints_and_without_one_in_the_mesh_goes_as_it_is() {
    let endpoint: SocketAddr = "10.0.0.1:10800".parse().unwrap();
    let service = Service {
        host: "ignite-thin.ignite.svc.cluster.local".to_owned(),
        namespace: "ignite".to_owned(),
        ports: [(80, [endpoint].into())].into(),
    };
    let mut outbound = Outbound::on_demand(settings().mesh_ranges);
    let address: IpAddr = "10.96.0.7".parse().unwrap();
    outbound.insert(address, Answer::Service(Arc::new(service)));
    let Route::Service { endpoints, .. } = outbound.route(SocketAddr::new(address, 80)) else {
        panic!("not a service")
    };
    assert_eq!(*endpoints, [endpoint]);
    let other = outbound.route(SocketAddr::new(address, 81));
    assert!(matches!(other, Route::Outside { reason, .. } if reason.as_str() == "no_mesh_endpoint"));
}

/// Every way in which a message about a workload can lie.
#[test]
fn a_message_about_a_workload_that_lies_is_refused_with_its_field() {
    type Lie = fn(&mut workload::Workload, &mut ringmail::Destination);
    let rows: &[(&str, Lie)] = &[
        ("uid: expected that of the workload, got other", |_, destination| {
            destination.uid = "other".to_owned()
        }),
        ("trust_domain: expected a trust domain", |workload, _| workload.trust_domain = "Up/Per".to_owned()),
        ("service_account: expected one that an identity can carry", |workload, _| {
            workload.service_account = "a/b".to_owned();
        }),
        ("addresses: expected 4 or 16 bytes, got 3 bytes", |workload, _| {
            workload.addresses = vec![vec![1, 2, 3]]
        }),
        ("services: expected a key <namespace>/<host name>", |workload, _| {
            workload.services.insert("host".to_owned(), workload::PortList::default());
        }),
        ("services.service_port: expected a port from 1 to 65535, got 70000", |workload, _| {
            let port = workload::Port { service_port: 70_000, ..workload::Port::default() };
            workload.services.insert("ns/host".to_owned(), workload::PortList { ports: vec![port] });
        }),
        ("mode: expected a mode, got nothing", |_, destination| destination.mode = None),
        ("mode: expected DISABLE (1), PERMISSIVE (2) or STRICT (3), got 0", |_, destination| {
            destination.mode.as_mut().unwrap().mode = 0;
        }),
        ("decided_by: expected the resource that decided, got nothing", |_, destination| {
            destination.entry = None
        }),
        ("ports.port: expected a port from 1 to 65535, got 0", |_, destination| {
            destination.ports.push(PortMode { port: 0, mode: destination.mode.clone() });
        }),
        ("left_alone.first: expected a port from 1 to 65535, got 0", |_, destination| {
            destination.left_alone.push(PortRange { first: 0, last: 1 });
        }),
        ("left_alone.last: expected none below the first, got 1", |_, destination| {
            destination.left_alone.push(PortRange { first: 2, last: 1 });
        }),
        ("tls: expected DISABLE (1), SIMPLE (2), MUTUAL (3) or ISTIO_MUTUAL (4), got 0", |_, destination| {
            destination.tls = Some(ringmail::TlsDecision::default());
        }),
    ];
    let sent = destination(&set(&[]), workload());
    for (expected, lie) in rows {
        let (mut workload, mut message) = (sent.workload().to_wire(), sent.to_wire());
        lie(&mut workload, &mut message);
        let error = Destination::from_wire(&workload, &message, &settings()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}, expected {expected}");
    }
}

#[test]
fn a_policy_that_lies_is_refused_with_its_field() {
    let (modes, _) = inbound(&[]).to_wire();
    let of = |found: Match| Authorization {
        rules: vec![Rule { clauses: vec![Clause { matches: vec![found] }] }],
        ..Authorization::default()
    };
    let address = |address: Vec<u8>, length| security::Address { address, length };
    let rows = [
        (
            of(Match { source_ips: vec![address(vec![10, 0, 0, 0], 33)], ..Match::default() }),
            "address: expected 4 or 16 bytes, and as many bits as they have at most, got 4 bytes of which 33 bits",
        ),
        (
            of(Match { not_destination_ips: vec![address(vec![10], 8)], ..Match::default() }),
            "address: expected 4 or 16 bytes",
        ),
        (
            of(Match { destination_ports: vec![65_536], ..Match::default() }),
            "destination_ports: expected a port from 1 to 65535, got 65536",
        ),
        (
            of(Match { extensions: vec![garbled()], ..Match::default() }),
            "extensions: expected type.googleapis.com/ringmail.discovery.v1.Conditions",
        ),
    ];
    for (policy, expected) in rows {
        let error = Inbound::from_wire(&modes, [&policy]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}, expected {expected}");
    }
}

/// An extension of the right type whose bytes are not of it.
fn garbled() -> workload::Extension {
    let mut any = ringmail::Conditions::default().to_any();
    any.value = vec![0xff].into();
    workload::Extension { name: EXTENSION.to_owned(), config: Some(any) }
}

/// Extensions of others say nothing to this client, as they say nothing to Istio's.
#[test]
fn an_extension_of_somebody_else_is_passed_over() {
    let (modes, mut policies) = inbound(&[authorization("ignite/a", "{rules: [{}]}")]).to_wire();
    policies[0].extensions.push(workload::Extension { name: "example.com".to_owned(), config: None });
    Inbound::from_wire(&modes, &policies).unwrap();
}

/// Two questions about the source that must both hold.
#[test]
fn both_ranges_of_a_source_must_hold_after_the_journey_too() {
    let policy = "{rules: [{from: [{source: {ipBlocks: [10.0.0.0/8], remoteIpBlocks: [10.0.1.0/24]}}]}]}";
    for (source, allowed) in [("10.0.1.9", true), ("10.0.2.9", false)] {
        let inbound = super::arrived(&inbound(&[authorization("ignite/a", policy)]));
        let request = ringmail_policy::Request {
            identity: None,
            source: source.parse().unwrap(),
            destination: ([10, 0, 0, 2], THIN).into(),
        };
        assert_eq!(inbound.authorize(&request).allowed, allowed, "{source}");
    }
}

#[test]
fn an_entry_of_a_file_and_a_pod_make_the_same_kind_of_workload() {
    let entry = workload_entry(
        "ignite/ignite-0",
        "{address: 10.0.0.1, labels: {app: db, security.istio.io/tlsMode: istio, service.istio.io/workload-name: ignite}}",
    );
    let outbound = Outbound::compile(&set(&[entry]), &settings());
    let known = outbound.workload("10.0.0.1".parse().unwrap()).unwrap();
    let pod = workload();
    assert_eq!(
        (&known.identity, &known.workload_name, &known.canonical_service, known.in_mesh),
        (&pod.identity, &pod.workload_name, &pod.canonical_service, pod.in_mesh)
    );
}

#[test]
fn services_arrive_in_the_order_in_which_the_sender_says_that_they_are_old() {
    let known = destination(&Resources::default(), node().workload(&settings().trust_domain).unwrap());
    let mut message = known.workload().to_wire();
    let first = |message: &workload::Workload| {
        let read = Destination::from_wire(message, &known.to_wire(), &settings()).unwrap();
        read.workload().services[0].host.clone()
    };
    assert_eq!(first(&message), "ignite-headless.ignite.svc.cluster.local");
    let name = "ignite/ignite-thin.ignite.svc.cluster.local".to_owned();
    let memberships = Memberships { services: vec![Membership { service: name, chosen: true }] };
    let config = Some(memberships.to_any());
    message.extensions.push(workload::Extension { name: EXTENSION.to_owned(), config });
    assert_eq!(first(&message), "ignite-thin.ignite.svc.cluster.local");
}
