//! WorkloadEntry: which workload answers at an address, under which identity, and whether it has a sidecar.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use ringmail_identity::{SpiffeId, TrustDomain};

use crate::left_alone::{LeftAlone, SIDECAR_PORTS};
use crate::parse::{Document, Field};
use crate::report::Report;
use crate::resource::{Labels, Meta};
use crate::settings::Settings;

/// The suffix of the host names that DestinationRules name services by: Kubernetes' default cluster domain.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";
/// The service account of a workload that names none, as in Kubernetes.
pub(crate) const DEFAULT_SERVICE_ACCOUNT: &str = "default";
/// The canonical revision of a workload that names none, as in Istio's metrics.
pub(crate) const DEFAULT_REVISION: &str = "latest";
/// The label that says a workload has a sidecar, and its value.
const TLS_MODE: (&str, &str) = ("security.istio.io/tlsMode", "istio");
const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
const CANONICAL_NAMES: [&str; 3] = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
const CANONICAL_REVISIONS: [&str; 3] =
    ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
const NETWORK: &str = "topology.istio.io/network";
const CLUSTER: &str = "topology.istio.io/cluster";

/// What is known about the workload at an address: what metrics label a connection with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    /// What tells it from every other, `<cluster>/<group>/<kind>/<namespace>/<name>`; the group is empty for a pod.
    pub uid: String,
    /// The name of the pod or the WorkloadEntry.
    pub name: String,
    /// The namespace.
    pub namespace: String,
    /// The workload's name in metrics: the label `service.istio.io/workload-name`, else the entry's name.
    pub workload_name: String,
    /// The service account.
    pub service_account: String,
    /// The identity it must present, under the mesh's own trust domain.
    pub identity: SpiffeId,
    /// Labels of the entry's `spec` and metadata; where both set one, the metadata's holds.
    pub labels: Labels,
    /// The addresses it answers at.
    pub addresses: Vec<IpAddr>,
    /// Label `service.istio.io/canonical-name`, else `app.kubernetes.io/name`, else `app`, else the
    /// workload's name.
    pub canonical_service: String,
    /// Label `service.istio.io/canonical-revision`, else `app.kubernetes.io/version`, else `version`, else
    /// `latest`.
    pub canonical_revision: String,
    /// The label `app`.
    pub app: Option<String>,
    /// The label `version`.
    pub version: Option<String>,
    /// `spec.network`, else the label `topology.istio.io/network`.
    pub network: Option<String>,
    /// The label `topology.istio.io/cluster`.
    pub cluster: Option<String>,
    /// `spec.locality`, as `region/zone/subzone`.
    pub locality: Option<String>,
    /// Whether it has a sidecar: label `security.istio.io/tlsMode: istio`.
    pub in_mesh: bool,
    /// The ports of the Services it is an endpoint of; of two for one port the first counts.
    pub services: Vec<ServicePort>,
    /// Ports that its sidecar leaves alone beside its own; see [`leaves_alone`](Self::leaves_alone).
    pub left_alone: LeftAlone,
}

/// A port of a Service, as one workload serves it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServicePort {
    /// The Service's host name, `<name>.<namespace>.svc.<cluster domain>`.
    pub host: String,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's port.
    pub port: u16,
    /// The workload's port.
    pub target_port: u16,
}

impl Workload {
    /// The host name of the Service that has `port` as the workload's port or, when none has, as its own; without
    /// one, that of the service that the workload is counted to.
    pub fn service_host(&self, port: u16) -> Cow<'_, str> {
        let by = |of: fn(&ServicePort) -> u16| self.services.iter().find(move |service| of(service) == port);
        let service = by(|service| service.target_port).or_else(|| by(|service| service.port));
        service.map_or_else(|| self.canonical_host().into(), |service| service.host.as_str().into())
    }

    /// Whether the workload has a sidecar, and this does not capture connections to `port`: it is the sidecar's own,
    /// or the capture was told to leave it out.
    pub fn leaves_alone(&self, port: u16) -> bool {
        self.has_sidecars_own(port) || self.in_mesh && self.left_alone.contains(port)
    }

    /// Whether `port` is one where the sidecar itself listens.
    pub(crate) fn has_sidecars_own(&self, port: u16) -> bool {
        self.in_mesh && SIDECAR_PORTS.contains(&port)
    }

    /// The identity under each of the mesh's names; nothing when one has no valid form.
    pub(crate) fn identities(&self, settings: &Settings) -> Option<Vec<SpiffeId>> {
        let under =
            |domain| SpiffeId::for_service_account(domain, &self.namespace, &self.service_account).ok();
        settings.trust_domains().map(under).collect()
    }

    /// `<canonical service>.<namespace>.svc.cluster.local`, whether there is such a Service or not.
    pub fn canonical_host(&self) -> String {
        format!("{}.{}.svc.{CLUSTER_DOMAIN}", self.canonical_service, self.namespace)
    }
}

/// A parsed entry.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadEntry {
    pub(crate) meta: Meta,
    pub(crate) address: IpAddr,
    pub(crate) labels: Labels,
    service_account: String,
    network: Option<String>,
    locality: Option<String>,
}

const SPEC_FIELDS: &str = "address, labels, serviceAccount, network, locality, ports or weight";

impl WorkloadEntry {
    /// Nothing after a fault and for an entry without an IP address, which is reported.
    pub(crate) fn parse(document: &mut Document, meta: Meta, spec: &Field<'_>) -> Option<Self> {
        let mut address = None;
        let mut labels = Labels::new();
        let mut service_account = DEFAULT_SERVICE_ACCOUNT.to_owned();
        let (mut network, mut locality) = (None, None);
        for (key, field) in spec.entries(document) {
            match key {
                "address" => address = field.text(document).map(|text| (field, text)),
                "labels" => labels = field.labels(document),
                "serviceAccount" => {
                    if let Some(text) = field.text(document).filter(|text| !text.is_empty()) {
                        text.clone_into(&mut service_account);
                        check_identity(document, &field, &meta, text);
                    }
                }
                "network" => network = field.text(document).map(str::to_owned),
                "locality" => locality = field.text(document).map(str::to_owned),
                "ports" | "weight" => {
                    let text = format!("{key} has no effect: connections are not balanced or renumbered");
                    document.report(&meta, &field, text);
                }
                _ => document.unknown(&field, SPEC_FIELDS),
            }
        }
        check_identity(document, spec, &meta, DEFAULT_SERVICE_ACCOUNT);
        let address = ip_address(document, spec, &meta, address)?;
        labels.extend(meta.labels.clone());
        if spec.get("serviceAccount").is_some() && !labels.contains_key(TLS_MODE.0) {
            let text = format!(
                "outside the mesh: a serviceAccount alone, without the label {}, is no sidecar",
                TLS_MODE.0
            );
            document.report(&meta, spec, text);
        }
        Some(Self { meta, address, labels, service_account, network, locality })
    }

    /// The workload as it is under `trust_domain`; nothing when its identity has no valid form there.
    pub(crate) fn workload(&self, trust_domain: &TrustDomain) -> Option<Workload> {
        let meta = &self.meta;
        let cluster = self.labels.get(CLUSTER).cloned();
        let of = cluster.as_deref().unwrap_or_default();
        let facts = Facts {
            uid: format!("{of}/{}/{}/{}/{}", meta.kind.group(), meta.kind, meta.namespace, meta.name),
            name: meta.name.to_string(),
            namespace: meta.namespace.to_string(),
            owner: None,
            service_account: self.service_account.clone(),
            labels: self.labels.clone(),
            addresses: vec![self.address],
            network: self.network.clone(),
            cluster,
            locality: self.locality.clone(),
            services: Vec::new(),
            // An entry does not say how its sidecar captures.
            left_alone: LeftAlone::default(),
        };
        facts.workload(trust_domain)
    }
}

/// What is known of a pod or an entry before anything is derived from it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// See [`Workload::uid`].
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The name of the StatefulSet, Deployment or Job it belongs to.
    pub owner: Option<String>,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: Labels,
    /// The addresses it answers at.
    pub addresses: Vec<IpAddr>,
    /// Its network; else the label `topology.istio.io/network` says it.
    pub network: Option<String>,
    /// The name of its cluster.
    pub cluster: Option<String>,
    /// Where it runs, `region/zone/subzone`.
    pub locality: Option<String>,
    /// The Services it is an endpoint of.
    pub services: Vec<ServicePort>,
    /// See [`Workload::left_alone`]. Only what was made of the workload itself may say it: whoever could add to it
    /// would have others speak plaintext to the workload.
    pub left_alone: LeftAlone,
}

impl Facts {
    /// The workload as it is under `trust_domain`; nothing when its identity has no valid form there.
    pub fn workload(self, trust_domain: &TrustDomain) -> Option<Workload> {
        let label = |key: &str| self.labels.get(key).filter(|value| !value.is_empty()).cloned();
        let first = |keys: [&str; 3]| keys.into_iter().find_map(label);
        let workload_name = label(WORKLOAD_NAME).or(self.owner).unwrap_or_else(|| self.name.clone());
        Some(Workload {
            identity: SpiffeId::for_service_account(trust_domain, &self.namespace, &self.service_account)
                .ok()?,
            canonical_service: first(CANONICAL_NAMES).unwrap_or_else(|| workload_name.clone()),
            canonical_revision: first(CANONICAL_REVISIONS).unwrap_or_else(|| DEFAULT_REVISION.to_owned()),
            app: label("app"),
            version: label("version"),
            network: self.network.or_else(|| label(NETWORK)),
            cluster: self.cluster,
            locality: self.locality,
            in_mesh: in_mesh(&self.labels),
            uid: self.uid,
            name: self.name,
            namespace: self.namespace,
            service_account: self.service_account,
            addresses: self.addresses,
            services: self.services,
            left_alone: self.left_alone,
            labels: self.labels,
            workload_name,
        })
    }
}

/// Whether the labels of a pod or an entry say that it has a sidecar.
pub fn in_mesh(labels: &Labels) -> bool {
    labels.get(TLS_MODE.0).is_some_and(|value| value == TLS_MODE.1)
}

/// A namespace or service account that no identity can carry is a fault of the text, not of a connection.
fn check_identity(document: &mut Document, field: &Field<'_>, meta: &Meta, service_account: &str) {
    let Ok(trust_domain) = CLUSTER_DOMAIN.parse::<TrustDomain>() else { return };
    if let Err(error) = SpiffeId::for_service_account(&trust_domain, &meta.namespace, service_account) {
        document.fault(
            field,
            "a namespace and service account that an identity can carry",
            error.to_string(),
        );
    }
}

fn ip_address(
    document: &mut Document,
    spec: &Field<'_>,
    meta: &Meta,
    read: Option<(Field<'_>, &str)>,
) -> Option<IpAddr> {
    let Some((field, text)) = read.filter(|(_, text)| !text.is_empty()) else {
        document.report(meta, spec, "ignored: it has no address");
        return None;
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let name =
        text.starts_with("unix://") || text.chars().any(|c| c.is_ascii_alphabetic() && !text.contains(':'));
    if name {
        document.report(
            meta,
            &field,
            format!("ignored: {text:?} is no IP address, and no name is looked up"),
        );
    } else {
        document.fault(&field, "an IP address", format!("{text:?}"));
    }
    None
}

/// The entry that holds for each address, and reports of those that do not. `entries` must be ordered from the
/// oldest to the youngest: an address belongs to whoever got it last.
pub(crate) fn by_address(entries: &[WorkloadEntry]) -> (HashMap<IpAddr, &WorkloadEntry>, Vec<Report>) {
    let mut holders = HashMap::new();
    let mut reports = Vec::new();
    for entry in entries {
        if let Some(replaced) = holders.insert(entry.address, entry) {
            let (address, winner) = (entry.address, entry.meta.origin(""));
            let text = format!("shadowed: {winner} is younger and has the same address {address}");
            reports.push(replaced.meta.report(text));
        }
    }
    (holders, reports)
}
