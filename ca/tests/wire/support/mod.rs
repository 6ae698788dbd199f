//! A running `ringmail-ca`, and clients that speak to it over real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use ringmail_ca::messages::{CREATE_CERTIFICATE_PATH, IstioCertificateRequest, IstioCertificateResponse};
use ringmail_identity::{SpiffeId, TrustBundle, Usage};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

pub(crate) mod fake_api_server;
pub(crate) mod floods;
pub(crate) mod token;

/// Longer than any step of a healthy CA on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const TOKEN: &str = "static-token-of-the-ignite-node";
pub(crate) const IDENTITY: &str = "spiffe://cluster.local/ns/ignite/sa/node";

/// A running CA. Killed when dropped.
pub(crate) struct Ca {
    child: Child,
    lines: Mutex<Receiver<Value>>,
    pub(crate) folder: Arc<TempDir>,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

/// A folder with a token file and an (empty) key set.
pub(crate) fn folder() -> Arc<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("- {{token: {TOKEN}, namespace: ignite, service_account: node}}\n");
    std::fs::write(folder.path().join("tokens.yaml"), text).unwrap();
    std::fs::write(folder.path().join("jwks.json"), r#"{"keys":[]}"#).unwrap();
    Arc::new(folder)
}

/// The command of a CA on free ports with its files in `folder`, without the place of its key.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail-ca"));
    command
        .args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--static-tokens".as_ref(), folder.join("tokens.yaml").as_os_str()])
        .args(["--jwks".as_ref(), folder.join("jwks.json").as_os_str()])
        .args(["--bundle-out".as_ref(), folder.join("bundle.pem").as_os_str()])
        .env_clear()
        .stdout(Stdio::piped());
    command
}

/// The command of a CA whose API server is `kubeconfig`'s and whose metrics are at `metrics`.
pub(crate) fn kube_command(folder: &Path, kubeconfig: &str, metrics: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail-ca"));
    command
        .args(["--listen", "127.0.0.1:0", "--metrics-listen", metrics, "--log-format", "json"])
        .args(["--static-tokens".as_ref(), folder.join("tokens.yaml").as_os_str()])
        .args(["--bundle-out".as_ref(), folder.join("bundle.pem").as_os_str()])
        .args(["--kubeconfig", kubeconfig])
        .env_clear()
        .stdout(Stdio::piped());
    command
}

impl Ca {
    /// A CA with a self-signed root in a new folder.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(folder(), flags)
    }

    /// A CA with a self-signed root in `folder`.
    pub(crate) fn start_in(folder: Arc<TempDir>, flags: &[&str]) -> Self {
        let state = folder.path().join("state");
        Self::start_with(folder, &[&["--state-dir", state.to_str().unwrap()], flags].concat())
    }

    /// A CA whose key's place is among `flags`.
    pub(crate) fn start_with(folder: Arc<TempDir>, flags: &[&str]) -> Self {
        Self::try_start(folder, flags).unwrap_or_else(|log| panic!("the ca did not start: {log:#?}"))
    }

    /// The running CA, or what it said before it ended.
    pub(crate) fn try_start(folder: Arc<TempDir>, flags: &[&str]) -> Result<Self, Vec<Value>> {
        Self::try_start_under(folder, flags, [])
    }

    /// The same with these variables in its environment.
    pub(crate) fn try_start_under<const N: usize>(
        folder: Arc<TempDir>,
        flags: &[&str],
        environment: [(&str, String); N],
    ) -> Result<Self, Vec<Value>> {
        let mut command = command(folder.path());
        command.args(flags).envs(environment);
        Self::try_run(folder, command)
    }

    /// A CA that asks `server`, in a folder of its own.
    pub(crate) fn on(server: &fake_api_server::FakeApiServer, flags: &[&str]) -> Self {
        Self::try_on(server, flags).unwrap_or_else(|log| panic!("the ca did not start: {log:#?}"))
    }

    /// The running CA that asks `server`, or what it said before it ended.
    pub(crate) fn try_on(
        server: &fake_api_server::FakeApiServer,
        flags: &[&str],
    ) -> Result<Self, Vec<Value>> {
        let folder = folder();
        let kubeconfig = server.kubeconfig(folder.path());
        Self::try_with_kubeconfig(folder, &kubeconfig, flags)
    }

    /// The running CA that asks the API server of `kubeconfig`, or what it said before it ended.
    pub(crate) fn try_with_kubeconfig(
        folder: Arc<TempDir>,
        kubeconfig: &str,
        flags: &[&str],
    ) -> Result<Self, Vec<Value>> {
        let mut command = kube_command(folder.path(), kubeconfig, "127.0.0.1:0");
        command.args(flags);
        Self::try_run(folder, command)
    }

    fn try_run(folder: Arc<TempDir>, mut command: Command) -> Result<Self, Vec<Value>> {
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut before = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line["message"] == "serving" {
                let address = |field: &str| line[field].as_str().unwrap().parse().unwrap();
                let (address, metrics) = (address("listen"), address("metrics_listen"));
                let lines = Mutex::new(lines);
                return Ok(Self { child, lines, folder, address, metrics });
            }
            before.push(line);
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(before)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// SIGKILL, and no trace of it left.
    pub(crate) fn kill(mut self) -> Arc<TempDir> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        Arc::clone(&self.folder)
    }

    /// SIGTERM, then the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the ca did not end on SIGTERM");
    }

    /// The next audit line.
    pub(crate) fn audit(&self) -> Value {
        self.line(|line| line["target"] == "audit")
    }

    /// The next log line that `wanted` says yes to.
    pub(crate) fn line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.lock().unwrap().recv_timeout(PATIENCE).expect("no such log line");
            if wanted(&line) {
                return line;
            }
        }
    }

    /// The body of a page of the metrics port.
    pub(crate) fn page(&self, path: &str) -> String {
        page(self.metrics, path).unwrap()
    }

    /// Every log line so far that was not taken.
    pub(crate) fn lines_so_far(&self) -> Vec<Value> {
        self.lines.lock().unwrap().try_iter().collect()
    }

    /// The value of one series.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.page("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in {page}")).trim().parse().unwrap()
    }

    /// Waits until `series` is `value`.
    pub(crate) fn await_metric(&self, series: &str, value: f64) {
        eventually(series, || (self.metric(series) - value).abs() < 0.5);
    }

    /// The bundle as the CA publishes it.
    pub(crate) fn bundle(&self) -> TrustBundle {
        let pem = std::fs::read(self.path("bundle.pem")).unwrap();
        TrustBundle::from_pem("cluster.local".parse().unwrap(), &pem).unwrap()
    }

    /// A connection that trusts the published bundle.
    pub(crate) async fn connect(&self) -> Channel {
        connect(self.address, &self.bundle(), "localhost").await.unwrap()
    }

    /// A certificate for a fresh P-256 key by the static token.
    pub(crate) async fn leaf(&self) -> Vec<CertificateDer<'static>> {
        let answer =
            ask(self.connect().await, Some(TOKEN), request(&csr(&KeyPair::generate().unwrap()))).await;
        certificates(&answer.unwrap().cert_chain)
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A page over plain HTTP, with its headers.
pub(crate) fn page(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: ca\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Waits until `holds`.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn client_config(bundle: &TrustBundle) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in bundle.roots() {
        roots.add(root.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// A gRPC channel over TLS that verifies the server by `name` under `bundle`.
pub(crate) async fn connect(
    address: SocketAddr,
    bundle: &TrustBundle,
    name: &str,
) -> Result<Channel, tonic::transport::Error> {
    connect_from(Ipv4Addr::UNSPECIFIED, address, bundle, name).await
}

/// The same from one of this machine's own addresses.
pub(crate) async fn connect_from(
    source: Ipv4Addr,
    address: SocketAddr,
    bundle: &TrustBundle,
    name: &str,
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(client_config(bundle));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let dial = tower::service_fn(move |_| {
        let (connector, name) = (connector.clone(), name.clone());
        async move {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((source, 0)))?;
            let stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Endpoint::from_static("http://ca").connect_with_connector(dial).await
}

pub(crate) fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

pub(crate) fn request(csr: &str) -> IstioCertificateRequest {
    IstioCertificateRequest { csr: csr.to_owned(), ..Default::default() }
}

/// One call of the service.
pub(crate) async fn ask(
    channel: Channel,
    token: Option<&str>,
    message: IstioCertificateRequest,
) -> Result<IstioCertificateResponse, Status> {
    call(channel, CREATE_CERTIFICATE_PATH, token, message).await
}

/// One call of any method with any message.
pub(crate) async fn call<M>(
    channel: Channel,
    path: &'static str,
    token: Option<&str>,
    message: M,
) -> Result<IstioCertificateResponse, Status>
where
    M: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut request = tonic::Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let codec = ProstCodec::<M, IstioCertificateResponse>::default();
    Ok(grpc.unary(request, http::uri::PathAndQuery::from_static(path), codec).await?.into_inner())
}

/// Every certificate of the response's elements, in order.
pub(crate) fn certificates(chain: &[String]) -> Vec<CertificateDer<'static>> {
    chain.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap)).collect()
}

/// Verifies as a proxy does, in both directions.
pub(crate) fn verify(bundle: &TrustBundle, chain: &[CertificateDer<'static>]) -> Result<SpiffeId, String> {
    bundle.verify(chain, Usage::Server, UnixTime::now()).map_err(|e| e.to_string())?;
    bundle.verify(chain, Usage::Client, UnixTime::now()).map(|peer| peer.id).map_err(|e| e.to_string())
}

/// Checks a refusal everywhere it shows: the answer, the audit line, the metric.
pub(crate) fn assert_refused(
    ca: &Ca,
    answer: Result<IstioCertificateResponse, Status>,
    code: Code,
    reason: &str,
) {
    let status = answer.expect_err(reason);
    assert_eq!(status.code(), code, "{reason}: {status:?}");
    let line = ca.audit();
    assert_eq!(line["outcome"], "refused", "{line}");
    assert_eq!(line["reason"], reason, "{line}");
    assert_eq!(line["error"], status.message(), "{line}");
    assert!(line["caller"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert!(ca.metric(&format!("ringmail_ca_refused_total{{reason=\"{reason}\"}}")) >= 1.0);
}
