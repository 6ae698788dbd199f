//! Tokens judged by the API server: what it says, what it does not say, and when it says nothing.

use std::time::{Duration, Instant};

use rcgen::KeyPair;
use ringmail_ca::messages::IstioCertificateResponse;
use ringmail_evidence::shown;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::support::fake_api_server::{FakeApiServer, Mood, key};
use crate::support::{
    Ca, IDENTITY, ask, assert_refused, certificates, connect_from, csr, eventually, request, verify,
};

const REVIEWED: &str = "header-of-ignite.claims-of-ignite.signature-of-ignite";

/// What the API server says of a sound token of pod `ignite-0`.
fn sound() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["ringmail-ca"],
        "user": {
            "username": "system:serviceaccount:ignite:node",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:ignite", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/pod-name": ["ignite-0"],
                "authentication.kubernetes.io/pod-uid": ["uid-of-ignite-0"],
                "authentication.kubernetes.io/node-name": ["node1"],
            },
        },
    })
}

fn pod(phase: &str) -> Value {
    json!({ "metadata": { "uid": "uid-of-ignite-0" }, "status": { "phase": phase } })
}

fn server() -> FakeApiServer {
    let server = FakeApiServer::start(&["ringmail-system", "ignite"]);
    server.review(REVIEWED, sound());
    server.put(&key("pods", "ignite", "ignite-0"), pod("Running"));
    server
}

fn start(server: &FakeApiServer) -> Ca {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let ca = Ca::on(server, &["--token-review", "--state-dir", state.to_str().unwrap()]);
    // The state folder is read at the start alone.
    drop(folder);
    eventually("ready", || ca.page("/healthz/ready").starts_with("HTTP/1.1 200"));
    ca
}

async fn asked(ca: &Ca, token: &str) -> Result<IstioCertificateResponse, Status> {
    let key = KeyPair::generate().unwrap();
    ask(ca.connect().await, Some(token), request(&csr(&key))).await
}

#[tokio::test]
async fn a_bound_token_gets_its_identity_and_the_audit_line_names_pod_and_node() {
    let server = server();
    let ca = start(&server);
    let answer = asked(&ca, REVIEWED).await.unwrap();
    assert_eq!(verify(&ca.bundle(), &certificates(&answer.cert_chain)[..1]).unwrap().as_str(), IDENTITY);
    let line = ca.audit();
    for (field, expected) in
        [("identity", IDENTITY), ("pod", "ignite-0"), ("pod_uid", "uid-of-ignite-0"), ("node", "node1")]
    {
        assert_eq!(line[field], expected, "{line}");
    }
}

#[tokio::test]
async fn what_the_api_server_does_not_vouch_for_is_refused_and_no_text_holds_the_token() {
    let server = server();
    let ca = start(&server);
    let with = |path: &str, value: Value| {
        let mut status = sound();
        *status.pointer_mut(path).unwrap() = value;
        status
    };
    let extra = "/user/extra/authentication.kubernetes.io~1pod-name";
    let cases = [
        (
            json!({ "authenticated": false, "error": format!("[invalid bearer token {REVIEWED}]") }),
            "token_rejected",
        ),
        (with("/audiences", json!(["https://kubernetes.default.svc"])), "token_audience"),
        (with("/user/username", json!("kubernetes-admin")), "token_subject"),
        (with("/user/extra", json!({})), "token_not_bound"),
        (with(extra, json!(["ignite-7"])), "pod_gone"),
    ];
    for (status, reason) in cases {
        server.review(REVIEWED, status);
        assert_refused(&ca, asked(&ca, REVIEWED).await, Code::Unauthenticated, reason);
    }
    server.review(REVIEWED, sound());
    let running = key("pods", "ignite", "ignite-0");
    for (state, reason) in [
        (pod("Succeeded"), "pod_ended"),
        (pod("Failed"), "pod_ended"),
        (
            json!({ "metadata": { "uid": "uid-of-a-later-pod" }, "status": { "phase": "Running" } }),
            "pod_gone",
        ),
    ] {
        server.put(&running, state);
        assert_refused(&ca, asked(&ca, REVIEWED).await, Code::Unauthenticated, reason);
    }
    server.put(&running, pod("Pending"));
    asked(&ca, REVIEWED).await.unwrap();
    assert_eq!(ca.audit()["outcome"], "issued");
    assert_refused(
        &ca,
        asked(&ca, "un.known.token-of-nobody").await,
        Code::Unauthenticated,
        "token_rejected",
    );
    for line in ca.lines_so_far() {
        let line = line.to_string();
        assert!(!line.contains("of-ignite.") && !line.contains("token-of-nobody"), "{line}");
    }
}

#[tokio::test]
async fn an_api_server_that_is_away_is_no_word_on_a_token_and_its_return_needs_no_request() {
    let server = server();
    let ca = start(&server);
    for (mood, reason, said) in [
        (Mood::Failing(503), "api_server_away", "api server gives no answer: 503"),
        (Mood::Failing(429), "api_server_away", "api server gives no answer: 429"),
        (Mood::Forbidding("tokenreviews"), "api_server_refused", "tokenreviews is forbidden"),
        (Mood::Forbidding("pods"), "api_server_refused", "pods/ignite-0 is forbidden"),
    ] {
        server.mood(mood);
        assert_refused(&ca, asked(&ca, REVIEWED).await, Code::Unavailable, reason);
        let page = ca.page("/healthz/ready");
        assert!(page.starts_with("HTTP/1.1 503") && page.contains(said), "{page}");
        server.mood(Mood::Well);
        eventually("ready again", || ca.page("/healthz/ready").starts_with("HTTP/1.1 200"));
        asked(&ca, REVIEWED).await.unwrap();
        assert_eq!(ca.audit()["outcome"], "issued");
    }
}

/// No claim of a token says at which address its pod is. What holds is that it is the pod's, that the pod runs, and that
/// the certificate is the owner's alone, for a key that only the caller has; the line names both.
#[tokio::test]
async fn a_token_that_another_pod_replays_gets_its_owners_identity_and_leaves_a_trace() {
    let server = server();
    let ca = start(&server);
    let thief = connect_from([127, 0, 0, 2].into(), ca.address, &ca.bundle(), "localhost").await.unwrap();
    let answer =
        ask(thief.clone(), Some(REVIEWED), request(&csr(&KeyPair::generate().unwrap()))).await.unwrap();
    assert_eq!(verify(&ca.bundle(), &certificates(&answer.cert_chain)[..1]).unwrap().as_str(), IDENTITY);
    let line = ca.audit();
    assert_eq!(
        (line["pod"].as_str(), line["identity"].as_str()),
        (Some("ignite-0"), Some(IDENTITY)),
        "{line}"
    );
    assert!(line["caller"].as_str().unwrap().starts_with("127.0.0.2:"), "{line}");
    // Once the pod is gone, or its service account is, the token is worth nothing to anybody.
    let gone = json!({ "authenticated": false, "error": "serviceaccounts \"node\" not found" });
    server.review(REVIEWED, gone);
    let answer = ask(thief.clone(), Some(REVIEWED), request(&csr(&KeyPair::generate().unwrap()))).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(ca.audit()["reason"], "token_rejected");
    server.review(REVIEWED, sound());
    server.delete(&key("pods", "ignite", "ignite-0"));
    // A pod of that name and uid in another namespace is another one.
    server.put(&key("pods", "elsewhere", "ignite-0"), pod("Running"));
    let answer = ask(thief, Some(REVIEWED), request(&csr(&KeyPair::generate().unwrap()))).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(ca.audit()["reason"], "pod_gone");
    shown!(
        "A17",
        "a token replayed from another address",
        "the owner's identity alone, with pod and caller in the line",
        "exactly"
    );
}

/// Whoever sends a token that the API server stumbles over must not keep others from their certificates.
#[tokio::test]
async fn a_question_that_the_api_server_finds_fault_with_is_a_refusal_of_that_token_alone() {
    const STUMBLED_OVER: &str = "header-of-evil.claims-of-evil.signature-of-evil";
    let server = server();
    let ca = start(&server);
    let mut refused = 0;
    for code in [400, 413, 422, 431] {
        server.refuse_review(STUMBLED_OVER, code);
        for _ in 0..5 {
            let answer = asked(&ca, STUMBLED_OVER).await;
            let said = answer.as_ref().unwrap_err().message().to_owned();
            assert!(said.contains("cannot make anything of <token>") && !said.contains("evil"), "{said}");
            assert_refused(&ca, answer, Code::Unauthenticated, "token_rejected");
            asked(&ca, REVIEWED).await.unwrap();
            assert_eq!(ca.audit()["outcome"], "issued");
            refused += 1;
        }
        assert!(ca.page("/healthz/ready").starts_with("HTTP/1.1 200"));
    }
    shown!(
        "A17",
        "certificates to others between questions that the API server refused",
        refused,
        "20 of 20"
    );
    // One that finds fault with every question is away, and says so without being asked.
    for token in [STUMBLED_OVER, REVIEWED, "not.a.token"] {
        server.refuse_review(token, 422);
    }
    server.mood(Mood::Failing(500));
    eventually("not ready", || ca.page("/healthz/ready").starts_with("HTTP/1.1 503"));
    server.mood(Mood::Well);
    std::thread::sleep(Duration::from_secs(2));
    assert!(ca.page("/healthz/ready").starts_with("HTTP/1.1 503"));
}

#[test]
fn a_ca_that_nobody_asks_still_says_that_the_api_server_is_away() {
    let server = server();
    let ca = start(&server);
    server.mood(Mood::Failing(500));
    eventually("not ready", || ca.page("/healthz/ready").starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn a_silent_api_server_costs_one_deadline_and_then_everybody_is_told_at_once() {
    let server = server();
    let ca = start(&server);
    server.mood(Mood::Silent);
    let began = Instant::now();
    assert_refused(&ca, asked(&ca, REVIEWED).await, Code::Unavailable, "api_server_away");
    assert!((4..9).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let began = Instant::now();
    // The pause after a failure is longer than a call, but a probe may be under way between the two.
    let mut at_once = 0;
    for _ in 0..5 {
        let call = Instant::now();
        assert_refused(&ca, asked(&ca, REVIEWED).await, Code::Unavailable, "api_server_away");
        at_once += u32::from(call.elapsed() < Duration::from_secs(1));
    }
    assert!(at_once >= 3, "{at_once} of 5 within a second each, {:?} for all", began.elapsed());
}

/// A thousand proxies that wait at once, and an API server that takes its time for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reviews_do_not_queue_behind_each_other() {
    const PROXIES: usize = 1000;
    let server = server();
    server.reviews_take(Duration::from_millis(50));
    let ca = start(&server);
    let csr = csr(&KeyPair::generate().unwrap());
    let mut channels = Vec::new();
    for _ in 0..40 {
        channels.push(ca.connect().await);
    }
    let began = Instant::now();
    let mut proxies = tokio::task::JoinSet::new();
    for proxy in 0..PROXIES {
        let (channel, csr) = (channels[proxy % channels.len()].clone(), csr.clone());
        proxies.spawn(async move { ask(channel, Some(REVIEWED), request(&csr)).await.unwrap() });
    }
    while let Some(proxy) = proxies.join_next().await {
        proxy.unwrap();
    }
    let rate = PROXIES as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} certificates per second with 50 ms for each review");
    assert!(rate >= 200.0, "{rate:.0} certificates per second: expected at least 200");
}
