//! What a thousand proxies cost, in memory and in time.

use std::time::Instant;

use super::*;

/// Bytes in use, as the system counts them.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Both ends are in this process: the server's own share is below what is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test -p ringmail-control -- --ignored --nocapture thousand"]
async fn a_thousand_proxies_that_know_a_hundred_peers_each() {
    const PROXIES: usize = 1000;
    const PEERS: usize = 100;
    let fixture = Fixture::start().await;
    let ip = |place: usize| format!("10.1.{}.{}", place / 250, place % 250);
    for place in 0..PROXIES {
        fixture.put(objects::pod("a", &format!("p{place}"), 1, &[&ip(place)]));
    }
    let before = resident();
    let mut clients = Vec::new();
    for place in 0..PROXIES {
        let mut client = Client::open(&fixture, &format!("a/sa/p{place}/a-p{place}-1")).await.unwrap();
        let asked: Vec<String> =
            (0..PEERS).map(|peer| format!("/{}", ip((place + peer) % PROXIES))).collect();
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        client.greet(&format!("p{place}.a"), &asked).await;
        client.answer_of(Inbound::TYPE_URL).await;
        clients.push(client);
    }
    println!(
        "{PROXIES} proxies, {PEERS} peers each: {} KB for both ends of each",
        (resident() - before) / PROXIES / 1024
    );
    let mut took = Vec::new();
    for (place, client) in clients.iter_mut().enumerate().take(200) {
        let mut json = objects::pod_json("a", &format!("p{place}"), 1, &[&ip(place)]);
        json["metadata"]["labels"]["version"] = json!("2");
        let began = Instant::now();
        fixture.put(objects::pod_of(&json));
        client.answer_of(Address::TYPE_URL).await;
        took.push(began.elapsed());
    }
    took.sort();
    println!("a change that concerns {PEERS} of them: median {:?}, p99 {:?}", took[100], took[198]);
}
