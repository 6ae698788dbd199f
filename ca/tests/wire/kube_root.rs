//! The root in a Secret: one for all replicas, and never another one silently.

use std::net::{SocketAddr, TcpListener};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use ringmail_evidence::shown;
use serde_json::{Value, json};

use crate::support::fake_api_server::{FakeApiServer, Key, Mood, data, key};
use crate::support::{Ca, eventually, folder, kube_command, page, verify};

const FLAGS: [&str; 2] = ["--root-secret", "ringmail-ca-root"];

fn server() -> FakeApiServer {
    FakeApiServer::start(&["ringmail-system"])
}

fn secret() -> Key {
    key("secrets", "ringmail-system", "ringmail-ca-root")
}

fn mark() -> Key {
    map("ringmail-system")
}

fn map(namespace: &str) -> Key {
    key("configmaps", namespace, "ringmail-ca-root-cert")
}

fn base64(text: &str) -> Value {
    use base64::Engine;
    json!(base64::engine::general_purpose::STANDARD.encode(text))
}

/// Ends with the test, also with one that fails.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// What a CA said that did not start.
fn refusal(server: &FakeApiServer, flags: &[&str]) -> String {
    let log = Ca::try_on(server, &[&FLAGS, flags].concat()).err().expect("it must not start");
    log.last().unwrap()["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn two_that_start_at_once_serve_the_same_root() {
    let server = server();
    server.race(2);
    let (one, other) = std::thread::scope(|scope| {
        let [one, other] = [(); 2].map(|()| scope.spawn(|| Ca::on(&server, &FLAGS)));
        (one.join().unwrap(), other.join().unwrap())
    });
    assert_eq!(server.count("POST /api/v1/namespaces/ringmail-system/secrets"), 2, "both tried to make it");
    assert_eq!(one.bundle().roots()[0].der, other.bundle().roots()[0].der);
    verify(&other.bundle(), &one.leaf().await).unwrap();
    let held = data(&server.get(&secret()).unwrap());
    assert_eq!(held.keys().collect::<Vec<_>>(), ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!(data(&server.get(&mark()).unwrap())["root-cert.pem"], held["ca.crt"]);
}

#[test]
fn a_root_that_another_makes_between_two_looks_is_no_lost_one() {
    let maps = "GET /api/v1/namespaces/ringmail-system/configmaps/ringmail-ca-root-cert";
    let secrets = "GET /api/v1/namespaces/ringmail-system/secrets/ringmail-ca-root";
    for looked_for in [maps, secrets] {
        let server = server();
        let free = server.hold(looked_for);
        let (slow, quick) = std::thread::scope(|scope| {
            let slow = scope.spawn(|| Ca::on(&server, &FLAGS));
            eventually("it looks", || server.count(looked_for) > 0);
            let quick = Ca::on(&server, &FLAGS);
            drop(free);
            (slow.join().unwrap(), quick)
        });
        assert_eq!(slow.bundle().roots()[0].der, quick.bundle().roots()[0].der, "{looked_for}");
    }
}

#[test]
fn a_lost_a_replaced_and_a_missing_root_are_refused_until_the_operator_says_so() {
    let server = server();
    let first = Ca::on(&server, &FLAGS).bundle();
    let intact = server.get(&secret()).unwrap();
    server.delete(&secret());
    for _ in 0..2 {
        let error = refusal(&server, &[]);
        assert!(
            error.contains("is gone, but ConfigMap ringmail-ca-root-cert shows there was a root"),
            "{error}"
        );
    }
    let renewed = Ca::on(&server, &["--root-secret", "ringmail-ca-root", "--bootstrap-new-root"]).bundle();
    assert_eq!(renewed.roots().len(), 2, "the old root stays in the bundle");
    assert!(renewed.roots().iter().any(|root| root.der == first.roots()[0].der));

    let stranger = FakeApiServer::start(&["ringmail-system"]);
    drop(Ca::on(&stranger, &FLAGS));
    server.put(&secret(), stranger.get(&secret()).unwrap());
    let error = refusal(&server, &[]);
    assert!(error.contains("have no root in common"), "{error}");

    let empty = self::server();
    let error = refusal(&empty, &["--self-signed-root", "existing"]);
    assert!(error.contains("is not there, and --self-signed-root is existing"), "{error}");
    empty.put(&secret(), intact);
    assert_eq!(
        Ca::on(&empty, &FLAGS).bundle().roots()[0].der,
        first.roots()[0].der,
        "a Secret that was put back"
    );
}

#[test]
fn a_first_root_waits_while_others_trust_that_of_an_earlier_mesh_and_a_restored_one_is_taken() {
    let server = FakeApiServer::start(&["ringmail-system", "ignite", "other"]);
    let flags = [&FLAGS[..], &["--distribute-bundle"]].concat();
    let ca = Ca::on(&server, &flags);
    let first = ca.bundle();
    let (left, root) = (map("ignite"), server.get(&secret()).unwrap());
    eventually("the others have the bundle", || {
        [&left, &map("other")].iter().all(|map| server.get(map).is_some())
    });
    drop(ca);
    for gone in [secret(), mark(), map("other")] {
        server.delete(&gone);
    }

    let folder = folder();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = kube_command(folder.path(), &server.kubeconfig(folder.path()), &free.to_string());
    let waiting = Killed(command.args(&flags).spawn().unwrap());
    eventually("it says what it waits for", || {
        let page = page(free, "/healthz/ready").unwrap_or_default();
        page.contains("ConfigMap ringmail-ca-root-cert in ignite shows the root of an earlier mesh")
            && page.contains("kubectl delete configmap -A --field-selector")
    });
    assert_eq!(server.get(&secret()), None, "no root was made");
    assert_eq!(server.get(&mark()), None, "nobody was told of one");
    server.put(&secret(), root);
    eventually("it goes on with the restored one", || server.get(&mark()).is_some());
    let held = data(&server.get(&mark()).unwrap())["root-cert.pem"].clone();
    assert_eq!(held, data(&server.get(&left).unwrap())["root-cert.pem"]);
    drop(waiting);

    let lose_the_root = || [secret(), mark()].iter().for_each(|gone| server.delete(gone));
    lose_the_root();
    let elsewhere = [&flags[..], &["--bundle-namespaces", "mesh=other"]].concat();
    drop(Ca::on(&server, &elsewhere)); // what namespaces of another mesh hold is no matter of this one
    lose_the_root();
    let new = [&flags[..], &["--bootstrap-new-root"]].concat();
    assert_ne!(Ca::on(&server, &new).bundle().roots()[0].der, first.roots()[0].der, "the operator said so");
}

#[test]
fn damaged_content_is_refused_with_its_reason_and_kept_when_a_new_root_is_made() {
    let server = server();
    let first = Ca::on(&server, &FLAGS).bundle();
    let intact = server.get(&secret()).unwrap();
    let key = data(&intact)["tls.key"].clone();
    let damages = [
        ("tls.key", json!(null), "tls.crt is there without tls.key"),
        ("tls.key", base64(&key[..key.len() - 40]), "tls.key: no private key in it"),
        ("tls.key", base64(&KeyPair::generate().unwrap().serialize_pem()), "does not belong to certificate"),
        ("tls.crt", base64("no certificate"), "tls.crt: no certificate in it"),
        ("ca.crt", json!(null), "ca.crt is not there"),
    ];
    let tried = damages.len();
    for (field, value, expected) in damages {
        let mut damaged = intact.clone();
        damaged["data"][field] = value;
        damaged["data"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
        server.put(&secret(), damaged);
        let error = refusal(&server, &[]);
        assert!(error.contains(expected) && error.contains("ringmail-system/ringmail-ca-root"), "{error}");
        let secret = key.lines().nth(1).unwrap();
        assert!(!error.contains(secret), "{error}");
    }
    let renewed = Ca::on(&server, &["--root-secret", "ringmail-ca-root", "--bootstrap-new-root"]).bundle();
    assert!(renewed.roots().iter().any(|root| root.der == first.roots()[0].der));
    assert_eq!(data(&server.get(&secret()).unwrap())["damaged-tls.key"], key);
    shown!("F4", "kinds of damage to the root's Secret that are refused by name, the key kept", tried, "all");
}

#[test]
fn a_start_without_api_server_waits_and_says_so() {
    let server = server();
    server.mood(Mood::Failing(503));
    let folder = folder();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = kube_command(folder.path(), &server.kubeconfig(folder.path()), &free.to_string());
    let _child = Killed(command.args(FLAGS).spawn().unwrap());
    let ready = |address: SocketAddr| page(address, "/healthz/ready").unwrap_or_default();
    eventually("not ready, and why", || {
        let page = ready(free);
        page.starts_with("HTTP/1.1 503")
            && page.contains("the bundle's configmap cannot be read: api server gives no answer: 503")
    });
    assert!(page(free, "/healthz/live").unwrap().starts_with("HTTP/1.1 200"));
    assert!(page(free, "/metrics").unwrap().contains("ringmail_ca_issued_total 0"));
    server.mood(Mood::Forbidding("secrets"));
    eventually("another reason", || ready(free).contains("is forbidden"));
    server.mood(Mood::Well);
    eventually("ready", || ready(free).starts_with("HTTP/1.1 200"));
}

fn mounted(name: &str) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    json!({ "data": {
        "ca-cert.pem": base64(&root.pem()),
        "ca-key.pem": base64(&root.key().serialize_pem()),
        "root-cert.pem": base64(&root.pem()),
    }})
}

#[tokio::test]
async fn the_secret_of_a_plugged_in_ca_is_waited_for_and_followed() {
    let server = server();
    let cacerts = key("secrets", "ringmail-system", "cacerts");
    let late = {
        let (server, cacerts) = (server.clone(), cacerts.clone());
        std::thread::spawn(move || {
            eventually("it is asked for", || {
                server.count("GET /api/v1/namespaces/ringmail-system/secrets/cacerts") > 1
            });
            server.put(&cacerts, mounted("first"));
        })
    };
    let ca = Ca::on(&server, &["--ca-secret", "cacerts"]);
    late.join().unwrap();
    let first = ca.bundle();
    verify(&first, &ca.leaf().await).unwrap();
    server.put(&cacerts, json!({ "data": { "ca-cert.pem": base64("") } }));
    ca.await_metric("ringmail_ca_reloads_total{result=\"refused\"}", 1.0);
    verify(&first, &ca.leaf().await).unwrap();
    server.put(&cacerts, mounted("second"));
    eventually("the second signs", || ca.bundle().roots()[0].der != first.roots()[0].der);
    verify(&ca.bundle(), &ca.leaf().await).unwrap();
    server.delete(&cacerts);
    ca.await_metric("ringmail_ca_reloads_total{result=\"refused\"}", 2.0);
    verify(&ca.bundle(), &ca.leaf().await).unwrap();
}
