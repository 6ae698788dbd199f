//! Settings of discovery.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use ringmail_ca::door::Deadlines;
use ringmail_identity::TrustDomain;
use serde::Deserialize;

use super::serving::ServingSource;

/// Streams of one replica: twice of what a replica is meant for, so that one can carry all when the other is away.
const MAX_STREAMS: usize = 4096;
/// Connections from one address: a pod needs one, and for a moment two; but some networks show all pods of a node under
/// the node's address.
const MAX_CONNECTIONS_PER_SOURCE: usize = 512;
/// A connection is there for its stream: nothing comes of one that has none.
const DEADLINES: Deadlines = Deadlines {
    handshake: Duration::from_secs(10),
    idle: Duration::from_secs(60),
    grace: Duration::from_secs(2),
};
/// Tokens end; a stream must not outlive by much what proved its right. A client comes back without anybody noticing.
const STREAM_LIFETIME: Duration = Duration::from_mins(30);
/// A client that takes nothing for this long is not there any more, or ill. It comes back to a stream of its own.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// The part of the mesh's settings that is about discovery, as it stands in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DiscoveryConfig {
    /// Where proxies connect.
    pub listen: SocketAddr,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// Its other names.
    pub trust_domain_aliases: Vec<String>,
    /// The namespace of mesh-wide policies.
    pub root_namespace: String,
    /// Addresses of the cluster, beside those that nodes and ServiceCIDRs tell.
    pub mesh_ranges: Vec<IpNet>,
    /// The cluster's name.
    pub cluster: String,
    /// Audiences of proxies' tokens; any of them.
    pub audiences: Vec<String>,
    /// Streams at once.
    pub max_streams: usize,
    /// Connections at once from one address.
    pub max_connections_per_source: usize,
    /// `host:port` of the CA that signs the serving certificate.
    pub ca_address: String,
    /// PEM of the roots under which the CA is verified.
    pub ca_roots: PathBuf,
    /// The own token for the CA.
    pub ca_token: PathBuf,
    /// PEM of a serving certificate, in place of the CA's; with `serving_key`.
    pub serving_certificate: Option<PathBuf>,
    /// PEM of its key.
    pub serving_key: Option<PathBuf>,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0; 16], 15012)),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".to_owned(),
            mesh_ranges: Vec::new(),
            cluster: "Kubernetes".to_owned(),
            audiences: vec!["ringmail-ca".to_owned(), "istio-ca".to_owned()],
            max_streams: MAX_STREAMS,
            max_connections_per_source: MAX_CONNECTIONS_PER_SOURCE,
            ca_address: "ringmail-ca.ringmail-system.svc:15012".to_owned(),
            ca_roots: "/var/run/secrets/ringmail/root-cert.pem".into(),
            ca_token: "/var/run/secrets/tokens/ringmail-token".into(),
            serving_certificate: None,
            serving_key: None,
        }
    }
}

/// Why a setting cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: expected {expected}, got {got:?}")]
pub struct ConfigError {
    setting: &'static str,
    expected: &'static str,
    got: String,
}

/// Settings that can be used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where proxies connect.
    pub listen: SocketAddr,
    /// What decisions depend on.
    pub policy: ringmail_policy::Settings,
    /// The cluster's name.
    pub cluster: String,
    /// Audiences of proxies' tokens.
    pub audiences: Vec<String>,
    /// Streams at once.
    pub max_streams: usize,
    /// Connections at once from one address.
    pub max_connections_per_source: usize,
    /// How long a connection may take for its handshake, and without a stream.
    pub deadlines: Deadlines,
    /// How long a stream lives, about.
    pub stream_lifetime: Duration,
    /// How long a client may take nothing while there is something for it.
    pub read_deadline: Duration,
    /// Where the serving certificate comes from.
    pub serving: ServingSource,
    /// The own namespace, where the Lease is.
    pub namespace: String,
    /// The own name among the replicas: the pod's.
    pub identity: String,
}

impl DiscoveryConfig {
    /// The settings of the replica `identity` in `namespace`.
    ///
    /// # Errors
    /// [`ConfigError`] with the first setting that cannot be used.
    pub fn settings(self, namespace: &str, identity: &str) -> Result<Settings, ConfigError> {
        let domain = |setting, text: &str| -> Result<TrustDomain, ConfigError> {
            let error = |_| ConfigError { setting, expected: "a trust domain", got: text.to_owned() };
            text.parse().map_err(error)
        };
        let mut policy = ringmail_policy::Settings::new(domain("trustDomain", &self.trust_domain)?);
        let aliases = self.trust_domain_aliases.iter().map(|text| domain("trustDomainAliases", text));
        policy.trust_domain_aliases = aliases.collect::<Result<_, _>>()?;
        policy.root_namespace = self.root_namespace;
        policy.mesh_ranges = self.mesh_ranges;
        let serving = match (self.serving_certificate, self.serving_key) {
            (Some(certificate), Some(key)) => ServingSource::Files { certificate, key },
            (None, None) => {
                ServingSource::Ca { address: self.ca_address, roots: self.ca_roots, token: self.ca_token }
            }
            (certificate, key) => {
                let got = format!("{certificate:?} and {key:?}");
                let (setting, expected) = ("servingCertificate", "both it and servingKey, or neither");
                return Err(ConfigError { setting, expected, got });
            }
        };
        Ok(Settings {
            listen: self.listen,
            policy,
            cluster: self.cluster,
            audiences: self.audiences,
            max_streams: self.max_streams,
            max_connections_per_source: self.max_connections_per_source,
            deadlines: DEADLINES,
            stream_lifetime: STREAM_LIFETIME,
            read_deadline: READ_DEADLINE,
            serving,
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
        })
    }
}
