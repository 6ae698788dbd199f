//! Workloads and services as they are known, and what has been made of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ringmail_policy::{Client, ClientClass, Origin, Pod, Resources, ServicePort, Settings, Workload};
use ringmail_xds::{
    Resource,
    ringmail::{EXTENSION, Membership, Memberships},
    workload::{self, Extension, WorkloadStatus},
};

use super::{Age, Encoded, ObjectKey, ServiceInfo};

/// A pod, or a WorkloadEntry.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(in super::super) enum WorkloadKey {
    Entry(ObjectKey),
    Pod(ObjectKey),
}

/// A workload that holds at least one address.
#[derive(Debug)]
pub(in super::super) struct Known {
    /// Its resource's name: its UID in the mesh.
    pub(super) name: Arc<str>,
    pub(in super::super) workload: Arc<Workload>,
    pub(in super::super) entry: Origin,
    pub(super) encoded: Arc<Encoded>,
    /// Each with the name that it is asked for by.
    pub(in super::super) addresses: Vec<(IpAddr, Arc<str>)>,
    /// What clients of a class are told of it.
    told: Mutex<BTreeMap<ClientClass, Arc<Encoded>>>,
}

impl Known {
    pub(super) fn new(workload: Workload, entry: Origin, encoded: Arc<Encoded>) -> Self {
        let named = |address: &IpAddr| (*address, ringmail_xds::address_name(*address).into());
        Self {
            name: workload.uid.as_str().into(),
            addresses: workload.addresses.iter().map(named).collect(),
            workload: Arc::new(workload),
            entry,
            encoded,
            told: Mutex::default(),
        }
    }

    pub(super) fn name_of(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.addresses.iter().find(|(own, _)| *own == address).map(|(_, name)| name)
    }

    /// The name of the address that stands for the workload behind a Service's `address`: the first of its family.
    pub(super) fn name_like(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.addresses.iter().find(|(own, _)| own.is_ipv4() == address.is_ipv4()).map(|(_, name)| name)
    }

    /// What `client` is told of it, made once for all clients of its class. Nothing where its identity has no valid
    /// form.
    pub(super) fn told_to(
        &self,
        client: Option<&Pod>,
        resources: &Resources,
        settings: &Settings,
    ) -> Option<Arc<Encoded>> {
        let class = client.map(|pod| resources.client_class(pod)).unwrap_or_default();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(encoded) = told.get(&class) {
            return Some(Arc::clone(encoded));
        }
        let pod = class.pod();
        let mut client = Client::new(resources, settings, pod.as_ref());
        let destination = client.destination(Arc::clone(&self.workload), self.entry.clone())?;
        let encoded = Encoded::new(&destination.to_wire());
        told.insert(class, Arc::clone(&encoded));
        Some(encoded)
    }

    /// Forgets what clients are told: policies have changed.
    pub(super) fn forget_told(&mut self) {
        self.told.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A Service with its endpoints.
#[derive(Debug)]
pub(in super::super) struct ServiceState {
    pub(in super::super) info: ServiceInfo,
    pub(super) name: Arc<str>,
    pub(super) encoded: Arc<Encoded>,
    pub(in super::super) members: BTreeMap<WorkloadKey, Member>,
}

/// A workload as an endpoint of one Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in super::super) struct Member {
    /// The Service's port and the workload's.
    pub(in super::super) ports: BTreeSet<(u16, u16)>,
    pub(in super::super) chosen: bool,
}

impl Member {
    pub(super) fn service_ports(&self, info: &ServiceInfo) -> Vec<ServicePort> {
        let (host, namespace) = (info.host(), info.key.namespace.to_string());
        let port = |(port, target): &(u16, u16)| ServicePort {
            host: host.clone(),
            namespace: namespace.clone(),
            port: *port,
            target_port: *target,
        };
        self.ports.iter().map(port).collect()
    }
}

/// Istio's status holds for all Services at once, and its map of them has no order: where that is not enough, an
/// extension says more. A client that does not read it chooses too few, never too many.
pub(super) fn say_memberships(message: &mut workload::Workload, memberships: &[(&ServiceState, &Member)]) {
    for (state, _) in memberships {
        // A Service without ports has endpoints too.
        message.services.entry(state.name.to_string()).or_default();
    }
    let all = memberships.iter().all(|(_, member)| member.chosen);
    message.status = if all { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy }.into();
    if memberships.len() > 1 {
        let said = |(state, member): &(&ServiceState, &Member)| Membership {
            service: state.name.to_string(),
            chosen: member.chosen,
        };
        let services = memberships.iter().map(said).collect();
        let config = Some(Memberships { services }.to_any());
        message.extensions.push(Extension { name: EXTENSION.to_owned(), config });
    }
}

/// Who has which address: the newest of all that claim it.
#[derive(Debug, Default)]
pub(super) struct Holders {
    claims: HashMap<IpAddr, Vec<(Age, WorkloadKey)>>,
}

impl Holders {
    pub(super) fn of(&self, address: IpAddr) -> Option<&WorkloadKey> {
        self.claims.get(&address)?.last().map(|(_, key)| key)
    }

    /// Everybody who claims `address`.
    pub(super) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &WorkloadKey> {
        self.claims.get(&address).into_iter().flatten().map(|(_, key)| key)
    }

    pub(super) fn claim(&mut self, address: IpAddr, age: &Age, key: &WorkloadKey) {
        let claims = self.claims.entry(address).or_default();
        claims.push((age.clone(), key.clone()));
        claims.sort();
    }

    pub(super) fn release(&mut self, address: IpAddr, key: &WorkloadKey) {
        if let Some(claims) = self.claims.get_mut(&address) {
            claims.retain(|(_, other)| other != key);
            if claims.is_empty() {
                self.claims.remove(&address);
            }
        }
    }
}
