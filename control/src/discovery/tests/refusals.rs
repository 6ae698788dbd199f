//! Whoever is not served: each connection and stream ends with its reason.

use tokio::io::AsyncWriteExt as _;

use super::*;

#[tokio::test]
async fn each_connection_that_is_refused_is_counted_for_its_reason() {
    let fixture = Fixture::with(|settings| {
        settings.deadlines.handshake = Duration::from_millis(300);
        settings.deadlines.idle = Duration::from_millis(300);
        settings.max_connections_per_source = 3;
    })
    .await;
    let mut noise = fixture.tcp().await;
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    fixture.until_ended("not_tls").await;
    let silent = fixture.tcp().await;
    fixture.until_ended("handshake_timeout").await;
    drop((silent, noise));
    let idle = fixture.raw().await;
    fixture.until_ended("idle").await;
    drop(idle);
    let held = [fixture.tcp().await, fixture.tcp().await, fixture.tcp().await, fixture.tcp().await];
    fixture.until_ended("limit_source").await;
    drop(held);
    fixture.until_ended("handshake_failed").await;
}

#[tokio::test]
async fn a_stream_keeps_its_connection_for_longer_than_an_idle_one_lives() {
    let fixture = Fixture::with(|settings| settings.deadlines.idle = Duration::from_millis(200)).await;
    fixture.put(pod("me", 1, "10.0.0.1"));
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.greet("me.a", &["/10.0.0.1"]).await;
    client.answer_of(Inbound::TYPE_URL).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.put(pod("me", 1, "10.0.0.9"));
    client.answer_of(Address::TYPE_URL).await;
    drop(client);
    fixture.until_ended("closed").await;
}
