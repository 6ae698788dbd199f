use std::sync::Arc;
use std::time::Instant;

use ringmail_evidence::shown;
use tokio::task::JoinSet;

use super::caller::{self, Caller, TLS13, review};
use super::floods::floods;
use super::*;

/// Connections that pour at once.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_frames_ends_with_its_reason_while_reviews_are_answered() {
    let api = Api::new();
    let mut webhook = Running::start_with(&api, |settings| {
        settings.deadlines.idle = Duration::from_secs(1);
        settings.deadlines.grace = Duration::from_millis(200);
    })
    .await;
    let bundle = webhook.ready(&api).await;
    let mut slowest = Duration::ZERO;
    for flood in floods().into_iter().map(Arc::new) {
        let series = format!("ringmail_injector_connections_closed_total{{reason=\"{}\"}}", flood.end);
        let before = webhook.metric(&series);
        let mut poured = JoinSet::new();
        for _ in 0..AT_ONCE {
            let stream = caller::connect(webhook.address, &bundle, TLS13, "h2").await.unwrap();
            let flood = Arc::clone(&flood);
            poured.spawn(async move { flood.pour(stream).await });
        }
        for _ in 0..20 {
            let began = Instant::now();
            let mut caller = Caller::new(webhook.address, &bundle).await;
            assert_eq!(
                caller.review(&review("ignite", &pod(), true)).await["allowed"],
                true,
                "{}",
                flood.name
            );
            slowest = slowest.max(began.elapsed());
        }
        while poured.join_next().await.is_some() {}
        let until = Instant::now() + PATIENCE;
        while webhook.metric(&series) - before < AT_ONCE as f64 {
            assert!(Instant::now() < until, "{}: not ended for {}", flood.name, flood.end);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    shown!("A22", "kinds of flood that the webhook ends with their reason", floods().len(), "all");
    shown!("A22", "slowest review meanwhile, in ms", slowest.as_millis(), "< 5,000, none failed");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}
