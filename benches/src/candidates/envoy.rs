//! Envoy with the filter chains that Istio gives a sidecar for opaque TCP: original destinations both ways, mutual TLS
//! between the sidecars with Istio's ALPN, and the inbound side dialling the application from 127.0.0.6.
//!
//! What Istio's own build adds on top, its metadata exchange and its statistics, is not in Envoy and costs nothing here.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use ringmail_lab::network::Pod;
use ringmail_lab::sidecar::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT};
use serde_json::{Value, json};

use super::certificates::{Authority, Identity, Naming, SPIFFE_ID};
use super::start::{Ground, Started};

/// Istio's own, which tell its connections from an application's TLS.
const ALPN: [&str; 2] = ["istio-peer-exchange", "istio"];

/// Istio lifts Envoy's limits of 1024 for each cluster, to this.
const UNLIMITED: u32 = u32::MAX;

/// Where Istio's inbound side dials the application from, so that its rules know it.
const INBOUND_SOURCE: &str = "127.0.0.6";

/// What every identity of the mesh begins with.
const MESH: &str = "spiffe://cluster.local/";

/// How handshakes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshakes {
    /// By X25519, and no session is resumed.
    FullX25519,
    /// As Envoy does by itself.
    Defaults,
}

/// The files of a pod's identity, which Envoy's user must be able to read.
#[derive(Clone, Debug)]
pub struct Files {
    /// The root, PEM.
    pub root: PathBuf,
    /// The leaf, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The identity that the other side must show.
    pub peer: String,
}

impl From<&Identity> for Files {
    fn from(identity: &Identity) -> Self {
        Self {
            root: identity.root.clone(),
            certificate: identity.certificate.clone(),
            key: identity.key.clone(),
            peer: SPIFFE_ID.to_owned(),
        }
    }
}

pub(super) fn start(ground: &Ground<'_>, handshakes: Handshakes) -> Result<Started> {
    ground.capture(&[])?;
    let authority = Authority::new()?;
    let mut started = Started::default();
    for pod in ground.pods()? {
        let identity = authority.issue(&ground.folder.join(pod.name()), Naming::Spiffe)?;
        let file = ground.folder.join(format!("envoy-{}.json", pod.name()));
        let text = config(pod, &Files::from(&identity), handshakes).to_string();
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let mut command = Command::new(ground.program()?);
        command.arg("-c").arg(&file).args(["--concurrency", &ground.setup.workers.to_string()]);
        command.args(["--disable-hot-restart", "--log-level", "error"]);
        started.proxy(ground, pod, command)?;
    }
    Ok(started)
}

/// The whole configuration of one pod's Envoy, in JSON: both listeners and both clusters, as every sidecar has them.
pub fn config(pod: &Pod, files: &Files, handshakes: Handshakes) -> Value {
    json!({
        "node": { "id": pod.name(), "cluster": "bench" },
        "admin": { "address": address("127.0.0.1", ADMIN_PORT) },
        "static_resources": {
            "listeners": [outbound_listener(), inbound_listener(files, handshakes)],
            "clusters": [outbound_cluster(files, handshakes), inbound_cluster()],
        },
    })
}

fn outbound_listener() -> Value {
    json!({
        "name": "virtualOutbound",
        "traffic_direction": "OUTBOUND",
        "address": address("0.0.0.0", OUTBOUND_PORT),
        "listener_filters": [original_destination()],
        "filter_chains": [{ "filters": [tcp_proxy("outbound")] }],
    })
}

fn inbound_listener(files: &Files, handshakes: Handshakes) -> Value {
    json!({
        "name": "virtualInbound",
        "traffic_direction": "INBOUND",
        "address": address("0.0.0.0", INBOUND_PORT),
        "listener_filters": [
            original_destination(),
            {
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": typed("extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({})),
            },
        ],
        "filter_chains": [{
            "filter_chain_match": { "transport_protocol": "tls", "application_protocols": ALPN },
            "transport_socket": downstream_tls(files, handshakes),
            "filters": [tcp_proxy("inbound")],
        }],
    })
}

fn outbound_cluster(files: &Files, handshakes: Handshakes) -> Value {
    let mut cluster = original_destination_cluster("outbound");
    cluster["transport_socket"] = upstream_tls(files, handshakes);
    cluster
}

fn inbound_cluster() -> Value {
    let mut cluster = original_destination_cluster("inbound");
    cluster["upstream_bind_config"] =
        json!({ "source_address": { "address": INBOUND_SOURCE, "port_value": 0 } });
    cluster
}

fn downstream_tls(files: &Files, handshakes: Handshakes) -> Value {
    let mut context = json!({
        "common_tls_context": common_tls(files, handshakes, &json!({ "prefix": MESH })),
        "require_client_certificate": true,
    });
    if handshakes == Handshakes::FullX25519 {
        context["disable_stateless_session_resumption"] = true.into();
        context["disable_stateful_session_resumption"] = true.into();
    }
    tls_socket("DownstreamTlsContext", context)
}

fn upstream_tls(files: &Files, handshakes: Handshakes) -> Value {
    let mut context = json!({
        "common_tls_context": common_tls(files, handshakes, &json!({ "exact": files.peer })),
        "sni": "outbound_.7201_._.bench.ignite.svc.cluster.local",
    });
    if handshakes == Handshakes::FullX25519 {
        context["max_session_keys"] = 0.into();
    }
    tls_socket("UpstreamTlsContext", context)
}

fn common_tls(files: &Files, handshakes: Handshakes, peer: &Value) -> Value {
    let mut parameters =
        json!({ "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" });
    if handshakes == Handshakes::FullX25519 {
        parameters["ecdh_curves"] = json!(["X25519"]);
    }
    json!({
        "tls_params": parameters,
        "alpn_protocols": ALPN,
        "tls_certificates": [{
            "certificate_chain": { "filename": files.certificate },
            "private_key": { "filename": files.key },
        }],
        "validation_context": {
            "trusted_ca": { "filename": files.root },
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": peer }],
        },
    })
}

fn tls_socket(context: &str, value: Value) -> Value {
    let name = format!("extensions.transport_sockets.tls.v3.{context}");
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": typed(&name, value) })
}

fn original_destination_cluster(name: &str) -> Value {
    let limits = json!({
        "max_connections": UNLIMITED,
        "max_pending_requests": UNLIMITED,
        "max_requests": UNLIMITED,
        "max_retries": UNLIMITED,
    });
    json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
        "circuit_breakers": { "thresholds": [limits] },
    })
}

fn original_destination() -> Value {
    json!({
        "name": "envoy.filters.listener.original_dst",
        "typed_config": typed("extensions.filters.listener.original_dst.v3.OriginalDst", json!({})),
    })
}

fn tcp_proxy(cluster: &str) -> Value {
    let value = json!({ "stat_prefix": cluster, "cluster": cluster });
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": typed("extensions.filters.network.tcp_proxy.v3.TcpProxy", value),
    })
}

fn typed(name: &str, mut value: Value) -> Value {
    value["@type"] = format!("type.googleapis.com/envoy.{name}").into();
    value
}

fn address(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_handshakes_are_told_on_both_sides() {
        let files = Files {
            root: "/root.pem".into(),
            certificate: "/leaf.pem".into(),
            key: "/key.pem".into(),
            peer: SPIFFE_ID.to_owned(),
        };
        let full = (
            downstream_tls(&files, Handshakes::FullX25519)["typed_config"].clone(),
            upstream_tls(&files, Handshakes::FullX25519)["typed_config"].clone(),
        );
        assert_eq!(full.0["disable_stateless_session_resumption"], true);
        assert_eq!(full.1["max_session_keys"], 0);
        for context in [&full.0, &full.1] {
            assert_eq!(context["common_tls_context"]["tls_params"]["ecdh_curves"], json!(["X25519"]));
        }
        let own = upstream_tls(&files, Handshakes::Defaults)["typed_config"].clone();
        assert!(own.get("max_session_keys").is_none(), "{own}");
        let matcher = &full.1["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"][0];
        assert_eq!(matcher["matcher"]["exact"], SPIFFE_ID);
    }
}
