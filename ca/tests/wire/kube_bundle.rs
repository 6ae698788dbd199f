//! The bundle in the namespaces: everywhere it belongs, and no write more than that takes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fake_api_server::{FakeApiServer, Key, data, key};
use crate::support::{Ca, eventually};

const FLAGS: [&str; 3] = ["--root-secret", "ringmail-ca-root", "--distribute-bundle"];

fn map(namespace: &str) -> Key {
    key("configmaps", namespace, "ringmail-ca-root-cert")
}

pub(crate) fn holds(server: &FakeApiServer, namespace: &str, bundle: &str) -> bool {
    server
        .get(&map(namespace))
        .is_some_and(|map| data(&map).get("root-cert.pem").is_some_and(|pem| pem == bundle))
}

pub(crate) fn bundle(ca: &Ca) -> String {
    std::fs::read_to_string(ca.path("bundle.pem")).unwrap()
}

#[test]
fn every_namespace_of_the_mesh_has_the_bundle_whatever_happens_to_it() {
    let server =
        FakeApiServer::start(&["ringmail-system", "ignite", "default", "kube-system", "kube-public"]);
    let ca = Ca::on(&server, &FLAGS);
    let bundle = bundle(&ca);
    for namespace in ["ringmail-system", "ignite", "default"] {
        eventually(namespace, || holds(&server, namespace, &bundle));
    }
    server.namespace("late", json!({}));
    eventually("a new namespace", || holds(&server, "late", &bundle));
    server.delete(&map("ignite"));
    eventually("a deleted configmap", || holds(&server, "ignite", &bundle));
    let mut tampered = server.get(&map("default")).unwrap();
    tampered["data"]["root-cert.pem"] = json!("of somebody else");
    server.put(&map("default"), tampered);
    eventually("a changed configmap", || holds(&server, "default", &bundle));
    for namespace in ["kube-system", "kube-public"] {
        assert_eq!(server.get(&map(namespace)), None, "{namespace}");
    }
    let writes = server.count("PATCH");
    assert_eq!(writes, 6, "one for the own namespace's mark, two at the start, one for each of three events");
    drop(ca);
    let again = Ca::on(&server, &FLAGS);
    eventually("it leads", || server.get(&key("leases", "ringmail-system", "ringmail-ca")).is_some());
    server.namespace("later", json!({}));
    eventually("it writes", || holds(&server, "later", &self::bundle(&again)));
    assert_eq!(server.count("PATCH"), writes + 1, "what is right already is not written");
}

#[test]
fn a_selector_is_followed_as_labels_change() {
    let server = FakeApiServer::start(&["ringmail-system", "outside"]);
    server.namespace("inside", json!({ "mesh": "yes" }));
    let flags = [&FLAGS[..], &["--bundle-namespaces", "mesh=yes"]].concat();
    let ca = Ca::on(&server, &flags);
    let bundle = bundle(&ca);
    eventually("the selected one", || holds(&server, "inside", &bundle));
    server.delete(&map("ringmail-system"));
    eventually("the own one, selected or not", || holds(&server, "ringmail-system", &bundle));
    server.namespace("outside", json!({ "mesh": "yes" }));
    eventually("one that joined", || holds(&server, "outside", &bundle));
    server.namespace("outside", json!({}));
    // Time for the news to arrive: the next write shows that it has.
    server.namespace("third", json!({ "mesh": "yes" }));
    eventually("another one", || holds(&server, "third", &bundle));
    server.delete(&map("outside"));
    server.namespace("fourth", json!({ "mesh": "yes" }));
    eventually("yet another one", || holds(&server, "fourth", &bundle));
    assert_eq!(server.get(&map("outside")), None, "one that left is left alone");
}

fn holder(server: &FakeApiServer) -> Value {
    let lease = server.get(&key("leases", "ringmail-system", "ringmail-ca"));
    lease.map(|lease| lease["spec"]["holderIdentity"].clone()).unwrap_or_default()
}

#[test]
fn one_replica_writes_and_the_next_one_takes_over() {
    let namespaces: Vec<_> = (0..20).map(|n| format!("ns-{n}")).collect();
    let server = FakeApiServer::start(&["ringmail-system"]);
    let (one, other) = (Ca::on(&server, &FLAGS), Ca::on(&server, &FLAGS));
    eventually("somebody leads", || holder(&server).is_string());
    for namespace in &namespaces {
        server.namespace(namespace, json!({}));
    }
    let bundle = bundle(&one);
    for namespace in &namespaces {
        eventually(namespace, || holds(&server, namespace, &bundle));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.count("PATCH"), namespaces.len() + 1, "nobody writes what the other has written");
    let first = holder(&server);
    assert_eq!(one.terminate(), Some(0));
    assert_eq!(other.terminate(), Some(0));
    assert_eq!(holder(&server), json!(""), "the last one gave the lease back");
    let third = Ca::on(&server, &FLAGS);
    eventually("somebody else leads at once", || holder(&server).as_str().is_some_and(|h| !h.is_empty()));
    assert_ne!(holder(&server), first);
    server.namespace("after", json!({}));
    eventually("it writes", || holds(&server, "after", &self::bundle(&third)));
}

#[test]
fn the_lease_of_another_replica_holds_until_it_is_not_renewed_any_more() {
    let server = FakeApiServer::start(&["ringmail-system", "ignite"]);
    let lease = key("leases", "ringmail-system", "ringmail-ca");
    server.put(&lease, json!({ "spec": { "holderIdentity": "another", "leaseDurationSeconds": 15 } }));
    let ca = Ca::on(&server, &FLAGS);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(server.get(&map("ignite")), None, "the other one writes");
    assert_eq!(holder(&server), json!("another"));
    eventually("the lease is taken over", || holder(&server) != json!("another"));
    eventually("the bundle is written", || holds(&server, "ignite", &bundle(&ca)));
}
