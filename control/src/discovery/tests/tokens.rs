//! Tokens as the API server judges them: whose stream it is, and what a client learns where there is none.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use kube::client::Body;
use ringmail_ca::attest::token_review::DEADLINE;
use serde_json::{Value, json};

use super::{
    super::{DiscoveryConfig, attestors},
    *,
};

const TOKEN: &str = "header-part.claims-part.signature-part";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// What the API server does.
#[derive(Clone)]
enum Mood {
    /// It answers with the status of a review.
    Judging(Value),
    Failing(StatusCode),
    Silent,
}

/// An API server that judges tokens and does nothing else.
#[derive(Clone)]
struct Judge {
    mood: Arc<Mutex<Mood>>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Judge {
    fn new(mood: Mood) -> Self {
        Self { mood: Arc::new(Mutex::new(mood)), asked: Arc::default() }
    }

    async fn fixture(&self) -> Fixture {
        let judge = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| judge.clone().answer(request));
        let settings = DiscoveryConfig::default().settings("ringmail-system", "test").unwrap();
        Fixture::judged_by(attestors(kube::Client::new(service, "default"), &settings)).await
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
        assert_eq!(
            request.uri().path(),
            "/apis/authentication.k8s.io/v1/tokenreviews",
            "nothing else is asked"
        );
        let mut review: Value =
            serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
        self.asked.lock().unwrap().push(review["spec"].clone());
        let mood = self.mood.lock().unwrap().clone();
        let (code, body) = match mood {
            Mood::Judging(status) => {
                review["status"] = status;
                (StatusCode::CREATED, review)
            }
            Mood::Failing(code) => (
                code,
                json!({ "kind": "Status", "status": "Failure", "code": code.as_u16(), "message": "away" }),
            ),
            Mood::Silent => std::future::pending().await,
        };
        Ok(Response::builder().status(code).body(Full::new(Bytes::from(body.to_string()))).unwrap())
    }
}

/// The API server's word on a token of pod `me`.
fn sound() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["ringmail-ca"],
        "user": {
            "username": "system:serviceaccount:a:sa",
            "groups": ["system:serviceaccounts"],
            "extra": { POD_NAME: ["me"], POD_UID: ["a-me-1"] },
        },
    })
}

#[tokio::test]
async fn a_stream_is_the_pods_that_the_api_server_says_its_token_is_bound_to() {
    let judge = Judge::new(Mood::Judging(sound()));
    let fixture = judge.fixture().await;
    fixture.put(pod("me", 1, "10.0.0.1"));
    let mut client = Client::open(&fixture, TOKEN).await.unwrap();
    client.greet("me.a", &["/10.0.0.1"]).await;
    let inbound = client.answer_of(Inbound::TYPE_URL).await;
    let inbound = Inbound::from_any(inbound.resources[0].resource.as_ref().unwrap()).unwrap();
    assert_eq!((&*inbound.namespace, &*inbound.pod), ("a", "me"));
    let asked = judge.asked.lock().unwrap().clone();
    assert_eq!(asked, [json!({ "token": TOKEN, "audiences": ["ringmail-ca", "istio-ca"] })]);
}

#[tokio::test]
async fn a_token_that_the_api_server_does_not_vouch_for_opens_no_stream() {
    let judge = Judge::new(Mood::Failing(StatusCode::INTERNAL_SERVER_ERROR));
    let fixture = judge.fixture().await;
    for (path, value, said) in [
        ("/authenticated", json!(false), "api server does not accept the token: it gives no reason"),
        ("/audiences", json!(["https://kubernetes.default.svc"]), "token is for another audience"),
        ("/audiences", json!([]), "token is for another audience"),
        ("/user/groups", json!(["system:nodes"]), "system:serviceaccount:a:sa"),
        ("/user/username", json!("system:node:node1"), "system:node:node1"),
        ("/user/extra", json!({}), "token is not bound to a pod"),
        ("/user/extra", json!({ POD_NAME: ["a", "b"], POD_UID: ["c"] }), "token is not bound to a pod"),
        ("/user/extra", json!({ POD_NAME: ["a"], POD_UID: [""] }), "token is not bound to a pod"),
    ] {
        let mut status = sound();
        *status.pointer_mut(path).unwrap() = value;
        *judge.mood.lock().unwrap() = Mood::Judging(status);
        let refused = Client::open(&fixture, TOKEN).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated, "{path}: {refused}");
        assert!(refused.message().contains(said), "{path}: {refused}");
    }
    let text = fixture.metrics();
    assert!(text.contains(r#"ringmail_discovery_refused_streams_total{reason="token"} 8"#), "{text}");
}

#[tokio::test]
async fn an_api_server_that_is_away_is_no_word_on_the_token() {
    let judge = Judge::new(Mood::Failing(StatusCode::SERVICE_UNAVAILABLE));
    let fixture = judge.fixture().await;
    let refused = Client::open(&fixture, TOKEN).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(!refused.message().contains("claims-part"), "{refused}");
    *judge.mood.lock().unwrap() = Mood::Judging(sound());
    let began = Instant::now();
    while let Err(refused) = Client::open(&fixture, TOKEN).await {
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(began.elapsed() < Duration::from_secs(5), "{refused}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(fixture.metrics().contains(r#"ringmail_discovery_refused_streams_total{reason="token"} 0"#));
}

#[tokio::test]
async fn a_silent_api_server_costs_one_deadline_and_then_the_others_are_told_at_once() {
    let judge = Judge::new(Mood::Silent);
    let fixture = judge.fixture().await;
    let began = Instant::now();
    let refused = Client::open(&fixture, TOKEN).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!((DEADLINE..DEADLINE * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(Client::open(&fixture, TOKEN).await.err().unwrap().code(), Code::Unavailable);
    assert!(began.elapsed() < DEADLINE / 5, "{:?}", began.elapsed());
}
