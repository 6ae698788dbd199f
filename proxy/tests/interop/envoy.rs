//! Envoy, with BoringSSL's TLS and the settings that Istio gives it: bytes both ways, and the end of each direction.

use std::{env, net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{
    Files, PATIENCE, echo, free_address, hear_the_echo, inbound,
    kit::{Ca, wire::run},
    outbound,
};

/// Where the program is; `scripts/envoy.sh` fetches it and tells.
const PROGRAM: &str = "RINGMAIL_ENVOY";

/// How often it is tried whether Envoy listens.
const RETRY: Duration = Duration::from_millis(50);

/// A running Envoy with one listener.
struct Envoy {
    _child: Child,
    address: SocketAddr,
}

impl Envoy {
    /// One that listens without TLS, or with where `server` is, and goes on to `to`, there with TLS where `client` is.
    async fn start(files: &Files, server: Option<Value>, to: SocketAddr, client: Option<Value>) -> Self {
        let program = env::var_os(PROGRAM);
        let program =
            program.unwrap_or_else(|| panic!("{PROGRAM} is not set, expected what scripts/envoy.sh prints"));
        let address = free_address().await;
        let mut chain = json!({ "filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": typed("filters.network.tcp_proxy.v3.TcpProxy", json!({ "stat_prefix": "tcp", "cluster": "to" })),
        }] });
        let endpoint = json!({ "endpoint": { "address": socket(to) } });
        let mut cluster = json!({
            "name": "to",
            "type": "STATIC",
            "load_assignment": { "cluster_name": "to", "endpoints": [{ "lb_endpoints": [endpoint] }] },
        });
        if let Some(tls) = server {
            chain["transport_socket"] = tls;
        }
        if let Some(tls) = client {
            cluster["transport_socket"] = tls;
        }
        let config = json!({ "static_resources": {
            "listeners": [{ "name": "from", "address": socket(address), "filter_chains": [chain] }],
            "clusters": [cluster],
        } });
        let mut command = Command::new(program);
        command.arg("--config-yaml").arg(config.to_string());
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]);
        command.current_dir(files.path(""));
        Self { _child: command.kill_on_drop(true).spawn().unwrap(), address }
    }

    async fn dial(&self) -> TcpStream {
        let dialling = async {
            loop {
                match TcpStream::connect(self.address).await {
                    Ok(stream) => return stream,
                    Err(_) => sleep(RETRY).await,
                }
            }
        };
        timeout(PATIENCE, dialling).await.unwrap()
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn typed(name: &str, mut value: Value) -> Value {
    value["@type"] = format!("type.googleapis.com/envoy.extensions.{name}").into();
    value
}

/// The TLS of one side, which trusts a peer with `identity` alone.
fn tls(files: &Files, context: &str, identity: &str) -> Value {
    let file = |name: &str| json!({ "filename": Path::new(&files.path(name)) });
    let mut context_of_side = json!({ "common_tls_context": {
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "alpn_protocols": ["istio-peer-exchange", "istio"],
        "tls_certificates": [{ "certificate_chain": file("peer.pem"), "private_key": file("peer.pem") }],
        "validation_context": {
            "trusted_ca": file("root.pem"),
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": identity } }],
        },
    } });
    if context == "DownstreamTlsContext" {
        context_of_side["require_client_certificate"] = true.into();
    }
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(&format!("transport_sockets.tls.v3.{context}"), context_of_side),
    })
}

/// The identity of the sidecar under test.
const SIDECAR: &str = "spiffe://cluster.local/ns/ignite/sa/n1";

#[tokio::test]
async fn envoy_dials_and_every_byte_and_both_ends_arrive() {
    run(async {
        let ca = Ca::new("root");
        let files = Files::new(&ca);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tls(&files, "UpstreamTlsContext", SIDECAR);
        let envoy = Envoy::start(&files, None, listener.local_addr().unwrap(), Some(client)).await;
        let far = envoy.dial().await;
        let (_handles, application) = inbound(&ca, &listener).await;
        tokio::join!(echo(application), hear_the_echo(far));
    })
    .await;
}

#[tokio::test]
async fn envoy_is_dialled_and_every_byte_and_both_ends_arrive() {
    run(async {
        let ca = Ca::new("root");
        let files = Files::new(&ca);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = tls(&files, "DownstreamTlsContext", SIDECAR);
        let envoy = Envoy::start(&files, Some(server), listener.local_addr().unwrap(), None).await;
        // It dials the application for this one too.
        drop(envoy.dial().await);
        let (_handles, application) = outbound(&ca, envoy.address).await;
        let applications = async {
            loop {
                let (far, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(echo(far));
            }
        };
        tokio::select! {
            () = applications => {}
            () = hear_the_echo(application) => {}
        }
    })
    .await;
}
