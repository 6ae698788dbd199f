//! The world by tables, and against one that is made anew after each change.

mod left_alone;
pub(in super::super) mod objects;
mod oracle;

use std::{collections::BTreeMap, net::IpAddr};

use ringmail_policy::Kind;
use ringmail_xds::{
    Resource,
    ringmail::{Destination, Inbound, Mode},
    workload::{Address, Workload, WorkloadStatus, WorkloadType, address::Type},
};
use serde_json::json;

use super::*;
use objects::{endpoints, object, pod, policy, service, settings};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn world(updates: impl IntoIterator<Item = Update>) -> World {
    let mut world = World::new(settings(), "Kubernetes".to_owned());
    world.apply(updates);
    world
}

/// The workloads that a client is told of, by name.
fn workloads(world: &World, at: &str) -> BTreeMap<String, Workload> {
    let mut found = BTreeMap::new();
    for (name, encoded) in world.addresses(address(at)) {
        let resource = encoded.named(Address::TYPE_URL, &name, Vec::new());
        match Address::from_any(&resource.resource.unwrap()).unwrap().r#type.unwrap() {
            Type::Workload(workload) => _ = found.insert(name.to_string(), workload),
            Type::Service(_) => {}
        }
    }
    found
}

fn names(world: &World, at: &str) -> Vec<String> {
    world.addresses(address(at)).iter().map(|(name, _)| name.to_string()).collect()
}

fn destination(world: &World, at: &str, client: Option<&Pod>) -> Destination {
    let (name, encoded) = world.destinations(address(at), client).remove(0);
    Destination::from_any(&encoded.named(Destination::TYPE_URL, &name, Vec::new()).resource.unwrap()).unwrap()
}

#[test]
fn a_workload_is_named_after_its_owner_as_the_field_does() {
    let owned = |kind: &str, owner: &str, hash: Option<&str>| {
        let mut pod = objects::pod_json("a", "web-7d4b9-x2x", 1, &["10.0.0.1"]);
        pod["metadata"]["generateName"] = json!("web-");
        pod["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "v1", "kind": kind, "name": owner, "uid": "1", "controller": true }]);
        if let Some(hash) = hash {
            pod["metadata"]["labels"]["pod-template-hash"] = json!(hash);
        }
        let info = PodInfo::of(&serde_json::from_value(pod).unwrap());
        (info.owner.unwrap(), info.kind)
    };
    for (kind, owner, hash, expected) in [
        ("ReplicaSet", "web-7d4b9", Some("7d4b9"), ("web", WorkloadType::Deployment)),
        ("ReplicaSet", "web-7d4b9", None, ("web-7d4b9", WorkloadType::Deployment)),
        ("ReplicaSet", "web7d4b9", Some("7d4b9"), ("web7d4b9", WorkloadType::Deployment)),
        ("StatefulSet", "ignite", None, ("ignite", WorkloadType::Deployment)),
        ("Job", "backup", None, ("backup", WorkloadType::Job)),
        ("Job", "backup-28374650", None, ("backup", WorkloadType::CronJob)),
        ("Job", "backup-1234567", None, ("backup-1234567", WorkloadType::Job)),
        ("Job", "backup-12345678901", None, ("backup-12345678901", WorkloadType::Job)),
    ] {
        assert_eq!(owned(kind, owner, hash), (expected.0.to_owned(), expected.1), "{kind} {owner}");
    }
    let bare = world([pod("a", "p", 1, &["10.0.0.1"])]);
    let workload = &workloads(&bare, "10.0.0.1")["Kubernetes//Pod/a/p"];
    assert_eq!((&*workload.workload_name, workload.workload_type), ("p", i32::from(WorkloadType::Pod)));
}

#[test]
fn an_address_belongs_to_whoever_got_it_last_and_goes_back_at_once() {
    let mut world = world([pod("a", "old", 1, &["10.0.0.1", "fd00::1"]), pod("a", "new", 2, &["10.0.0.1"])]);
    assert_eq!(names(&world, "10.0.0.1"), ["Kubernetes//Pod/a/new"]);
    // The other keeps what is its own, and no longer claims what is not.
    assert_eq!(workloads(&world, "fd00::1")["Kubernetes//Pod/a/old"].addresses.len(), 1);
    let dirty = world.apply([Update::Pod(ObjectKey::new("a", "new"), None)]);
    assert!(dirty.addresses.contains(&address("10.0.0.1")));
    assert_eq!(names(&world, "10.0.0.1"), ["Kubernetes//Pod/a/old"]);
    world.apply([Update::Pod(ObjectKey::new("a", "old"), None)]);
    assert!(names(&world, "10.0.0.1").is_empty());
    assert!(names(&world, "fd00::1").is_empty());
}

#[test]
fn of_two_that_claim_an_address_the_one_that_started_later_has_it_however_long_it_waited() {
    let started = |name: &str, made: u8, started: u8| {
        let mut json = objects::pod_json("a", name, made, &["10.0.0.1"]);
        json["status"]["startTime"] = json!(format!("2024-01-{started:02}T00:00:00Z"));
        objects::pod_of(&json)
    };
    let (waited, made_later) = (|| started("waited", 1, 4), || started("made-later", 2, 2));
    for pods in [[waited(), made_later()], [made_later(), waited()]] {
        assert_eq!(names(&world(pods), "10.0.0.1"), ["Kubernetes//Pod/a/waited"]);
    }
}

#[test]
fn a_pod_that_has_ended_leaves_its_address_to_the_next_whatever_becomes_of_it() {
    let ended = |labels: &str| {
        // Younger than who has the address now: age does not make it count.
        let mut json = objects::pod_json("a", "ended", 3, &["10.0.0.1"]);
        json["status"]["phase"] = json!("Succeeded");
        json["metadata"]["labels"]["touched"] = json!(labels);
        objects::pod_of(&json)
    };
    let mut world = world([pod("a", "ended", 3, &["10.0.0.1"])]);
    let rows = [
        ("ended", ended("no"), false),
        ("another one has it", pod("a", "next", 2, &["10.0.0.1"]), true),
        ("changed", ended("yes"), true),
        ("gone", Update::Pod(ObjectKey::new("a", "ended"), None), true),
    ];
    for (what, update, is_next) in rows {
        world.apply([update]);
        let expected: &[&str] = if is_next { &["Kubernetes//Pod/a/next"] } else { &[] };
        assert_eq!(names(&world, "10.0.0.1"), expected, "{what}");
    }
}

#[test]
fn pods_that_have_ended_or_have_their_nodes_address_do_not_count() {
    for (path, value) in [
        ("/status/phase", json!("Succeeded")),
        ("/status/phase", json!("Failed")),
        ("/spec/hostNetwork", json!(true)),
    ] {
        let mut json = objects::pod_json("a", "p", 1, &["10.0.0.1"]);
        *json.pointer_mut(path).unwrap() = value;
        let world = world([objects::pod_of(&json)]);
        assert!(names(&world, "10.0.0.1").is_empty(), "{path}");
    }
}

#[test]
fn a_services_address_stands_for_its_endpoints_with_their_own_ports() {
    let world = world([
        pod("a", "p0", 1, &["10.0.0.1"]),
        pod("a", "p1", 1, &["10.0.0.2"]),
        service("a", "thin", 1, &["10.96.0.1"], &[("client", 80)]),
        endpoints("a", "thin-1", "thin", &[("client", 10800)], &[("p0", true)]),
        endpoints("a", "thin-2", "thin", &[("client", 10801)], &[("p1", false)]),
    ]);
    let behind = workloads(&world, "10.96.0.1");
    let service = "a/thin.a.svc.cluster.local";
    for (pod, target, chosen) in [("p0", 10800, true), ("p1", 10801, false)] {
        let workload = &behind[&format!("Kubernetes//Pod/a/{pod}")];
        let port = workload.services[service].ports[0];
        assert_eq!((port.service_port, port.target_port), (80, target));
        assert_eq!(workload.may_be_chosen(service), chosen, "{pod}");
    }
    assert_eq!(names(&world, "10.96.0.1")[0], service);
    let told: Vec<_> =
        world.destinations(address("10.96.0.1"), None).into_iter().map(|told| told.0).collect();
    assert_eq!(told, ["/10.0.0.1".into(), "/10.0.0.2".into()] as [Arc<str>; 2]);
}

#[test]
fn a_workload_of_several_services_says_for_which_it_may_be_chosen_and_the_oldest_comes_first() {
    let world = world([
        pod("a", "p", 1, &["10.0.0.1"]),
        service("a", "young", 2, &["10.96.0.1"], &[("", 80)]),
        service("a", "zeta", 1, &[], &[("", 80)]),
        endpoints("a", "young-1", "young", &[("", 80)], &[("p", false)]),
        endpoints("a", "zeta-1", "zeta", &[("", 80)], &[("p", true)]),
    ]);
    let workload = &workloads(&world, "10.0.0.1")["Kubernetes//Pod/a/p"];
    let said = workload.memberships().unwrap().services;
    let said: Vec<_> = said.iter().map(|said| (&*said.service, said.chosen)).collect();
    assert_eq!(said, [("a/zeta.a.svc.cluster.local", true), ("a/young.a.svc.cluster.local", false)]);
    assert_eq!(workload.status, i32::from(WorkloadStatus::Unhealthy));
}

#[test]
fn who_is_leaving_is_chosen_only_while_nobody_else_is_there() {
    let mut world = world([
        pod("a", "p0", 1, &["10.0.0.1"]),
        pod("a", "p1", 1, &["10.0.0.2"]),
        service("a", "s", 1, &["10.96.0.1"], &[("", 80)]),
        objects::leaving("a", "s-1", "s", &[("", 80)], "p0"),
    ]);
    let chosen = |world: &World| {
        workloads(world, "10.0.0.1")
            .values()
            .all(|workload| workload.may_be_chosen("a/s.a.svc.cluster.local"))
    };
    assert!(chosen(&world));
    world.apply([endpoints("a", "s-2", "s", &[("", 80)], &[("p1", true)])]);
    assert!(!chosen(&world));
}

#[test]
fn an_endpoint_that_names_an_earlier_pod_of_the_name_is_not_the_later_one() {
    let slice = endpoints("a", "s-1", "s", &[("", 80)], &[("p", true)]);
    let mut world =
        world([service("a", "s", 1, &["10.96.0.1"], &[("", 80)]), slice, pod("a", "p", 1, &["10.0.0.1"])]);
    assert_eq!(workloads(&world, "10.96.0.1").len(), 1);
    let mut json = objects::pod_json("a", "p", 2, &["10.0.0.2"]);
    json["metadata"]["uid"] = json!("another");
    world.apply([objects::pod_of(&json)]);
    assert!(workloads(&world, "10.96.0.1").is_empty());
}

fn mode(world: &World, at: &str) -> Mode {
    destination(world, at, None).mode.unwrap().mode.try_into().unwrap()
}

#[test]
fn a_policy_that_cannot_be_read_leaves_its_last_good_version_in_force_and_touches_no_other() {
    let strict = policy(Kind::PeerAuthentication, "a", "p", 1, json!({ "mtls": { "mode": "STRICT" } }));
    let bad = policy(Kind::PeerAuthentication, "a", "p", 1, json!({ "mtls": { "mode": "STRICTER" } }));
    let other = policy(Kind::PeerAuthentication, "b", "p", 1, json!({ "mtls": { "mode": "DISABLE" } }));
    let pods = || [pod("a", "p", 1, &["10.0.0.1"]), pod("b", "p", 1, &["10.0.0.2"])];
    let mut after_good = world(pods().into_iter().chain([strict, other.clone()]));
    after_good.apply([bad.clone()]);
    assert_eq!((mode(&after_good, "10.0.0.1"), mode(&after_good, "10.0.0.2")), (Mode::Strict, Mode::Disable));
    let never_good = world(pods().into_iter().chain([bad, other]));
    assert_eq!((mode(&never_good, "10.0.0.1"), mode(&never_good, "10.0.0.2")), (Mode::Strict, Mode::Disable));
    let notices: Vec<_> = never_good.policies().notices().collect();
    assert!(notices[0].fault);
    assert_eq!(
        notices[0].texts[0],
        "spec.mtls.mode: expected UNSET, DISABLE, PERMISSIVE or STRICT, read \"STRICTER\""
    );
}

#[test]
fn of_a_peer_authentication_that_cannot_be_read_holds_what_can_be_and_else_strict() {
    let labelled = |name: &str| {
        let mut json = objects::pod_json("a", name, 1, &["10.0.0.1"]);
        json["metadata"]["labels"] = json!({ "app": name });
        json["status"]["podIPs"] = json!([{ "ip": if name == "x" { "10.0.0.1" } else { "10.0.0.2" } }]);
        objects::pod_of(&json)
    };
    let ports = json!({ "80": { "mode": "DISABLE" } });
    let x = json!({ "matchLabels": { "app": "x" } });
    for (spec, modes, holds) in [
        (
            json!({ "mtls": { "mode": "STRICT" }, "portLevelMtls": ports }),
            [Mode::Strict, Mode::Strict],
            "spec.mtls holds for every port of what it selects",
        ),
        (
            json!({ "selector": x, "mtls": { "mode": "DISABLE" }, "portLevel": {} }),
            [Mode::Disable, Mode::Permissive],
            "spec.mtls holds for every port of what it selects",
        ),
        (
            json!({ "selector": x, "mtls": { "mode": "STRICTER" } }),
            [Mode::Strict, Mode::Permissive],
            "STRICT holds for what it selects",
        ),
        (
            json!({ "selector": { "matchLabel": {} }, "mtls": { "mode": "DISABLE" } }),
            [Mode::Strict, Mode::Strict],
            "STRICT holds for its namespace",
        ),
    ] {
        let bad = policy(Kind::PeerAuthentication, "a", "bad", 1, spec.clone());
        let world = world([labelled("x"), labelled("y"), bad]);
        assert_eq!([mode(&world, "10.0.0.1"), mode(&world, "10.0.0.2")], modes, "{spec}");
        let told = world.policies().notices().next().unwrap().texts.last().unwrap().clone();
        assert_eq!(told, format!("until it can be read, {holds}"), "{spec}");
    }
}

#[test]
fn an_authorization_policy_that_cannot_be_read_denies_what_it_selects() {
    let labelled = |name: &str| {
        let mut json = objects::pod_json("a", name, 1, &["10.0.0.1"]);
        json["metadata"]["labels"] = json!({ "app": name });
        objects::pod_of(&json)
    };
    let own = |world: &World, name: &str| {
        world.own_policies(&ObjectKey::new("a", name), &format!("a-{name}-1")).unwrap().authorizations.len()
    };
    for (selector, denied) in [
        (json!({ "matchLabels": { "app": "x" } }), [1, 0]),
        (json!({ "matchLabel": {} }), [1, 1]),
        (json!(null), [1, 1]),
    ] {
        let spec = json!({ "selector": selector, "action": "ALOW" });
        let bad = policy(Kind::AuthorizationPolicy, "a", "bad", 1, spec);
        let world = world([labelled("x"), labelled("y"), bad]);
        assert_eq!([own(&world, "x"), own(&world, "y")], denied, "{selector}");
    }
}

#[test]
fn half_supported_policies_are_noticed_with_the_field() {
    let spec = json!({ "host": "x", "subsets": [{ "name": "v1" }] });
    let world = world([policy(Kind::DestinationRule, "a", "r", 1, spec)]);
    let notice = world.policies().notices().next().unwrap();
    assert!(!notice.fault);
    assert_eq!(notice.texts, ["spec.subsets: subsets have no effect"]);
}

#[test]
fn clients_of_the_rules_own_namespace_are_told_otherwise_than_others() {
    let rule = |to: serde_json::Value| {
        let spec = json!({
            "host": "p.a.svc.cluster.local", "exportTo": to, "trafficPolicy": { "tls": { "mode": "DISABLE" } },
        });
        policy(Kind::DestinationRule, "a", "r", 1, spec)
    };
    let client = |namespace: &str| Pod { namespace: namespace.to_owned(), ..Pod::default() };
    let world = world([pod("a", "p", 1, &["10.0.0.1"]), rule(json!(["."]))]);
    assert!(destination(&world, "10.0.0.1", Some(&client("a"))).tls.is_some());
    assert!(destination(&world, "10.0.0.1", Some(&client("b"))).tls.is_none());
}

/// Ports of 80 and 81 on which a pod is told that it is dialled in plaintext.
fn in_plaintext(world: &World, name: &str) -> Vec<u16> {
    let own = world.own_policies(&ObjectKey::new("a", name), &format!("a-{name}-1")).unwrap();
    let message = own.inbound.named(Inbound::TYPE_URL, Inbound::NAME, Vec::new()).resource.unwrap();
    let inbound = ringmail_policy::Inbound::from_wire(&Inbound::from_any(&message).unwrap(), []).unwrap();
    [80, 81].into_iter().filter(|port| inbound.plaintext_from_mesh(*port).is_some()).collect()
}

#[test]
fn a_pod_is_told_on_which_of_its_ports_clients_are_told_to_speak_plaintext() {
    let rule = |spec: serde_json::Value| policy(Kind::DestinationRule, "a", "r", 1, spec);
    let host = "s.a.svc.cluster.local";
    let disable = json!({ "mode": "DISABLE" });
    let of_port = json!([{ "port": { "number": 8081 }, "tls": disable }]);
    let rows = [
        (json!({ "host": host, "trafficPolicy": { "tls": disable } }), vec![80, 81]),
        (json!({ "host": host, "trafficPolicy": { "portLevelSettings": of_port } }), vec![81]),
        (json!({ "host": host, "exportTo": ["b"], "trafficPolicy": { "tls": disable } }), vec![80, 81]),
        (json!({ "host": host, "trafficPolicy": { "tls": { "mode": "ISTIO_MUTUAL" } } }), vec![]),
        (json!({ "host": "other", "trafficPolicy": { "tls": disable } }), vec![]),
    ];
    let service = json!({
        "metadata": { "namespace": "a", "name": "s", "creationTimestamp": "2024-01-01T00:00:00Z" },
        "spec": { "clusterIPs": ["10.96.0.1"], "ports": [
            { "name": "x", "port": 8080, "targetPort": 80 }, { "name": "y", "port": 8081, "targetPort": 81 },
        ] },
    });
    let service = ServiceInfo::of(&serde_json::from_value(service).unwrap());
    let mut world = world([
        pod("a", "p", 1, &["10.0.0.1"]),
        pod("a", "q", 1, &["10.0.0.2"]),
        Update::Service(service.key.clone(), Some(service)),
    ]);
    let slice = |pod: &str| endpoints("a", "s-1", "s", &[("x", 80), ("y", 81)], &[(pod, true)]);
    world.apply([slice("p")]);
    for (spec, expected) in rows {
        let dirty = world.apply([rule(spec.clone())]);
        assert_eq!(in_plaintext(&world, "p"), expected, "{spec}");
        assert!(in_plaintext(&world, "q").is_empty(), "{spec}");
        // The last row takes the word of the one before back.
        assert!(dirty.pods.contains(&ObjectKey::new("a", "p")), "{spec}");
        assert!(!dirty.pods.contains(&ObjectKey::new("a", "q")), "{spec}");
    }
    // Who becomes an endpoint later, and who is one no longer.
    world.apply([rule(json!({ "host": host, "trafficPolicy": { "tls": disable } }))]);
    let dirty = world.apply([slice("q")]);
    assert!(["p", "q"].iter().all(|name| dirty.pods.contains(&ObjectKey::new("a", name))));
    assert_eq!((in_plaintext(&world, "p"), in_plaintext(&world, "q")), (vec![], vec![80, 81]));
}

#[test]
fn what_a_pod_is_told_of_itself_names_each_policy_in_its_version() {
    let allow = policy(Kind::AuthorizationPolicy, "a", "allow", 1, json!({ "rules": [{}] }));
    let mut world = world([pod("a", "p", 1, &["10.0.0.1"]), allow]);
    world.apply([Update::Node(
        "n".into(),
        Some(NodeInfo { ranges: vec!["10.1.0.0/24".parse().unwrap()], locality: None }),
    )]);
    let own = world.own_policies(&ObjectKey::new("a", "p"), "a-p-1").unwrap();
    let message = own.inbound.named(Inbound::TYPE_URL, Inbound::NAME, Vec::new()).resource.unwrap();
    let inbound = Inbound::from_any(&message).unwrap();
    assert_eq!(inbound.authorizations[0].name, "a/allow");
    assert_eq!(inbound.authorizations[0].version, own.authorizations[0].1.version.to_string());
    assert_eq!(inbound.mesh.unwrap().ranges, ["10.0.0.0/24", "10.1.0.0/24"]);
    assert!(world.own_policies(&ObjectKey::new("a", "p"), "another").is_none());
}

#[test]
fn the_place_of_a_node_is_its_pods_also_when_it_becomes_known_later() {
    let mut world = world([pod("a", "p", 1, &["10.0.0.1"])]);
    let node: k8s_openapi::api::core::v1::Node = serde_json::from_value(json!({
        "metadata": { "name": "node", "labels": { "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z" } },
        "spec": { "podCIDRs": ["10.1.0.0/24"] },
    }))
    .unwrap();
    let dirty = world.apply([Update::Node("node".into(), Some(NodeInfo::of(&node)))]);
    assert!(dirty.all_pods && dirty.addresses.contains(&address("10.0.0.1")));
    let locality = workloads(&world, "10.0.0.1")["Kubernetes//Pod/a/p"].locality.clone().unwrap();
    assert_eq!((&*locality.region, &*locality.zone), ("r", "z"));
    assert!(object(Kind::PeerAuthentication, "a", "p").kind == Kind::PeerAuthentication);
}
