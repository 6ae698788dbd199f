//! What a decision needs to know besides the resources: the mesh it is made in and the pod it is made for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ringmail_identity::TrustDomain;

/// The namespace whose policies hold for the whole mesh unless the settings say otherwise, as in Istio.
pub(crate) const DEFAULT_ROOT_NAMESPACE: &str = "istio-system";

/// What holds for the whole mesh.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The trust domain in which identities are issued and expected.
    pub trust_domain: TrustDomain,
    /// Other names of the same trust domain: a peer that carries one of them is treated as the same peer.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// The namespace whose policies hold mesh-wide. Istio's default is `istio-system`.
    pub root_namespace: String,
    /// The cluster's own address ranges: an address inside them is never spoken to in plaintext for want of
    /// knowledge.
    pub mesh_ranges: Vec<IpNet>,
}

impl Settings {
    /// Settings with no aliases, the root namespace `istio-system` and no known address ranges.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            trust_domain_aliases: Vec::new(),
            root_namespace: DEFAULT_ROOT_NAMESPACE.to_owned(),
            mesh_ranges: Vec::new(),
        }
    }

    /// The trust domain followed by its aliases.
    pub(crate) fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        std::iter::once(&self.trust_domain).chain(&self.trust_domain_aliases)
    }
}

/// The pod a sidecar serves: what selectors and scopes are matched against.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// The pod's service account.
    pub service_account: String,
    /// The pod's own addresses.
    pub addresses: Vec<IpAddr>,
}
