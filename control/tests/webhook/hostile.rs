use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use ringmail_evidence::shown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::caller::{self, Caller, NAME, TLS13, post, review};
use super::*;

/// A list in a list, and so on.
fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[tokio::test]
async fn what_is_no_review_is_an_http_error_and_the_next_review_is_answered() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let good = review("ignite", &pod(), true);
    let with = |path: &str, value: Value| {
        let mut review = good.clone();
        *review.pointer_mut(path).unwrap() = value;
        review.to_string()
    };
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"null".to_vec(),
        b"{}".to_vec(),
        b"[]".to_vec(),
        b"\xff\xfe".to_vec(),
        nested(100_000).into_bytes(),
        with("/apiVersion", json!("admission.k8s.io/v1beta1")).into_bytes(),
        with("/kind", json!("Pod")).into_bytes(),
        with("/request", Value::Null).into_bytes(),
        with("/request/uid", json!("")).into_bytes(),
        with("/request/uid", json!(7)).into_bytes(),
        with("/request/namespace", json!({})).into_bytes(),
        with("/request/dryRun", json!("yes")).into_bytes(),
        good.to_string().into_bytes()[..200].to_vec(),
    ];
    let mut caller = Caller::new(webhook.address, &bundle).await;
    let tried = bodies.len();
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (status, text) = caller.post(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{shown}: {text}");
        assert_eq!(caller.review(&good).await["allowed"], true, "after {shown}");
    }
    assert_eq!(webhook.metric("ringmail_injector_rejected_total{reason=\"not_a_review\"}"), tried as f64);
    shown!(
        "A18",
        "what is no review: an error over HTTP, counted, and the next review is answered",
        format!("{tried} of {tried}"),
        "exactly"
    );
}

#[tokio::test]
async fn pods_of_any_shape_are_refused_and_never_a_crash() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let mut caller = Caller::new(webhook.address, &bundle).await;
    let wide: Vec<Value> = (0..500_000).map(|_| json!([])).collect();
    let pods = [
        json!(7),
        json!("pod"),
        json!([]),
        json!({}),
        json!({"metadata": 7}),
        json!({"spec": []}),
        json!({"spec": {"containers": [7]}}),
        json!({"spec": {"containers": [{"name": {}}]}}),
        json!({"spec": {"containers": [{"name": "a", "env": 7}]}}),
        json!({"spec": {"containers": [{"name": "a"}], "more": wide}}),
        json!({"spec": {"containers": [{"name": "x".repeat(2_000_000)}]}}),
    ];
    for pod in &pods {
        let shown = pod.to_string().chars().take(80).collect::<String>();
        let response = caller.review(&review("ignite", pod, false)).await;
        assert_eq!(
            (&response["allowed"], &response["status"]["code"]),
            (&json!(false), &json!(403)),
            "{shown}"
        );
    }
    shown!("A18", "pods of no shape that are refused", format!("{0} of {0}", pods.len()), "exactly");
}

#[tokio::test]
async fn wrong_requests_are_told_so() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let request = |method: &str, path: &str, kind: &str| {
        let body = Full::new(Bytes::from_static(b"{}"));
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", NAME)
            .header("content-type", kind)
            .body(body)
            .unwrap()
    };
    for (request, expected) in [
        (request("GET", "/inject", "application/json"), StatusCode::METHOD_NOT_ALLOWED),
        (request("POST", "/", "application/json"), StatusCode::NOT_FOUND),
        (request("POST", "/inject/..", "application/json"), StatusCode::NOT_FOUND),
        (request("POST", "/inject", "text/yaml"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (request("POST", "/inject", ""), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (post(vec![b' '; 4 * 1024 * 1024]), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let shown = format!("{} {}", request.method(), request.uri());
        let (status, text) = Caller::new(webhook.address, &bundle).await.send(request).await;
        assert_eq!(status, expected, "{shown}: {text}");
    }
}

/// What the webhook says to raw bytes, until it closes or has been silent for a while.
async fn raw(address: SocketAddr, bundle: &str, parts: &[&[u8]]) -> String {
    let mut stream = caller::connect(address, bundle, TLS13, "http/1.1").await.unwrap();
    for part in parts {
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read @ 1..)) = timeout(Duration::from_secs(8), stream.read(&mut buffer)).await {
        said.extend_from_slice(&buffer[..read]);
        if said.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn bodies_without_an_end_or_a_length_are_cut_off() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let head = b"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let slow = raw(webhook.address, &bundle, &[head, b"content-length: 100\r\n\r\n{"]).await;
    assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    let mut parts: Vec<&[u8]> = vec![head, b"transfer-encoding: chunked\r\n\r\n"];
    parts.extend(std::iter::repeat_n(chunk.as_slice(), 60));
    let endless = raw(webhook.address, &bundle, &parts).await;
    assert!(endless.starts_with("HTTP/1.1 413"), "{endless}");
    assert_eq!(webhook.metric("ringmail_injector_rejected_total{reason=\"body_too_slow\"}"), 1.0);
    assert_eq!(webhook.metric("ringmail_injector_rejected_total{reason=\"body_too_large\"}"), 1.0);
}

#[tokio::test]
async fn bodies_that_do_not_come_do_not_keep_others_from_their_answer() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let head =
        b"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = caller::connect(webhook.address, &bundle, TLS13, "http/1.1").await.unwrap();
        stream.write_all(head).await.unwrap();
        silent.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = std::time::Instant::now();
    let response = Caller::new(webhook.address, &bundle).await.review(&review("ignite", &pod(), true)).await;
    assert_eq!(response["allowed"], true);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn one_source_with_all_its_connections_keeps_no_other_from_its_answer() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let mut caller = Caller::new(webhook.address, &bundle).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(tokio::net::TcpStream::connect(webhook.address).await.unwrap());
    }
    assert_eq!(caller.review(&review("ignite", &pod(), true)).await["allowed"], true);
    let rejected = webhook.metric("ringmail_injector_connections_closed_total{reason=\"limit_source\"}");
    assert_eq!(rejected, 237.0, "64 of 301 are held");
    let mut other = Caller::from("127.0.0.2", webhook.address, &bundle).await;
    assert_eq!(other.review(&review("ignite", &pod(), true)).await["allowed"], true);
}

#[tokio::test]
async fn more_connections_than_any_cluster_has_are_closed_and_those_there_go_on() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let mut caller = Caller::new(webhook.address, &bundle).await;
    let mut idle = Vec::new();
    for place in 0..300 {
        idle.push(caller::dial(&format!("127.0.1.{}", place / 60), webhook.address).await);
    }
    assert_eq!(caller.review(&review("ignite", &pod(), true)).await["allowed"], true);
    let rejected = webhook.metric("ringmail_injector_connections_closed_total{reason=\"limit_total\"}");
    assert_eq!(rejected, 45.0, "256 of 301 are held");
}

#[tokio::test]
async fn bytes_that_are_no_tls_are_counted_and_forgotten() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    webhook.ready(&api).await;
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0x16, 3, 1, 0xff, 0xff, 0], &[0; 600]] {
        let mut stream = tokio::net::TcpStream::connect(webhook.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.unwrap();
    }
    let ended = |end: &str| {
        webhook.metric(&format!("ringmail_injector_connections_closed_total{{reason=\"{end}\"}}"))
    };
    assert_eq!((ended("not_tls"), ended("handshake_failed")), (3.0, 0.0));
}
