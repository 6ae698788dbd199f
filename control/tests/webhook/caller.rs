//! A caller as the API server is one: it verifies the webhook by its roots and its Service's name.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const NAME: &str = "ringmail-control.ringmail-system.svc";
pub(crate) const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;
pub(crate) const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;

pub(crate) async fn connect(
    address: SocketAddr,
    bundle: &str,
    version: &'static SupportedProtocolVersion,
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    secure(TcpStream::connect(address).await?, bundle, version, alpn).await
}

/// A connection from one of this machine's loopback addresses.
pub(crate) async fn dial(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(address).await.unwrap()
}

async fn secure(
    stream: TcpStream,
    bundle: &str,
    version: &'static SupportedProtocolVersion,
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME).unwrap(), stream).await
}

/// One connection of HTTP/1.1, used for one request after the other.
pub(crate) struct Caller(http1::SendRequest<Full<Bytes>>);

impl Caller {
    pub(crate) async fn new(address: SocketAddr, bundle: &str) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), bundle).await
    }

    pub(crate) async fn from(source: &str, address: SocketAddr, bundle: &str) -> Self {
        Self::over(dial(source, address).await, bundle).await
    }

    async fn over(stream: TcpStream, bundle: &str) -> Self {
        let stream = secure(stream, bundle, TLS13, "http/1.1").await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> (StatusCode, String) {
        self.0.ready().await.unwrap();
        let response = self.0.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(crate) async fn post(&mut self, body: impl Into<Bytes>) -> (StatusCode, String) {
        self.send(post(body)).await
    }

    /// The response of a review.
    pub(crate) async fn review(&mut self, review: &Value) -> Value {
        let (status, text) = self.post(review.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }
}

/// One request over HTTP/2, as API servers send them.
pub(crate) async fn post_h2(stream: TlsStream<TcpStream>, body: String) -> Value {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = post(body);
    *request.uri_mut() = format!("https://{NAME}/inject").parse().unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

pub(crate) fn post(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post("/inject?timeout=10s")
        .header("host", NAME)
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

/// A review of the creation of `pod`.
pub(crate) fn review(namespace: &str, pod: &Value, dry_run: bool) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": namespace,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "userInfo": {"username": "system:serviceaccount:kube-system:statefulset-controller"},
            "object": pod, "oldObject": null, "dryRun": dry_run,
        },
    })
}
