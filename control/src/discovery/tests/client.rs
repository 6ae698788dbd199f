//! A server on loopback, and a client that speaks for a pod.

use std::{collections::BTreeMap, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use prometheus::{Registry, TextEncoder};
use ringmail_ca::attest::{AttestError, Attesting, Attestor, Attestors, BoundPod, Caller, SourceError};
use ringmail_identity::SpiffeId;
use ringmail_xds::{
    Resource,
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    ringmail::{Destination, Inbound},
    security::Authorization,
    service,
    workload::Address,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, transport::Endpoint};

use super::super::{
    Discovery, DiscoveryConfig, Server, Settings, server,
    serving::{Serving, ServingSource},
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tokens that say themselves whose they are: `<namespace>/<service account>/<pod>/<uid>`.
struct Plain;

impl Attestor for Plain {
    fn attest<'a>(&'a self, token: &'a str) -> Attesting<'a> {
        Box::pin(async move {
            let mut parts = token.split('/').map(str::to_owned);
            let mut part = || parts.next().ok_or(AttestError::NotBound);
            let domain = "cluster.local".parse().unwrap();
            let identity = SpiffeId::for_service_account(&domain, &part()?, &part()?).unwrap();
            let pod = Some(BoundPod { name: part()?, uid: part()?, node: None });
            Ok(Caller { identity, pod })
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn reload(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// A server.
pub(super) struct Fixture {
    pub(super) discovery: Arc<Discovery>,
    pub(super) address: SocketAddr,
    registry: Registry,
    roots: RootCertStore,
    _end: watch::Sender<bool>,
    _files: tempfile::TempDir,
}

impl Fixture {
    /// Tokens say themselves whose they are.
    pub(super) async fn start() -> Self {
        Self::judged_by(Attestors::new(None, Some(Box::new(Plain)))).await
    }

    pub(super) async fn judged_by(attestors: Attestors) -> Self {
        Self::made(attestors, |_| {}).await
    }

    /// Tokens say themselves whose they are, and the settings are others than usual.
    pub(super) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::made(Attestors::new(None, Some(Box::new(Plain))), change).await
    }

    async fn made(attestors: Attestors, change: impl FnOnce(&mut Settings)) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (certificate, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
        let made = rcgen::generate_simple_self_signed(vec!["control".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()).unwrap();
        let mut settings = DiscoveryConfig::default().settings("ringmail-system", "test").unwrap();
        settings.max_connections_per_source = 2000;
        settings.read_deadline = Duration::from_secs(1);
        settings.policy.mesh_ranges = vec!["10.0.0.0/8".parse().unwrap()];
        change(&mut settings);
        let registry = Registry::new();
        let discovery = Discovery::new(&settings, &registry).unwrap();
        let (end, ending) = watch::channel(false);
        let serving = Serving::start(ServingSource::Files { certificate, key }, ending.clone()).unwrap();
        let server = Server { discovery: Arc::clone(&discovery), attestors, serving };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { server::run(server, listener, &settings, ending).await });
        Self { discovery, address, registry, roots, _end: end, _files: files }
    }

    pub(super) fn metrics(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }

    /// How many connections have ended for `reason`.
    pub(super) fn ended(&self, reason: &str) -> u64 {
        let series = format!("ringmail_discovery_connections_closed_total{{reason=\"{reason}\"}} ");
        let text = self.metrics();
        text.lines()
            .find_map(|line| line.strip_prefix(&series))
            .expect("the series is there")
            .parse()
            .unwrap()
    }

    /// Waits until a connection has ended for `reason`.
    pub(super) async fn until_ended(&self, reason: &str) {
        let ended = async {
            while self.ended(reason) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("none ended for {reason}"));
    }

    pub(super) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection on which nothing was said after the handshake.
    pub(super) async fn raw(&self) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("control").unwrap();
        self.connector().connect(name, self.tcp().await).await.unwrap()
    }

    fn connector(&self) -> TlsConnector {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let mut config = config
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// A stream.
pub(super) struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    pub(super) async fn open(fixture: &Fixture, token: &str) -> Result<Self, Status> {
        let (connector, address) = (fixture.connector(), fixture.address);
        let dial = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let name = ServerName::try_from("control").unwrap();
                let stream = TcpStream::connect(address).await?;
                Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        let channel = Endpoint::from_static("https://control").connect_with_connector(dial).await.unwrap();
        let (requests, queue) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(queue));
        if !token.is_empty() {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let answers = service::open(channel, request, 16 * 1024 * 1024).await?;
        Ok(Self { requests, answers })
    }

    pub(super) async fn say(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub(super) async fn ask(&self, type_url: &str, names: &[&str]) {
        self.resume(type_url, names, BTreeMap::new()).await;
    }

    pub(super) async fn resume(&self, type_url: &str, names: &[&str], held: BTreeMap<String, String>) {
        self.say(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            initial_resource_versions: held,
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    /// All that a proxy asks for at first.
    pub(super) async fn greet(&self, claim: &str, names: &[&str]) {
        self.say(DeltaDiscoveryRequest {
            node: Some(node(claim)),
            type_url: Address::TYPE_URL.to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
        // A stream that has been refused takes no more.
        let _ = self.requests.send(first(Destination::TYPE_URL, names)).await;
        let _ = self.requests.send(first(Authorization::TYPE_URL, &[])).await;
        let _ = self.requests.send(first(Inbound::TYPE_URL, &[Inbound::NAME])).await;
    }

    pub(super) async fn answer(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let answer = timeout(PATIENCE, self.answers.message()).await.expect("no answer");
        answer.map(|answer| answer.expect("the stream has ended"))
    }

    /// The next answer of this type; others before it are left aside.
    pub(super) async fn answer_of(&mut self, type_url: &str) -> DeltaDiscoveryResponse {
        loop {
            let answer = self.answer().await.unwrap();
            if answer.type_url == type_url {
                return answer;
            }
        }
    }

    /// How the stream ends.
    pub(super) async fn end(&mut self) -> Status {
        loop {
            match timeout(PATIENCE, self.answers.message()).await.expect("the stream goes on") {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("ended in order"),
                Err(status) => return status,
            }
        }
    }

    /// Nothing comes for a while.
    pub(super) async fn silent(&mut self) {
        let answer = timeout(Duration::from_millis(300), self.answers.message()).await;
        assert!(answer.is_err(), "{answer:?}");
    }
}

fn first(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

pub(super) fn node(claim: &str) -> Node {
    Node { id: format!("sidecar~10.0.0.1~{claim}~a.svc.cluster.local"), ..Node::default() }
}

pub(super) fn names(answer: &DeltaDiscoveryResponse) -> Vec<String> {
    answer.resources.iter().map(|resource| resource.name.clone()).collect()
}

pub(super) fn held(answer: &DeltaDiscoveryResponse) -> BTreeMap<String, String> {
    answer.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect()
}
