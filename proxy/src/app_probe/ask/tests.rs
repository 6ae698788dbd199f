use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::app_probe::Probes;

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server that answers each connection with these bytes, and the request that it got first.
async fn application(answer: &'static [u8]) -> (u16, tokio::sync::oneshot::Receiver<String>) {
    let listener = TcpListener::bind((OWN, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, heard) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        let _ = tell.send(String::from_utf8_lossy(&request[..read]).into_owned());
        stream.write_all(answer).await.unwrap();
        // Held open: a probe must not wait for the end of what it does not read.
        std::future::pending::<()>().await;
    });
    (port, heard)
}

fn probe(json: &str) -> Probe {
    let path = "/app-health/a/livez";
    Probes::parse(&format!("{{\"{path}\": {json}}}")).unwrap().get(path).unwrap().clone()
}

async fn asked(json: &str) -> Verdict {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, "kube-probe/1.34".parse().unwrap());
    ask(&probe(json), OWN, &headers).await
}

#[tokio::test]
async fn the_status_of_the_application_goes_to_the_kubelet_as_it_is() {
    for (answer, status) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], 200),
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", 503),
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", 302),
    ] {
        let (port, heard) = application(answer).await;
        let verdict = asked(&format!(
            r#"{{"httpGet": {{"path": "/x?y=1", "port": {port}, "httpHeaders": [{{"name": "Host", "value": "grid"}}]}}}}"#
        ))
        .await;
        assert_eq!(verdict.status.as_u16(), status);
        let heard = heard.await.unwrap().to_ascii_lowercase();
        assert!(heard.starts_with("get /x?y=1 http/1.1\r\n"), "{heard}");
        assert!(heard.contains("host: grid\r\n") && !heard.contains("127.0.0.1"), "{heard}");
        assert!(heard.contains("user-agent: kube-probe/1.34\r\n"), "{heard}");
    }
}

#[tokio::test]
async fn an_application_that_is_silent_or_away_is_told_apart_within_the_probes_own_time() {
    let silent = TcpListener::bind((OWN, 0)).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let get = format!(r#"{{"httpGet": {{"port": {port}}}, "timeoutSeconds": 1}}"#);
    let verdict = asked(&get).await;
    assert_eq!(verdict.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(verdict.text, "the application did not answer: no answer within 1s\n");
    let tcp = format!(r#"{{"tcpSocket": {{"port": {port}}}}}"#);
    assert_eq!(asked(&tcp).await.status, StatusCode::OK);
    drop(silent);
    for probe in [get, tcp, format!(r#"{{"grpc": {{"port": {port}}}}}"#)] {
        let verdict = asked(&probe).await;
        assert_eq!(verdict.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(verdict.text.contains("no connection"), "{}", verdict.text);
    }
}

#[tokio::test]
async fn an_application_that_ends_without_a_word_has_not_answered() {
    let listener = TcpListener::bind((OWN, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let verdict = asked(&format!(r#"{{"httpGet": {{"port": {port}}}}}"#)).await;
    assert_eq!(verdict.status, StatusCode::SERVICE_UNAVAILABLE, "{}", verdict.text);
}

#[tokio::test]
async fn grpc_health_is_asked_by_its_protocol() {
    for (status, expected) in [(SERVING, StatusCode::OK), (2, StatusCode::SERVICE_UNAVAILABLE)] {
        let listener = TcpListener::bind((OWN, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), HEALTH_CHECK);
                    let answer =
                        tower::service_fn(move |request: tonic::Request<HealthCheckRequest>| async move {
                            assert_eq!(request.get_ref().service, "grid");
                            Ok::<_, tonic::Status>(tonic::Response::new(HealthCheckResponse { status }))
                        });
                    let codec = tonic_prost::ProstCodec::<HealthCheckResponse, HealthCheckRequest>::default();
                    let mut grpc = tonic::server::Grpc::new(codec);
                    Ok::<_, std::convert::Infallible>(
                        grpc.unary(answer, request.map(tonic::body::Body::new)).await,
                    )
                });
            let _ = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        let verdict = asked(&format!(r#"{{"grpc": {{"port": {port}, "service": "grid"}}}}"#)).await;
        assert_eq!(verdict.status, expected, "{}", verdict.text);
    }
}
