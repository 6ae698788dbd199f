//! What is known of the cluster, and what follows from it for one client. Pure: changes in, answers out.
//!
//! A change is worked off down to the addresses and pods whose answers may differ now; what a client is told is made
//! only when somebody asks, once for each version of it.

mod encoded;
mod known;
mod pod;
mod policies;
mod service;
mod settle;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use kube::ResourceExt;
use ringmail_policy::{ClientClass, Inbound, Pod, Resources, Settings};
use ringmail_xds::{
    ringmail::{Mesh, Versioned},
    security::Authorization,
    workload::WorkloadType,
};

pub(crate) use encoded::{Encoded, Version};
use known::{Holders, Member};
pub(super) use known::{Known, ServiceState, WorkloadKey};
pub(crate) use pod::{NodeInfo, PodInfo};
pub(crate) use policies::{Notice, Policies, PolicyKey, PolicyObject};
pub(crate) use service::{ServiceInfo, SliceInfo};

/// Namespace and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct ObjectKey {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl ObjectKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of(object: &impl kube::Resource) -> Self {
        Self::new(&object.namespace().unwrap_or_default(), &object.name_any())
    }
}

/// Who came later, of two: by the time of creation (of a pod: of its start), then by UID.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Age {
    seconds: i64,
    uid: String,
}

impl Age {
    pub(crate) fn of(object: &impl kube::Resource) -> Self {
        let seconds = object.creation_timestamp().map(|created| created.0.as_second()).unwrap_or_default();
        Self { seconds, uid: object.uid().unwrap_or_default() }
    }
}

/// One change of the cluster; nothing in place of an object means that it is gone.
#[derive(Clone, Debug)]
pub(crate) enum Update {
    Node(Arc<str>, Option<NodeInfo>),
    Pod(ObjectKey, Option<PodInfo>),
    Policy(PolicyKey, Option<PolicyObject>),
    /// A range of Service addresses.
    Range(Arc<str>, Option<Vec<IpNet>>),
    Service(ObjectKey, Option<ServiceInfo>),
    Slice(ObjectKey, Option<SliceInfo>),
}

/// Whose answers may differ now.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) addresses: HashSet<IpAddr>,
    pub(crate) pods: HashSet<ObjectKey>,
    pub(crate) all_pods: bool,
}

/// How many of each are held, for the metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sizes {
    pub(crate) pods: usize,
    pub(crate) workloads: usize,
    pub(crate) services: usize,
    pub(crate) slices: usize,
    pub(crate) policies: usize,
}

/// A resource and its name.
pub(crate) type Answer = (Arc<str>, Arc<Encoded>);

/// Everything about connections to one pod.
pub(crate) struct OwnPolicies {
    pub(crate) inbound: Arc<Encoded>,
    pub(crate) authorizations: Vec<Answer>,
}

/// The cluster; see the module.
pub(crate) struct World {
    pub(super) settings: Settings,
    cluster: String,
    pods: HashMap<ObjectKey, PodInfo>,
    nodes: HashMap<Arc<str>, NodeInfo>,
    ranges: HashMap<Arc<str>, Vec<IpNet>>,
    pub(super) mesh: Vec<IpNet>,
    pub(super) policies: Policies,
    /// Of `policies`, as one set.
    pub(super) resources: Resources,
    holders: Holders,
    pub(super) services: HashMap<ObjectKey, ServiceState>,
    service_at: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    pub(super) slices: HashMap<ObjectKey, SliceInfo>,
    pub(super) slices_of: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Services of endpoints that are known by their address alone.
    services_by_endpoint: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    endpoints_of: HashMap<ObjectKey, BTreeSet<IpAddr>>,
    /// Services whose slices name a pod, known or not.
    services_by_pod: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    endpoint_pods_of: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    services_of: HashMap<WorkloadKey, BTreeSet<ObjectKey>>,
    pub(super) known: HashMap<WorkloadKey, Known>,
}

impl World {
    /// An empty cluster of this name.
    pub(crate) fn new(settings: Settings, cluster: String) -> Self {
        let mesh = IpNet::aggregate(&settings.mesh_ranges);
        Self {
            settings,
            cluster,
            pods: HashMap::new(),
            nodes: HashMap::new(),
            ranges: HashMap::new(),
            mesh,
            policies: Policies::default(),
            resources: Resources::default(),
            holders: Holders::default(),
            services: HashMap::new(),
            service_at: HashMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            services_by_endpoint: HashMap::new(),
            endpoints_of: HashMap::new(),
            services_by_pod: HashMap::new(),
            endpoint_pods_of: HashMap::new(),
            services_of: HashMap::new(),
            known: HashMap::new(),
        }
    }

    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            pods: self.pods.len(),
            workloads: self.known.len(),
            services: self.services.len(),
            slices: self.slices.len(),
            policies: self.policies.len(),
        }
    }

    /// The labels of the pod of this name and UID.
    pub(crate) fn pod(&self, key: &ObjectKey, uid: &str) -> Option<Pod> {
        let info = self.pods.get(key).filter(|info| info.uid == uid)?;
        Some(Pod {
            namespace: key.namespace.to_string(),
            labels: info.labels.clone(),
            service_account: info.service_account.clone(),
            addresses: info.addresses.clone(),
        })
    }

    /// Who answers at `address`: a workload, or a Service and behind it the workloads that it stands for. Nothing:
    /// nobody.
    pub(crate) fn addresses(&self, address: IpAddr) -> Vec<Answer> {
        if let Some(known) = self.holder(address) {
            return vec![(Arc::clone(&known.name), Arc::clone(&known.encoded))];
        }
        let Some(service) = self.service_at(address) else { return Vec::new() };
        let mut answers = vec![(Arc::clone(&service.name), Arc::clone(&service.encoded))];
        let behind = service.members.keys().filter_map(|key| self.known.get(key));
        answers.extend(behind.map(|known| (Arc::clone(&known.name), Arc::clone(&known.encoded))));
        answers
    }

    /// What `client` speaks to whom [`addresses`](Self::addresses) names, by the addresses that it would dial.
    pub(crate) fn destinations(&self, address: IpAddr, client: Option<&Pod>) -> Vec<Answer> {
        let of = |known: &Known, name: &Arc<str>| {
            Some((Arc::clone(name), known.told_to(client, &self.resources, &self.settings)?))
        };
        if let Some(known) = self.holder(address) {
            return known.name_of(address).and_then(|name| of(known, name)).into_iter().collect();
        }
        let Some(service) = self.service_at(address) else { return Vec::new() };
        let behind = service.members.keys().filter_map(|key| self.known.get(key));
        behind.filter_map(|known| of(known, known.name_like(address)?)).collect()
    }

    /// Clients of one class are told the same.
    pub(crate) fn class(&self, client: &Pod) -> ClientClass {
        self.resources.client_class(client)
    }

    pub(super) fn holder(&self, address: IpAddr) -> Option<&Known> {
        self.known.get(self.holders.of(address)?)
    }

    pub(super) fn service_at(&self, address: IpAddr) -> Option<&ServiceState> {
        let services = self.service_at.get(&address)?;
        services.iter().filter_map(|key| self.services.get(key)).max_by(|a, b| a.info.age.cmp(&b.info.age))
    }

    /// What holds for connections to a pod; nothing while there is no such pod.
    pub(crate) fn own_policies(&self, key: &ObjectKey, uid: &str) -> Option<OwnPolicies> {
        let pod = self.pod(key, uid)?;
        let mut inbound = Inbound::compile(&self.resources, &self.settings, &pod);
        if let Some(known) = self.known.get(&WorkloadKey::Pod(key.clone())) {
            inbound = inbound.known_as(&known.workload, &self.resources, &self.settings);
        }
        let (mut inbound, policies) = inbound.to_wire();
        let named = |policy: Authorization| -> Answer {
            let encoded = Encoded::new(&policy);
            (format!("{}/{}", policy.namespace, policy.name).into(), encoded)
        };
        let authorizations: Vec<Answer> = policies.into_iter().map(named).collect();
        inbound.namespace = key.namespace.to_string();
        inbound.pod = key.name.to_string();
        inbound.authorizations = authorizations
            .iter()
            .map(|(name, encoded)| Versioned { name: name.to_string(), version: encoded.version.to_string() })
            .collect();
        inbound.mesh = Some(Mesh { ranges: self.mesh.iter().map(ToString::to_string).collect() });
        Some(OwnPolicies { inbound: Encoded::new(&inbound), authorizations })
    }

    fn locality(&self, pod: &PodInfo) -> Option<String> {
        self.nodes.get(pod.node.as_ref()?)?.locality.clone()
    }
}

/// What kind of workload `workload_name` is.
fn kind_of(pod: Option<&PodInfo>) -> WorkloadType {
    pod.map_or(WorkloadType::Deployment, |pod| pod.kind)
}

#[cfg(test)]
pub(super) mod tests;
