//! The table of settings. One row is a field of [`Config`], its documentation, kind, default and
//! whether a change applies while running; everything else about settings is made from these rows.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, time::Duration};

use http::Uri;
use ipnet::IpNet;
use ringmail_identity::TrustDomain;
use rustls_pki_types::ServerName;
use serde_json::Value;

use super::{
    choice::{
        AccessLogFormat, DiscoverySource, IdentitySource, KeyExchange, LogFormat, OutboundOutside,
        RecordLayer,
    },
    derived,
    fault::Fault,
    kind::{self, Kind},
    source::{Raw, Shape, Values},
};
use crate::app_probe::Probes;

/// Where a value comes from when nobody gave one.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// From the machine or from another setting.
    Derived {
        /// From what, in words.
        text: &'static str,
        /// How.
        from: Derivation,
    },
    /// This text, parsed like any other.
    Text(&'static str),
}

/// How a default is derived.
#[derive(Clone, Copy)]
pub struct Derivation(pub(super) fn(&Values<'_>) -> Option<Raw>);

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Derivation")
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file; in upper case with the prefix, the environment variable.
    pub name: &'static str,
    /// What kind of value it has, in words.
    pub kind: &'static str,
    /// What holds when nobody says.
    pub default: Default,
    /// Whether a change of the file applies within a second, without a restart.
    pub hot: bool,
    /// What it is for.
    pub doc: &'static str,
    pub(super) shape: Shape,
    show: fn(&Config) -> Value,
}

impl Setting {
    /// The value in `config`, as it would be written.
    pub fn show(&self, config: &Config) -> Value {
        (self.show)(config)
    }
}

const HOT: bool = true;
const RESTART: bool = false;

const fn text(text: &'static str) -> Default {
    Default::Text(text)
}

const fn derived(text: &'static str, from: fn(&Values<'_>) -> Option<Raw>) -> Default {
    Default::Derived { text, from: Derivation(from) }
}

fn read<T>(name: &'static str, kind: &Kind<T>, values: &Values<'_>, faults: &mut Vec<Fault>) -> Option<T> {
    match (kind.parse)(&values.effective(name)?) {
        Ok(value) => Some(value),
        Err(wrong) => {
            let text = format!("{name}: read {wrong}, expected {}", kind.expected);
            faults.push(Fault::new(values.place(name), text));
            None
        }
    }
}

/// Above the 10 s of Ignite's failure-detection timeout, after which a ring has given up a node that it cannot
/// reach, by as much as its own clock may tick late. The node gives up the others from then on, one by one.
const FENCE_AFTER: &str = "10500ms";

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $kind:expr, $default:expr, $hot:expr;)+) => {
        /// Every setting, parsed and checked. A clone is cheap enough for a change of settings, not for
        /// a connection: share it.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        /// The table, in the order of the reference page.
        pub static SETTINGS: &[Setting] = &[$(Setting {
            name: stringify!($name),
            kind: $kind.name,
            default: $default,
            hot: $hot,
            doc: concat!($($doc),+),
            shape: $kind.shape,
            show: |config| ($kind.show)(&config.$name),
        }),+];

        impl Config {
            /// `None` only together with a fault.
            pub(super) fn read(values: &Values<'_>, faults: &mut Vec<Fault>) -> Option<Self> {
                $(let $name = read(stringify!($name), &$kind, values, faults);)+
                Some(Self { $($name: $name?),+ })
            }
        }
    };
}

settings! {
    /// The trust domain of this workload's identity and of every peer, but for `trust_domain_aliases`.
    trust_domain: TrustDomain = kind::TRUST_DOMAIN, text("cluster.local"), RESTART;
    /// The pod's namespace, a part of its identity.
    namespace: String = kind::SEGMENT, text("default"), RESTART;
    /// The pod's service account, a part of its identity.
    service_account: String = kind::SEGMENT, text("default"), RESTART;
    /// The pod's name, shown by `/config_dump`.
    pod_name: String = kind::TEXT, derived("the hostname", derived::hostname), RESTART;
    /// The workload's name in metrics: that of the StatefulSet or Deployment.
    workload: String = kind::TEXT, derived("`pod_name`", derived::pod_name), RESTART;
    /// The pod's labels, which policies select by.
    labels: BTreeMap<String, String> = kind::LABELS, text(""), RESTART;
    /// The cluster's name, told to the CA and in metrics.
    cluster: String = kind::TEXT, text("Kubernetes"), RESTART;
    /// The node the pod runs on, shown by `/config_dump`.
    node_name: String = kind::TEXT, text(""), RESTART;
    /// The pod's own addresses: inbound connections to any other are refused.
    pod_addresses: Vec<IpAddr> = kind::ADDRESSES,
        derived("those of the interfaces, without loopback and link-local", derived::addresses_of_interfaces), RESTART;
    /// Where the certificate comes from.
    identity_source: IdentitySource = kind::IDENTITY_SOURCE, text("ca"), RESTART;
    /// The CA, with `identity_source: ca`.
    ca_address: Uri = kind::SERVER_ADDRESS, text("https://ringmail-ca.ringmail-system.svc:15012"), RESTART;
    /// The name that the CA's certificate must carry.
    ca_server_name: ServerName<'static> = kind::SERVER_NAME,
        derived("the host of `ca_address`", derived::host_of_ca_address), RESTART;
    /// PEM file with the roots under which the servers of the control plane are verified, the CA and discovery; watched.
    ca_root_file: PathBuf = kind::PATH, text("/var/run/secrets/ringmail/root-cert.pem"), RESTART;
    /// The bearer token for the CA and discovery, read afresh for each request.
    token_file: PathBuf = kind::PATH, text("/var/run/secrets/tokens/ringmail-token"), RESTART;
    /// The lifetime asked of the CA; it is renewed at half of what it gives.
    certificate_ttl: Duration = kind::DURATION, text("24h"), RESTART;
    /// PEM file with the certificate chain, leaf first, with `identity_source: files`; watched.
    cert_file: PathBuf = kind::PATH, text("/var/run/secrets/spiffe.io/tls.crt"), RESTART;
    /// PEM file with the leaf's private key, with `identity_source: files`; watched.
    key_file: PathBuf = kind::PATH, text("/var/run/secrets/spiffe.io/tls.key"), RESTART;
    /// PEM file with the roots of the trust domain, with `identity_source: files`; watched.
    bundle_file: PathBuf = kind::PATH, text("/var/run/secrets/spiffe.io/ca.crt"), RESTART;
    /// Where policies and workloads come from.
    discovery: DiscoverySource = kind::DISCOVERY_SOURCE, text("files"), RESTART;
    /// The server of policies and workloads, with `discovery: control`.
    discovery_address: Uri = kind::SERVER_ADDRESS, text("https://ringmail-control.ringmail-system.svc:15012"), RESTART;
    /// The name that the certificate of that server must carry.
    discovery_server_name: ServerName<'static> = kind::SERVER_NAME,
        derived("the host of `discovery_address`", derived::host_of_discovery_address), RESTART;
    /// Directory of policies and workloads, with `discovery: files`, `*.yaml` and `*.yml`; watched.
    policy_dir: PathBuf = kind::PATH, text("/etc/ringmail/policy"), RESTART;
    /// The namespace whose policies hold for the whole mesh.
    root_namespace: String = kind::SEGMENT, text("istio-system"), RESTART;
    /// Other names of the trust domain: peers of these are accepted as well, and a policy that names one name holds for all.
    trust_domain_aliases: Vec<TrustDomain> = kind::TRUST_DOMAINS, text(""), RESTART;
    /// The cluster's own address ranges: nothing is sent in plaintext to an address in them that discovery does not know.
    mesh_ranges: Vec<IpNet> = kind::RANGES, text(""), RESTART;
    /// What happens to connections to destinations outside the mesh.
    outbound_outside: OutboundOutside = kind::OUTBOUND_OUTSIDE, text("passthrough"), RESTART;
    /// How long discovery is waited for when it does not know an address of `mesh_ranges` yet.
    unknown_wait: Duration = kind::WAIT, text("5s"), RESTART;
    /// Port that the application's captured connections are redirected to.
    outbound_port: u16 = kind::PORT, text("15001"), RESTART;
    /// Port that captured connections to the pod are redirected to.
    inbound_port: u16 = kind::PORT, text("15006"), RESTART;
    /// Port of the admin endpoints, on loopback only.
    admin_port: u16 = kind::PORT, text("15000"), RESTART;
    /// Port of `/stats/prometheus` and `/healthz/ready`.
    stats_port: u16 = kind::PORT, text("15020"), RESTART;
    /// Port of `/healthz/ready` alone.
    health_port: u16 = kind::PORT, text("15021"), RESTART;
    /// Port of `/metrics`, `/ready` and `/live`, where Linkerd has them.
    linkerd_admin_port: u16 = kind::PORT, text("4191"), RESTART;
    /// Probes and hooks of the application that the sidecar asks in the kubelet's place on `stats_port`: JSON, by path `/app-health/<container>/livez`, `readyz`, `startupz` or `/app-lifecycle/<container>/poststart`, `prestop`.
    app_probes: Probes = kind::PROBES, text(""), RESTART;
    /// Worker threads.
    workers: usize = kind::WORKERS, derived("the CPUs of the container's limit, at least 1", derived::cpus), RESTART;
    /// Connections in both directions together; further ones wait in the backlog. 0 takes as many as the container's limits of memory and of open files allow, at what each connection holds at its worst (ARCHITECTURE.md).
    max_connections: usize = kind::LIMIT_OR_DERIVED, text("0"), RESTART;
    /// Connections that one source address may hold; further ones are refused.
    max_connections_per_source: usize = kind::LIMIT, text("2048"), RESTART;
    /// Handshakes at the same time; further ones wait within their deadline.
    max_handshakes: usize = kind::LIMIT, text("256"), RESTART;
    /// Handshakes at the same time with one source address; further ones wait within their deadline.
    max_handshakes_per_source: usize = kind::LIMIT, text("64"), RESTART;
    /// Deadline of a handshake, from accept or dial on.
    handshake_timeout: Duration = kind::DURATION, text("15s"), RESTART;
    /// Deadline of a dial. The application's own must fire first.
    connect_timeout: Duration = kind::DURATION, text("15s"), RESTART;
    /// How long a silent client of a PERMISSIVE port is waited for before the application is dialled.
    permissive_wait: Duration = kind::WAIT, text("200ms"), RESTART;
    /// How long a connection may stay half closed without a byte.
    half_close_timeout: Duration = kind::DURATION, text("1h"), RESTART;
    /// How long sent data may stay unacknowledged between the sidecars. A closed window does not count. It is looked at twice a second, and a ring waits for 10 s.
    blackhole_timeout: Duration = kind::DURATION, text("9s"), RESTART;
    /// Idle time before the first keepalive probe: connections differ, the first ask after two thirds of it.
    keepalive_time: Duration = kind::KEEPALIVE, text("30s"), RESTART;
    /// Time between keepalive probes.
    keepalive_interval: Duration = kind::KEEPALIVE, text("5s"), RESTART;
    /// Unanswered keepalive probes that end a connection.
    keepalive_probes: u32 = kind::KEEPALIVE_PROBES, text("6"), RESTART;
    /// Groups that a key exchange may use, the preferred first. Peers that know none of them are refused.
    key_exchange_groups: Vec<KeyExchange> = kind::KEY_EXCHANGE, text("X25519MLKEM768,X25519,P-256"), RESTART;
    /// Who makes and opens the records of TLS: the proxy itself, or rustls's slower stream, which the first is compared with. On the wire both are the same.
    record_layer: RecordLayer = kind::RECORD_LAYER, text("own"), RESTART;
    /// Ports on which the application sees a reset, not an end, when the stream between the sidecars was cut.
    truncation_reset_ports: Vec<u16> = kind::PORTS, text(""), RESTART;
    /// Ports by which the members of a ring watch each other: Ignite's discovery. Where a connect without a word was refused behind the far sidecar, the kernel refuses further ones for a moment (docs/capture.md); the rules need the same `--ring-ports`. While the application is fenced, they stay open as long as it is in a ring (docs/fence.md). Empty for none.
    ring_ports: Vec<u16> = kind::PORTS, text("47500"), RESTART;
    /// How long connections are served after SIGTERM. Keep it below the pod's grace period.
    drain_timeout: Duration = kind::WAIT, text("25s"), RESTART;
    /// How long the application must have been cut off, while this sidecar was away or stopped, to be closed to others until it has restarted (docs/fence.md). Keep it above the ring's failure-detection timeout.
    fence_after: Duration = kind::FENCE, text(FENCE_AFTER), RESTART;
    /// Directory where the sidecar notes that it is there. It must outlive the container: an `emptyDir`, writable for the proxy's user.
    state_dir: PathBuf = kind::PATH, text("/run/ringmail"), RESTART;
    /// What is logged to stderr.
    log_level: String = kind::LOG_FILTER, text("info"), HOT;
    /// How it is logged.
    log_format: LogFormat = kind::LOG_FORMAT, text("text"), RESTART;
    /// How each closed connection is written to stdout.
    access_log: AccessLogFormat = kind::ACCESS_LOG, text("text"), HOT;
}
