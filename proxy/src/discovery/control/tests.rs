//! The client against a server that says what a test tells it to, over real TLS.

use std::{convert::Infallible, fs, future::ready, pin::Pin, sync::Mutex};

use hyper_util::rt::{TokioExecutor, TokioIo};
use ringmail_policy::Route;
use ringmail_xds::{
    Resource, address_bytes, address_name,
    discovery::{DeltaDiscoveryRequest, NamedResource},
    ringmail,
    security::Authorization,
    service::{self, Responses},
    workload::{Address, TunnelProtocol, Workload, address::Type},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status as Refusal, Streaming};

use super::*;
use crate::{
    credentials::test_ca::TestCa,
    discovery::{Asker, Discovery, status::Link},
    snapshot::Snapshots,
};

const SERVER: &str = "ringmail-control.ringmail-system.svc";
const OWN: &str = "10.0.0.1";
const PEER: &str = "10.0.0.2";
const PATIENCE: Duration = Duration::from_secs(20);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What a session said, and the way to answer.
#[derive(Default)]
struct Book {
    heard: Vec<DeltaDiscoveryRequest>,
    tokens: Vec<String>,
    answers: Option<mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Refusal>>>,
}

struct Handler(Arc<Mutex<Book>>);

impl tonic::server::StreamingService<DeltaDiscoveryRequest> for Handler {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = Responses;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Responses>, Refusal>> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let token = request.metadata().get("authorization").map(|token| token.to_str().unwrap().to_owned());
        let (answers, queue) = mpsc::unbounded_channel();
        {
            let mut book = self.0.lock().unwrap();
            book.tokens.extend(token);
            book.answers = Some(answers);
        }
        let book = Arc::clone(&self.0);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                book.lock().unwrap().heard.push(request);
            }
        });
        Box::pin(ready(Ok(tonic::Response::new(Box::pin(UnboundedReceiverStream::new(queue)) as Responses))))
    }
}

/// A server, and a proxy's discovery that asks it.
struct Scene {
    book: Arc<Mutex<Book>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    listening: AbortHandle,
    acceptor: TlsAcceptor,
    address: std::net::SocketAddr,
    snapshots: Snapshots,
    status: Arc<Status>,
    asker: Asker,
    kept: Arc<Mutex<Vec<u8>>>,
    config: Arc<Config>,
    running: AbortHandle,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = TestCa::new("one");
        fs::write(dir.path().join("root.pem"), &ca.root).unwrap();
        fs::write(dir.path().join("token"), "good").unwrap();
        let tls = ca.server(SERVER);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let text = format!(
            "namespace: ignite\npod_addresses: [{OWN}]\ndiscovery: control\ndiscovery_address: https://{address}\n\
             discovery_server_name: {SERVER}\nca_root_file: {dir}/root.pem\ntoken_file: {dir}/token\nunknown_wait: 2s\n",
            dir = dir.path().display()
        );
        let config = Arc::new(Config::from_text("test.yaml", &text).unwrap());
        let (book, connections) = (Arc::<Mutex<Book>>::default(), Arc::<Mutex<Vec<AbortHandle>>>::default());
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listening = listen(listener, acceptor.clone(), &book, &connections);
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let (snapshots, status, asker, running) = begin(&config, None, &kept);
        Self {
            book,
            connections,
            listening,
            acceptor,
            address,
            snapshots,
            status,
            asker,
            kept,
            config,
            running,
            _dir: dir,
        }
    }

    /// Waits until the newest session has said something that `is_meant`.
    async fn heard(
        &self,
        what: &str,
        is_meant: impl Fn(&DeltaDiscoveryRequest) -> bool,
    ) -> DeltaDiscoveryRequest {
        let found = async {
            loop {
                if let Some(found) = self.book.lock().unwrap().heard.iter().find(|said| is_meant(said)) {
                    return found.clone();
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("never heard: {what}"))
    }

    fn say<M: Resource>(&self, nonce: &str, resources: Vec<NamedResource>, removed: &[&str]) {
        let answer = DeltaDiscoveryResponse {
            type_url: M::TYPE_URL.to_owned(),
            nonce: nonce.to_owned(),
            resources,
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        self.book.lock().unwrap().answers.as_ref().unwrap().send(Ok(answer)).unwrap();
    }

    /// Everything that makes this pod complete.
    async fn introduce(&self) {
        self.heard("the first request", |said| said.type_url == ringmail::Inbound::TYPE_URL).await;
        self.say::<Address>("a1", vec![pod("n1", OWN)], &[]);
        self.say::<ringmail::Destination>("d1", vec![destination("n1", OWN)], &[]);
        let inbound = ringmail::Inbound::permissive();
        self.say::<ringmail::Inbound>("i1", vec![named("inbound", &inbound)], &[]);
        self.complete().await;
    }

    async fn complete(&self) -> Arc<Snapshot> {
        let mut snapshots = self.snapshots.clone();
        let complete =
            timeout(PATIENCE, snapshots.wait_for(Option::is_some)).await.expect("no snapshot").unwrap();
        complete.clone().unwrap()
    }

    /// Waits until the connection to `address` goes where `is_meant` says.
    async fn routed(&self, address: &str, is_meant: impl Fn(&Route) -> bool) {
        let mut snapshots = self.snapshots.clone();
        let to = std::net::SocketAddr::new(ip(address), 47500);
        let meant = snapshots
            .wait_for(|known| known.as_ref().is_some_and(|known| is_meant(&known.outbound.route(to))));
        timeout(PATIENCE, meant).await.expect("never routed so").unwrap();
    }

    /// The server is gone, and its connections with it.
    fn stop(&self) {
        self.listening.abort();
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
        *self.book.lock().unwrap() = Book::default();
    }

    async fn start(&mut self) {
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_in_use) => sleep(Duration::from_millis(20)).await,
            }
        };
        self.listening = listen(listener, self.acceptor.clone(), &self.book, &self.connections);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn begin(
    config: &Arc<Config>,
    kept: Option<&[u8]>,
    keep: &Arc<Mutex<Vec<u8>>>,
) -> (Snapshots, Arc<Status>, Asker, AbortHandle) {
    let (tx, snapshots) = watch::channel(None);
    let status = Arc::<Status>::default();
    let keep = Arc::clone(keep);
    let keep: KeepBytes = Box::new(move |bytes| *keep.lock().unwrap() = bytes.to_vec());
    let discovery = Discovery::new(config, tx, Arc::clone(&status), kept, Some(keep));
    let asker = discovery.asker();
    (snapshots, status, asker, tokio::spawn(discovery.run()).abort_handle())
}

fn listen(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    book: &Arc<Mutex<Book>>,
    connections: &Arc<Mutex<Vec<AbortHandle>>>,
) -> AbortHandle {
    let (book, connections) = (Arc::clone(book), Arc::clone(connections));
    let serving = tokio::spawn(async move {
        let mut all = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let serve = serve(stream, acceptor.clone(), Arc::clone(&book));
            connections.lock().unwrap().push(all.spawn(serve));
        }
    });
    serving.abort_handle()
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, book: Arc<Mutex<Book>>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let handler = Handler(Arc::clone(&book));
        async move {
            assert_eq!(request.uri().path(), service::PATH);
            Ok::<_, Infallible>(service::serve(handler, request, 1024 * 1024).await)
        }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn named(name: &str, message: &impl Resource) -> NamedResource {
    NamedResource {
        version: "1".to_owned(),
        resource: Some(message.to_any()),
        name: name.to_owned(),
        aliases: Vec::new(),
    }
}

fn pod(name: &str, address: &str) -> NamedResource {
    let workload = Workload {
        uid: name.to_owned(),
        name: name.to_owned(),
        namespace: "ignite".to_owned(),
        addresses: vec![address_bytes(ip(address))],
        tunnel_protocol: TunnelProtocol::LegacyIstioMtls.into(),
        ..Workload::default()
    };
    named(name, &Address { r#type: Some(Type::Workload(workload)) })
}

fn destination(name: &str, address: &str) -> NamedResource {
    let message = ringmail::Destination {
        uid: name.to_owned(),
        entry: Some(ringmail::Origin::default()),
        mode: ringmail::Inbound::permissive().mode,
        ..ringmail::Destination::default()
    };
    named(&address_name(ip(address)), &message)
}

fn is_mesh(route: &Route) -> bool {
    matches!(route, Route::Mesh { .. })
}

#[tokio::test]
async fn the_own_addresses_are_asked_for_first_and_answers_are_acknowledged() {
    let scene = Scene::new().await;
    let first = scene.heard("the own address", |said| said.type_url == Address::TYPE_URL).await;
    assert_eq!(first.resource_names_subscribe, ["/10.0.0.1"]);
    let node = first.node.unwrap();
    assert!(
        node.id.starts_with("sidecar~10.0.0.1~") && node.id.ends_with(".ignite~ignite.svc.cluster.local")
    );
    let policies = scene.heard("all policies", |said| said.type_url == Authorization::TYPE_URL).await;
    assert!(policies.resource_names_subscribe.is_empty(), "everything there is");
    scene.introduce().await;
    for nonce in ["a1", "d1", "i1"] {
        let said = scene.heard(nonce, |said| said.response_nonce == nonce).await;
        assert_eq!(said.error_detail, None);
    }
    assert_eq!(scene.book.lock().unwrap().tokens, ["Bearer good"]);
    assert!(scene.status.link().is_up());
}

#[tokio::test]
async fn an_address_is_asked_for_when_it_is_dialled_and_not_before() {
    let scene = Scene::new().await;
    scene.introduce().await;
    scene.asker.ask(ip(PEER));
    scene.asker.ask(ip(PEER));
    let asked = |said: &DeltaDiscoveryRequest| said.resource_names_subscribe == ["/10.0.0.2"];
    for type_url in [Address::TYPE_URL, ringmail::Destination::TYPE_URL] {
        scene.heard("the peer", |said| asked(said) && said.type_url == type_url).await;
    }
    scene.say::<Address>("a2", vec![pod("n2", PEER)], &[]);
    scene.say::<ringmail::Destination>("d2", vec![destination("n2", PEER)], &[]);
    scene.routed(PEER, is_mesh).await;
    assert_eq!(
        scene.book.lock().unwrap().heard.iter().filter(|said| asked(said)).count(),
        2,
        "once for each type"
    );
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_with_its_nonce_and_reason_and_changes_nothing() {
    let scene = Scene::new().await;
    scene.introduce().await;
    let version = scene.complete().await.version;
    scene.say::<ringmail::Inbound>("bad", vec![named("inbound", &ringmail::Inbound::default())], &[]);
    let said = scene.heard("the refusal", |said| said.response_nonce == "bad").await;
    assert_eq!(said.error_detail.unwrap().message, "inbound: mode: expected a mode, got nothing");
    assert_eq!(scene.complete().await.version, version);
    assert!(scene.status.last_error().unwrap().text.contains("expected a mode"));
}

#[tokio::test]
async fn what_is_known_stays_while_the_server_is_away_and_the_next_one_is_told_what_is_held() {
    let mut scene = Scene::new().await;
    scene.introduce().await;
    scene.asker.ask(ip(PEER));
    scene.heard("the peer", |said| said.resource_names_subscribe == ["/10.0.0.2"]).await;
    scene.say::<Address>("a2", vec![pod("n2", PEER)], &[]);
    scene.say::<ringmail::Destination>("d2", vec![destination("n2", PEER)], &[]);
    scene.routed(PEER, is_mesh).await;
    scene.stop();
    let down = async {
        while scene.status.link().is_up() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, down).await.unwrap();
    assert!(!scene.asker.is_answered() && scene.asker.trouble().is_some());
    scene.routed(PEER, is_mesh).await;
    // Asked while nobody hears it: the next session says it.
    scene.asker.ask(ip("10.0.0.3"));
    scene.start().await;
    let first = scene.heard("the first request", |said| said.type_url == Address::TYPE_URL).await;
    let mut names = first.resource_names_subscribe.clone();
    names.sort();
    assert_eq!(names, ["/10.0.0.1", "/10.0.0.2", "/10.0.0.3"]);
    let versions: Vec<_> = first.initial_resource_versions.keys().cloned().collect();
    assert_eq!(versions, ["n1", "n2"]);
    scene.say::<Address>("a3", Vec::new(), &["n2"]);
    scene.routed(PEER, |route| !is_mesh(route)).await;
}

#[tokio::test]
async fn a_data_plane_that_starts_again_needs_no_server() {
    let scene = Scene::new().await;
    scene.introduce().await;
    scene.asker.ask(ip(PEER));
    scene.heard("the peer", |said| said.resource_names_subscribe == ["/10.0.0.2"]).await;
    scene.say::<Address>("a2", vec![pod("n2", PEER)], &[]);
    scene.say::<ringmail::Destination>("d2", vec![destination("n2", PEER)], &[]);
    scene.routed(PEER, is_mesh).await;
    let kept = async {
        loop {
            let kept = scene.kept.lock().unwrap().clone();
            if Kept::decode(&*kept).unwrap().answers.iter().any(|answer| answer.resources.len() > 1) {
                return kept;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let kept = timeout(PATIENCE, kept).await.expect("never kept");
    scene.running.abort();
    scene.stop();
    let (snapshots, _status, _asker, running) = begin(&scene.config, Some(&kept), &Arc::default());
    let snapshot = snapshots.borrow().clone().expect("complete at once");
    assert!(is_mesh(&snapshot.outbound.route(std::net::SocketAddr::new(ip(PEER), 47500))));
    running.abort();
}

#[tokio::test]
async fn a_pod_that_the_server_refuses_says_why() {
    let scene = Scene::new().await;
    scene.heard("the first request", |said| said.type_url == Address::TYPE_URL).await;
    let refusal = Refusal::permission_denied("the token is of pod ignite/n2, not ignite/n1");
    scene.book.lock().unwrap().answers.as_ref().unwrap().send(Err(refusal)).unwrap();
    let told = async {
        loop {
            if let Some(error) = scene.status.last_error() {
                return error.text;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let text = timeout(PATIENCE, told).await.unwrap();
    assert!(
        text.ends_with("answered PermissionDenied: the token is of pod ignite/n2, not ignite/n1"),
        "{text}"
    );
    assert!(matches!(scene.status.link(), Link::Down { .. }));
    assert!(scene.snapshots.borrow().is_none());
}
