//! The cluster as discovery sees it at one moment, for whoever asks once and goes.
//!
//! The same objects become the same workloads, Services and policies as in the [`World`] that proxies are told of, and
//! the answers are made by the policy crate from those. Pure, but for [`Listed::read`].

mod list;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service as KubeService},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use kube::api::DynamicObject;
use ringmail_policy::{Answer, Client, Kind, Origin, Outbound, Resources, Service, Settings, Workload};

use super::{
    watch::{self, KINDS},
    world::{
        Known, NodeInfo, ObjectKey, PodInfo, ServiceInfo, ServiceState, SliceInfo, Update, WorkloadKey, World,
    },
};
pub use list::{ListError, Listed};

/// Objects of one cluster.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Pods of all namespaces.
    pub pods: Vec<Pod>,
    /// Services of all namespaces.
    pub services: Vec<KubeService>,
    /// Their endpoints.
    pub slices: Vec<EndpointSlice>,
    /// Nodes, for the ranges of pods' addresses.
    pub nodes: Vec<Node>,
    /// The ranges of Services' addresses.
    pub ranges: Vec<ServiceCIDR>,
    /// PeerAuthentications, AuthorizationPolicies, DestinationRules and WorkloadEntries, with their `apiVersion` and
    /// `kind`. Others mean nothing.
    pub policies: Vec<DynamicObject>,
}

/// What the author of a policy should know about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyNotice {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it cannot be read, so that something else holds in its place.
    pub fault: bool,
    /// One sentence each.
    pub texts: Vec<String>,
}

/// The cluster at one moment.
pub struct Snapshot {
    world: World,
}

impl Snapshot {
    /// What follows from `objects` in the cluster of this name.
    pub fn new(settings: Settings, cluster: &str, objects: &Objects) -> Self {
        let mut world = World::new(settings, cluster.to_owned());
        world.apply(updates(objects));
        Self { world }
    }

    /// What holds for the whole mesh, with the cluster's ranges.
    pub fn settings(&self) -> Settings {
        Settings { mesh_ranges: self.world.mesh.clone(), ..self.world.settings.clone() }
    }

    /// The policies in force, without WorkloadEntries.
    pub fn resources(&self) -> &Resources {
        &self.world.resources
    }

    /// What of the policies cannot be read or is not honoured as written, by kind and name.
    pub fn notices(&self) -> Vec<PolicyNotice> {
        let mut all: Vec<_> = self.world.policies.notices().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        let notices = all.into_iter().map(|notice| PolicyNotice {
            kind: notice.key.kind,
            namespace: notice.key.object.namespace.to_string(),
            name: notice.key.object.name.to_string(),
            fault: notice.fault,
            texts: notice.texts.clone(),
        });
        notices.collect()
    }

    /// The workload that holds `address`, and what says so.
    pub fn workload_at(&self, address: IpAddr) -> Option<(&Arc<Workload>, &Origin)> {
        self.world.holder(address.to_canonical()).map(told)
    }

    /// The workload of the pod of this name; nothing where it has no address of its own.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<(&Arc<Workload>, &Origin)> {
        self.world.known.get(&WorkloadKey::Pod(ObjectKey::new(namespace, name))).map(told)
    }

    /// The workload of the WorkloadEntry of this name.
    pub fn entry(&self, namespace: &str, name: &str) -> Option<(&Arc<Workload>, &Origin)> {
        self.world.known.get(&WorkloadKey::Entry(ObjectKey::new(namespace, name))).map(told)
    }

    /// Namespace and name of the Service whose own address this is.
    pub fn service_at(&self, address: IpAddr) -> Option<(&str, &str)> {
        let key = &self.world.service_at(address.to_canonical())?.info.key;
        Some((&key.namespace, &key.name))
    }

    /// Where kube-proxy sends connections to a Service's port, for a client that dials an address of this family: to those
    /// that may be chosen, else to the others. Nothing where there is no such Service.
    pub fn endpoints(
        &self,
        (namespace, name): (&str, &str),
        port: u16,
        ipv4: bool,
    ) -> Option<Vec<SocketAddr>> {
        let key = ObjectKey::new(namespace, name);
        let state = self.world.services.get(&key)?;
        let mut endpoints = self.ports(state, ipv4).remove(&port).unwrap_or_default();
        self.add_strangers(&key, port, ipv4, &mut endpoints);
        Some(endpoints.dialled())
    }

    /// Endpoints that are no workloads, such as those in the network of their node.
    fn add_strangers(&self, service: &ObjectKey, port: u16, ipv4: bool, endpoints: &mut Endpoints) {
        let state = self.world.services.get(service);
        let own = state.and_then(|state| state.info.ports.iter().find(|own| own.port == port));
        let Some(own) = own else { return };
        let slices = self.world.slices_of.get(service).into_iter().flatten();
        for slice in slices.filter_map(|slice| self.world.slices.get(slice)) {
            let Some((_, target)) = slice.ports.iter().find(|(name, _)| *name == own.name) else { continue };
            for endpoint in &slice.endpoints {
                let address = endpoint.address;
                if address.is_ipv4() != ipv4 || self.world.holder(address).is_some() {
                    continue;
                }
                let list = if endpoint.ready { &mut endpoints.chosen } else { &mut endpoints.others };
                list.push(SocketAddr::new(address, *target));
            }
        }
    }

    /// What is done with connections of `client` to `addresses`, and to what stands behind those of Services.
    pub fn outbound(&self, client: &ringmail_policy::Pod, addresses: &[IpAddr]) -> Outbound {
        let settings = self.settings();
        let mut outbound = Outbound::on_demand(settings.mesh_ranges.clone());
        let mut told = Client::new(&self.world.resources, &settings, Some(client));
        for address in addresses.iter().map(IpAddr::to_canonical) {
            if let Some(known) = self.world.holder(address) {
                outbound.insert(address, answer(&mut told, known));
            } else if let Some(state) = self.world.service_at(address) {
                for known in state.members.keys().filter_map(|key| self.world.known.get(key)) {
                    let answer = answer(&mut told, known);
                    for (own, _) in &known.addresses {
                        outbound.insert(*own, answer.clone());
                    }
                }
                outbound.insert(address, Answer::Service(Arc::new(self.service(state, address.is_ipv4()))));
            } else {
                outbound.insert(address, Answer::Nobody);
            }
        }
        outbound
    }

    fn service(&self, state: &ServiceState, ipv4: bool) -> Service {
        let ports = self.ports(state, ipv4).into_iter().filter(|(_, endpoints)| endpoints.in_mesh);
        Service {
            host: state.info.host(),
            namespace: state.info.key.namespace.to_string(),
            ports: ports.map(|(port, endpoints)| (port, endpoints.dialled().into())).collect(),
        }
    }

    fn ports(&self, state: &ServiceState, ipv4: bool) -> BTreeMap<u16, Endpoints> {
        let mut ports = BTreeMap::<u16, Endpoints>::new();
        for (key, member) in &state.members {
            let Some(known) = self.world.known.get(key) else { continue };
            let own = known.addresses.iter().map(|(own, _)| *own).find(|own| own.is_ipv4() == ipv4);
            let Some(own) = own else { continue };
            for (port, target) in &member.ports {
                let entry = ports.entry(*port).or_default();
                let list = if member.chosen { &mut entry.chosen } else { &mut entry.others };
                list.push(SocketAddr::new(own, *target));
                entry.in_mesh |= known.workload.in_mesh;
            }
        }
        ports
    }
}

/// Endpoints of one port.
#[derive(Debug, Default)]
struct Endpoints {
    chosen: Vec<SocketAddr>,
    others: Vec<SocketAddr>,
    in_mesh: bool,
}

impl Endpoints {
    fn dialled(self) -> Vec<SocketAddr> {
        if self.chosen.is_empty() { self.others } else { self.chosen }
    }
}

fn told(known: &Known) -> (&Arc<Workload>, &Origin) {
    (&known.workload, &known.entry)
}

fn answer(client: &mut Client<'_>, known: &Known) -> Answer {
    let destination = client.destination(Arc::clone(&known.workload), known.entry.clone());
    destination.map_or(Answer::Unverifiable, |destination| Answer::Workload(Arc::new(destination)))
}

fn updates(objects: &Objects) -> Vec<Update> {
    let mut updates = Vec::new();
    updates.extend(objects.nodes.iter().map(|node| {
        let key = ObjectKey::of(node);
        Update::Node(key.name, Some(NodeInfo::of(node)))
    }));
    updates.extend(objects.ranges.iter().map(|range| {
        let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        let ranges = texts.filter_map(|text| text.parse::<IpNet>().ok()).collect();
        Update::Range(ObjectKey::of(range).name, Some(ranges))
    }));
    updates.extend(objects.pods.iter().map(|pod| Update::Pod(ObjectKey::of(pod), Some(PodInfo::of(pod)))));
    updates.extend(
        objects
            .services
            .iter()
            .map(|service| Update::Service(ObjectKey::of(service), Some(ServiceInfo::of(service)))),
    );
    updates
        .extend(objects.slices.iter().map(|slice| Update::Slice(ObjectKey::of(slice), SliceInfo::of(slice))));
    updates.extend(objects.policies.iter().filter_map(policy));
    updates
}

fn policy(object: &DynamicObject) -> Option<Update> {
    let types = object.types.as_ref()?;
    let group = types.api_version.split_once('/').map_or("", |(group, _)| group);
    let kind = KINDS.iter().find(|kind| kind.kind.as_str() == types.kind && kind.kind.group() == group)?;
    Some(watch::policy_update(*kind, ObjectKey::of(object), Some(object)))
}

#[cfg(test)]
mod tests;
