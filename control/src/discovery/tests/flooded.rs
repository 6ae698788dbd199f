//! Floods of HTTP/2: each connection ends with its reason, and streams go on.

use std::{sync::Arc, time::Instant};

use ringmail_evidence::shown;
use tokio::task::JoinSet;

use super::{floods::floods, *};

/// Connections that pour at once.
const AT_ONCE: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_frames_ends_with_its_reason_while_streams_go_on() {
    let fixture = Fixture::with(|settings| {
        settings.deadlines.idle = Duration::from_secs(1);
        settings.deadlines.grace = Duration::from_millis(200);
    })
    .await;
    fixture.put(pod("me", 1, "10.0.0.1"));
    let mut client = Client::open(&fixture, "a/sa/me/a-me-1").await.unwrap();
    client.greet("me.a", &["/10.0.0.1"]).await;
    client.answer_of(Inbound::TYPE_URL).await;
    let mut slowest = Duration::ZERO;
    for (round, flood) in floods().into_iter().map(Arc::new).enumerate() {
        let before = fixture.ended(flood.end);
        let mut poured = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (flood, stream) = (Arc::clone(&flood), fixture.raw().await);
            poured.spawn(async move { flood.pour(stream).await });
        }
        for change in 0..20 {
            let began = Instant::now();
            fixture.put(pod("me", 1, &format!("10.1.{round}.{change}")));
            client.answer_of(Address::TYPE_URL).await;
            fixture.put(pod("me", 1, "10.0.0.1"));
            client.answer_of(Address::TYPE_URL).await;
            slowest = slowest.max(began.elapsed());
        }
        while poured.join_next().await.is_some() {}
        let until = Instant::now() + Duration::from_secs(20);
        while fixture.ended(flood.end) - before < AT_ONCE {
            assert!(Instant::now() < until, "{}: not ended for {}", flood.name, flood.end);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    shown!("A22", "kinds of flood that control ends with their reason", floods().len(), "all");
    shown!(
        "A22",
        "slowest change to reach a proxy meanwhile, in ms",
        slowest.as_millis(),
        "< 5,000, none lost"
    );
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}
