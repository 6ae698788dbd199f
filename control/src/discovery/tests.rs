//! The server over TLS, as a proxy talks to it.

mod client;
mod flooded;
#[path = "../../../ca/tests/wire/support/floods.rs"]
mod floods;
mod memory;
mod refusals;
mod tokens;

use std::time::Duration;

use ringmail_policy::Kind;
use ringmail_xds::{
    Resource,
    discovery::{DeltaDiscoveryRequest, Status as Refusal},
    ringmail::{Destination, Inbound},
    security::Authorization,
    workload::Address,
};
use serde_json::json;
use tonic::Code;

use super::feed::{self, Change};
use super::world::{ObjectKey, Update, tests::objects};
use client::{Client, Fixture, held, names, node};

impl Fixture {
    fn put(&self, update: Update) {
        feed::apply(&self.discovery, vec![Change::Update(Box::new(update), std::time::Instant::now())]);
    }
}

fn pod(name: &str, age: u8, address: &str) -> Update {
    objects::pod("a", name, age, &[address])
}

#[tokio::test]
async fn a_proxy_learns_what_it_asks_for_and_every_change_of_it() {
    let fixture = Fixture::start().await;
    fixture.put(pod("me", 1, "10.0.0.1"));
    fixture.put(pod("peer", 1, "10.0.0.2"));
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.greet("me.a", &["/10.0.0.1", "/10.0.0.2"]).await;
    let answer = client.answer_of(Address::TYPE_URL).await;
    assert_eq!(names(&answer), ["Kubernetes//Pod/a/me", "Kubernetes//Pod/a/peer"]);
    assert_eq!(names(&client.answer_of(Destination::TYPE_URL).await), ["/10.0.0.1", "/10.0.0.2"]);
    assert!(names(&client.answer_of(Authorization::TYPE_URL).await).is_empty());
    assert_eq!(names(&client.answer_of(Inbound::TYPE_URL).await), ["inbound"]);
    // Another's change is nobody's business here.
    fixture.put(pod("other", 1, "10.0.0.3"));
    fixture.put(Update::Pod(ObjectKey::new("a", "peer"), None));
    let answer = client.answer().await.unwrap();
    assert_eq!(
        (&*answer.type_url, &answer.removed_resources[..]),
        (Address::TYPE_URL, &["/10.0.0.2".to_owned(), "Kubernetes//Pod/a/peer".to_owned()][..])
    );
    assert_eq!(client.answer().await.unwrap().type_url, Destination::TYPE_URL);
    fixture.put(pod("later", 2, "10.0.0.2"));
    assert_eq!(names(&client.answer().await.unwrap()), ["Kubernetes//Pod/a/later"]);
}

#[tokio::test]
async fn policies_come_before_the_list_that_names_them() {
    let fixture = Fixture::start().await;
    fixture.put(pod("me", 1, "10.0.0.1"));
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.greet("me.a", &["/10.0.0.1"]).await;
    client.answer_of(Inbound::TYPE_URL).await;
    fixture.put(objects::policy(Kind::AuthorizationPolicy, "b", "other", 1, json!({ "rules": [{}] })));
    fixture.put(objects::policy(Kind::AuthorizationPolicy, "a", "own", 1, json!({ "rules": [{}] })));
    let answer = client.answer().await.unwrap();
    assert_eq!((&*answer.type_url, names(&answer)), (Authorization::TYPE_URL, vec!["a/own".to_owned()]));
    let list = client.answer().await.unwrap();
    let inbound = Inbound::from_any(list.resources[0].resource.as_ref().unwrap()).unwrap();
    assert_eq!(inbound.authorizations[0].version, answer.resources[0].version);
}

#[tokio::test]
async fn a_pod_that_is_not_known_yet_is_told_of_itself_as_soon_as_it_is() {
    let fixture = Fixture::start().await;
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.greet("me.a", &["/10.0.0.1"]).await;
    assert_eq!(client.answer_of(Address::TYPE_URL).await.removed_resources, ["/10.0.0.1"]);
    fixture.put(pod("me", 1, "10.0.0.1"));
    assert_eq!(names(&client.answer_of(Inbound::TYPE_URL).await), ["inbound"]);
}

#[tokio::test]
async fn a_stream_is_its_tokens_pods_whatever_it_says() {
    let fixture = Fixture::start().await;
    fixture.put(pod("me", 1, "10.0.0.1"));
    for token in ["", "nonsense"] {
        assert_eq!(
            Client::open(&fixture, token).await.err().unwrap().code(),
            Code::Unauthenticated,
            "{token}"
        );
    }
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.greet("victim.a", &["/10.0.0.1"]).await;
    let status = client.end().await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.message(), "node says that it is pod \"victim.a\": the token is bound to \"me.a\"");
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.ask(Inbound::TYPE_URL, &["a/victim"]).await;
    assert_eq!(client.end().await.code(), Code::PermissionDenied);
    // A later pod of the name is another one.
    let mut client = Client::open(&fixture, "a/sa/me/a-me-2").await.unwrap();
    client.greet("me.a", &["/10.0.0.1"]).await;
    client.answer_of(Destination::TYPE_URL).await;
    client.silent().await;
}

#[tokio::test]
async fn before_the_cluster_is_known_nobody_is_served_and_the_reason_is_said() {
    let fixture = Fixture::start().await;
    fixture.discovery.sync.expect("pods");
    fixture.discovery.sync.fault("pods", Some("forbidden".to_owned()));
    let status = Client::open(&fixture, "a/sa/me/a-me-1").await.err().unwrap();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the cluster is not known yet: pods (forbidden)")
    );
    feed::apply(&fixture.discovery, vec![Change::Listed("pods")]);
    assert!(Client::open(&fixture, "a/sa/me/a-me-1").await.is_ok());
}

#[tokio::test]
async fn a_proxy_that_comes_back_is_sent_what_it_does_not_hold() {
    let fixture = Fixture::start().await;
    for (name, address) in [("me", "10.0.0.1"), ("peer", "10.0.0.2"), ("gone", "10.0.0.3")] {
        fixture.put(pod(name, 1, address));
    }
    let asked = ["/10.0.0.1", "/10.0.0.2", "/10.0.0.3"];
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.greet("me.a", &asked).await;
    let addresses = held(&client.answer_of(Address::TYPE_URL).await);
    let destinations = held(&client.answer_of(Destination::TYPE_URL).await);
    let inbound = held(&client.answer_of(Inbound::TYPE_URL).await);
    drop(client);
    fixture.put(Update::Pod(ObjectKey::new("a", "gone"), None));
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.resume(Address::TYPE_URL, &asked, addresses).await;
    client.resume(Destination::TYPE_URL, &asked, destinations).await;
    client.resume(Inbound::TYPE_URL, &["inbound"], inbound).await;
    let answer = client.answer().await.unwrap();
    assert!(answer.resources.is_empty());
    assert_eq!(answer.removed_resources, ["/10.0.0.3", "Kubernetes//Pod/a/gone"]);
    let answer = client.answer().await.unwrap();
    assert_eq!((names(&answer), answer.removed_resources), (vec![], vec!["/10.0.0.3".to_owned()]));
    client.silent().await;
}

#[tokio::test]
async fn a_refusal_is_counted_and_the_stream_goes_on() {
    let fixture = Fixture::start().await;
    fixture.put(pod("me", 1, "10.0.0.1"));
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.greet("me.a", &["/10.0.0.1"]).await;
    let answer = client.answer_of(Address::TYPE_URL).await;
    client.answer_of(Inbound::TYPE_URL).await;
    client
        .say(DeltaDiscoveryRequest {
            type_url: Address::TYPE_URL.to_owned(),
            response_nonce: answer.nonce,
            error_detail: Some(Refusal { code: 3, message: "no\nsuch field".to_owned() }),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    client.silent().await;
    fixture.put(pod("me", 1, "10.0.0.9"));
    client.answer_of(Address::TYPE_URL).await;
    assert!(fixture.metrics().contains("ringmail_discovery_nacks_total{type=\"address\"} 1"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_and_the_others_are_served() {
    let fixture = Fixture::start().await;
    fixture.put(pod("me", 1, "10.0.0.1"));
    let asked: Vec<String> =
        (0..4000).map(|place| format!("/10.7.{}.{}", place / 250, place % 250)).collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let slow = Client::open(&fixture, "a/sa/slow/a-slow-1").await.unwrap();
    slow.greet("slow.a", &asked).await;
    // More than any window or buffer holds.
    for round in 0..8 {
        let change = |(place, name): (usize, &&str)| {
            let mut json = objects::pod_json("a", &format!("p{place}"), 1, &[&name[1..]]);
            json["metadata"]["labels"]["version"] = json!(format!("{round}{}", "x".repeat(50)));
            Change::Update(Box::new(objects::pod_of(&json)), std::time::Instant::now())
        };
        feed::apply(&fixture.discovery, asked.iter().enumerate().map(change).collect());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.greet("me.a", &["/10.0.0.1"]).await;
    client.answer_of(Inbound::TYPE_URL).await;
    for _ in 0..100 {
        if fixture.discovery.hub.streams() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(fixture.discovery.hub.streams(), 1);
    assert!(fixture.metrics().contains("ringmail_discovery_slow_readers_total 1"));
    fixture.put(pod("me", 1, "10.0.0.9"));
    client.answer_of(Address::TYPE_URL).await;
}

#[tokio::test]
async fn the_third_stream_of_a_pod_ends_the_first() {
    let fixture = Fixture::start().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap());
    }
    assert_eq!(clients[0].end().await.code(), Code::Aborted);
    clients[2].greet("me.a", &["/10.0.0.1"]).await;
    clients[2].answer_of(Address::TYPE_URL).await;
    assert_eq!(fixture.discovery.hub.streams(), 2);
    drop(clients);
    for _ in 0..100 {
        if fixture.discovery.hub.streams() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("streams of clients that have gone stay");
}

#[tokio::test]
async fn more_names_than_a_proxy_ever_asks_for_end_the_stream() {
    let fixture = Fixture::start().await;
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    let names: Vec<String> =
        (0..9000).map(|place| format!("/10.7.{}.{}", place / 250, place % 250)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    client.ask(Address::TYPE_URL, &names).await;
    assert_eq!(client.end().await.code(), Code::ResourceExhausted);
}

/// A later proxy may know more types.
#[tokio::test]
async fn a_type_that_is_not_known_is_passed_over_and_the_stream_lives_on() {
    let fixture = Fixture::start().await;
    fixture.put(pod("me", 1, "10.0.0.1"));
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client
        .say(DeltaDiscoveryRequest { node: Some(node("me.a")), type_url: "x".into(), ..Default::default() })
        .await;
    client.ask("type.googleapis.com/later.Type", &["/10.0.0.1", "a"]).await;
    client.silent().await;
    client.greet("me.a", &["/10.0.0.1"]).await;
    assert_eq!(names(&client.answer_of(Inbound::TYPE_URL).await), ["inbound"]);
    fixture.put(pod("me", 1, "10.0.0.9"));
    client.answer_of(Address::TYPE_URL).await;
}
