use std::{
    convert::Infallible,
    fs,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use hyper_util::rt::{TokioExecutor, TokioIo};
use ringmail_identity::{Svid, TrustBundle, UnixTime, Usage};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{net::TcpListener, time::sleep};
use tokio_rustls::TlsAcceptor;
use tonic::{Response, Status};

use super::*;
use crate::{
    control_plane::Role,
    credentials::{
        status::RefreshErrorReason,
        test_ca::{OWN, TestCa},
    },
};

const SERVER: &str = "ringmail-ca.ringmail-system.svc";
const LIFE: Duration = Duration::from_secs(3600);

/// How the server behaves once a connection is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Answers,
    AnswersWithTheLeafAlone,
    AnswersWithAnIntermediate,
    Breaks,
    StallsAfterTls,
    StallsBeforeTls,
}

#[derive(Default)]
struct Heard {
    requests: Vec<CertificateRequest>,
    clusters: Vec<String>,
}

struct TestServer {
    signer: Arc<TestCa>,
    conduct: Conduct,
    heard: Arc<Mutex<Heard>>,
}

impl tonic::server::UnaryService<CertificateRequest> for TestServer {
    type Response = CertificateResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CertificateResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let (signer, conduct, heard) = (Arc::clone(&self.signer), self.conduct, Arc::clone(&self.heard));
        Box::pin(async move {
            if conduct == Conduct::StallsAfterTls {
                sleep(ATTEMPT_DEADLINE * 10).await;
            }
            let token =
                request.metadata().get("authorization").map(|token| token.to_str().unwrap().to_owned());
            if token.as_deref() != Some("Bearer good") {
                return Err(Status::unauthenticated("token is not of audience ringmail-ca\n"));
            }
            let mut heard = heard.lock().unwrap();
            heard
                .clusters
                .extend(request.metadata().get("clusterid").map(|id| id.to_str().unwrap().to_owned()));
            let request = request.into_inner();
            let leaf = signer.sign(&request.csr, OWN, LIFE).pem();
            heard.requests.push(request);
            let middle = TestCa::new("middle").root;
            let cert_chain = match conduct {
                Conduct::AnswersWithTheLeafAlone => vec![leaf],
                Conduct::AnswersWithAnIntermediate => {
                    vec![leaf, middle.clone(), [&*signer.root, &middle].concat()]
                }
                Conduct::Answers | Conduct::Breaks | Conduct::StallsAfterTls | Conduct::StallsBeforeTls => {
                    vec![leaf, signer.root.clone()]
                }
            };
            Ok(Response::new(CertificateResponse { cert_chain }))
        })
    }
}

struct Scene {
    ca: Ca,
    signer: Arc<TestCa>,
    heard: Arc<Mutex<Heard>>,
    _dir: tempfile::TempDir,
}

impl Scene {
    /// A CA with a certificate for [`SERVER`], and a client with its root and a good token.
    async fn new(conduct: Conduct) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Arc::new(TestCa::new("one"));
        let heard = Arc::<Mutex<Heard>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(serve(listener, Arc::clone(&signer), conduct, Arc::clone(&heard)));
        fs::write(dir.path().join("root.pem"), &signer.root).unwrap();
        fs::write(dir.path().join("token"), "good\n").unwrap();
        let server = Server {
            role: Role::Ca,
            authority,
            server_name: SERVER.try_into().unwrap(),
            root_file: dir.path().join("root.pem"),
            token_file: dir.path().join("token"),
            cluster: "Kubernetes".to_owned(),
        };
        let ca = Ca { server, ttl: Duration::from_secs(86_400) };
        Self { ca, signer, heard, _dir: dir }
    }

    async fn refusal(&self) -> (RefreshErrorReason, String) {
        let error = self.ca.issue().await.err().expect("the ca must not be believed");
        (error.reason(), error.to_string())
    }
}

async fn serve(listener: TcpListener, signer: Arc<TestCa>, conduct: Conduct, heard: Arc<Mutex<Heard>>) {
    let config = signer.server(SERVER);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, signer, heard) = (acceptor.clone(), Arc::clone(&signer), Arc::clone(&heard));
        tokio::spawn(async move {
            if conduct == Conduct::StallsBeforeTls {
                return sleep(ATTEMPT_DEADLINE * 10).await;
            }
            let Ok(stream) = acceptor.accept(stream).await else { return };
            if conduct == Conduct::Breaks {
                return;
            }
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let server = TestServer { signer: Arc::clone(&signer), conduct, heard: Arc::clone(&heard) };
                async move {
                    assert_eq!(request.uri().path(), METHOD);
                    let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
                    Ok::<_, Infallible>(grpc.unary(server, request.map(tonic::body::Body::new)).await)
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[tokio::test]
async fn a_certificate_is_issued_for_a_new_key_each_time() {
    let scene = Scene::new(Conduct::Answers).await;
    let bundle =
        TrustBundle::from_pem("cluster.local".parse().unwrap(), scene.signer.root.as_bytes()).unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let issued = scene.ca.issue().await.unwrap();
        assert_eq!(issued.roots, scene.signer.root.as_bytes());
        let svid = Svid::from_pem(&issued.chain, &issued.key).unwrap();
        bundle.verify(svid.chain(), Usage::Client, UnixTime::now()).unwrap();
        keys.push(issued.key);
    }
    assert_ne!(keys[0], keys[1]);
    let heard = scene.heard.lock().unwrap();
    assert_eq!(heard.clusters, ["Kubernetes", "Kubernetes"]);
    assert!(heard.requests.iter().all(|request| request.validity_duration == 86_400));
}

#[tokio::test]
async fn intermediates_go_with_the_leaf_and_the_last_entry_may_hold_several_roots() {
    let issued = Scene::new(Conduct::AnswersWithAnIntermediate).await.ca.issue().await.unwrap();
    let certificates = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).count();
    assert_eq!((certificates(&issued.chain), certificates(&issued.roots)), (2, 2));
}

#[tokio::test]
async fn a_ca_under_another_name_is_not_asked() {
    let mut scene = Scene::new(Conduct::Answers).await;
    scene.ca.server.server_name = "other.ringmail-system.svc".try_into().unwrap();
    let (reason, text) = scene.refusal().await;
    assert_eq!(reason, RefreshErrorReason::CaTls);
    assert!(text.contains("other.ringmail-system.svc") && text.contains(SERVER), "{text}");
    assert!(scene.heard.lock().unwrap().requests.is_empty());
}

#[tokio::test]
async fn a_ca_under_a_foreign_root_is_not_asked() {
    let scene = Scene::new(Conduct::Answers).await;
    fs::write(&scene.ca.server.root_file, TestCa::new("two").root).unwrap();
    let (reason, text) = scene.refusal().await;
    assert_eq!(reason, RefreshErrorReason::CaTls, "{text}");
    assert!(scene.heard.lock().unwrap().requests.is_empty());
    // Read afresh: the next attempt needs no restart.
    fs::write(&scene.ca.server.root_file, &scene.signer.root).unwrap();
    scene.ca.issue().await.unwrap();
}

#[tokio::test]
async fn a_refused_token_gives_the_words_of_the_ca_and_never_the_token() {
    let scene = Scene::new(Conduct::Answers).await;
    fs::write(&scene.ca.server.token_file, "s3cret-and-bad").unwrap();
    let (reason, text) = scene.refusal().await;
    assert_eq!(reason, RefreshErrorReason::Denied);
    assert!(text.ends_with("answered Unauthenticated: token is not of audience ringmail-ca"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    fs::write(&scene.ca.server.token_file, "good").unwrap();
    scene.ca.issue().await.unwrap();
}

#[tokio::test]
async fn a_token_or_roots_that_cannot_be_used_are_named() {
    let scene = Scene::new(Conduct::Answers).await;
    for (content, expected) in
        [("", "nothing"), ("two words", "other characters"), ("a\u{e9}", "other characters")]
    {
        fs::write(&scene.ca.server.token_file, content).unwrap();
        let (reason, text) = scene.refusal().await;
        assert_eq!(reason, RefreshErrorReason::Token);
        assert!(text.contains(expected) && text.contains("expected one token"), "{text}");
    }
    fs::remove_file(&scene.ca.server.token_file).unwrap();
    let (reason, text) = scene.refusal().await;
    assert_eq!(reason, RefreshErrorReason::Token);
    assert!(text.contains("token: No such file"), "{text}");
    fs::write(&scene.ca.server.token_file, "good").unwrap();
    fs::write(&scene.ca.server.root_file, "").unwrap();
    assert_eq!(scene.refusal().await.0, RefreshErrorReason::Roots);
}

#[tokio::test]
async fn a_ca_that_is_not_there_is_unreachable() {
    let mut scene = Scene::new(Conduct::Answers).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.ca.server.authority = free.local_addr().unwrap().to_string();
    drop(free);
    let (reason, text) = scene.refusal().await;
    assert_eq!(reason, RefreshErrorReason::CaUnreachable);
    assert!(text.contains(&scene.ca.server.authority) && text.contains("refused"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_stalls_is_given_up_at_the_deadline() {
    for conduct in [Conduct::StallsBeforeTls, Conduct::StallsAfterTls] {
        let scene = Scene::new(conduct).await;
        let start = Instant::now();
        let (reason, text) = scene.refusal().await;
        assert_eq!(reason, RefreshErrorReason::Deadline, "{text}");
        assert!(start.elapsed() <= ATTEMPT_DEADLINE + Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_session_that_breaks_and_an_answer_without_roots_are_told_apart() {
    let (reason, text) = Scene::new(Conduct::Breaks).await.refusal().await;
    assert_eq!(reason, RefreshErrorReason::CaFailed, "{text}");
    let (reason, text) = Scene::new(Conduct::AnswersWithTheLeafAlone).await.refusal().await;
    assert_eq!(reason, RefreshErrorReason::Malformed);
    assert!(text.contains("answered with 1 certificates"), "{text}");
}
