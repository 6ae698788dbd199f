//! `istio.workload`: which workload or service answers at an address.

use std::collections::BTreeMap;

use crate::{
    Resource,
    discovery::Any,
    ringmail::{EXTENSION, Memberships},
};

/// One workload or one service.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// Which.
    #[prost(oneof = "address::Type", tags = "1, 2")]
    pub r#type: Option<address::Type>,
}

impl Resource for Address {
    const TYPE_URL: &'static str = "type.googleapis.com/istio.workload.Address";
}

/// What an [`Address`] is.
pub mod address {
    /// Which.
    #[derive(Clone, PartialEq, prost::Oneof)]
    #[expect(
        clippy::large_enum_variant,
        reason = "nearly all are workloads, and a box for each would be one more"
    )]
    pub enum Type {
        /// A pod, or a machine outside the cluster.
        #[prost(message, tag = "1")]
        Workload(super::Workload),
        /// A service with an address of its own.
        #[prost(message, tag = "2")]
        Service(super::Service),
    }
}

/// A workload; its resource is named by `uid`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Workload {
    /// The pod's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its addresses, 4 or 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub addresses: Vec<Vec<u8>>,
    /// The network that the addresses belong to; empty for the only one.
    #[prost(string, tag = "4")]
    pub network: String,
    /// How it is reached in the mesh.
    #[prost(enumeration = "TunnelProtocol", tag = "5")]
    pub tunnel_protocol: i32,
    /// Empty for `cluster.local`.
    #[prost(string, tag = "6")]
    pub trust_domain: String,
    /// Empty for `default`.
    #[prost(string, tag = "7")]
    pub service_account: String,
    /// The node it runs on.
    #[prost(string, tag = "9")]
    pub node: String,
    /// The service it is counted to in metrics.
    #[prost(string, tag = "10")]
    pub canonical_name: String,
    /// The revision of that.
    #[prost(string, tag = "11")]
    pub canonical_revision: String,
    /// What kind of workload `workload_name` is.
    #[prost(enumeration = "WorkloadType", tag = "12")]
    pub workload_type: i32,
    /// The name of the StatefulSet, Deployment or Job; the pod's where it has none.
    #[prost(string, tag = "13")]
    pub workload_name: String,
    /// Policies with a selector that hold for it, `<namespace>/<name>`.
    #[prost(string, repeated, tag = "16")]
    pub authorization_policies: Vec<String>,
    /// Whether it may be chosen for a service.
    #[prost(enumeration = "WorkloadStatus", tag = "17")]
    pub status: i32,
    /// The cluster it runs in.
    #[prost(string, tag = "18")]
    pub cluster_id: String,
    /// `<cluster>/<group>/<kind>/<namespace>/<name>`.
    #[prost(string, tag = "20")]
    pub uid: String,
    /// The services it is an endpoint of, by `<namespace>/<host name>`.
    #[prost(btree_map = "string, message", tag = "22")]
    pub services: BTreeMap<String, PortList>,
    /// Where it runs.
    #[prost(message, optional, tag = "24")]
    pub locality: Option<Locality>,
    /// Whether it shares its node's network.
    #[prost(enumeration = "NetworkMode", tag = "25")]
    pub network_mode: i32,
    /// What others than Istio have to say of it.
    #[prost(message, repeated, tag = "26")]
    pub extensions: Vec<Extension>,
}

impl Workload {
    /// What it says of itself as an endpoint of several services; nothing where its status and the order of names
    /// say all there is.
    pub fn memberships(&self) -> Option<Memberships> {
        let own = self.extensions.iter().filter(|extension| extension.name == EXTENSION);
        own.filter_map(|extension| Memberships::from_any(extension.config.as_ref()?).ok()).next()
    }

    /// Whether it is spoken to in mutual TLS. A way to reach it that is not known here is not plaintext: the dial then
    /// fails where the workload does not take ours, which is better than to be understood by everybody.
    pub fn in_mesh(&self) -> bool {
        self.tunnel_protocol != i32::from(TunnelProtocol::None)
    }

    /// Whether it may be chosen for the service of this name, `<namespace>/<host name>`.
    pub fn may_be_chosen(&self, service: &str) -> bool {
        let memberships = self.memberships();
        let said = memberships.iter().flat_map(|said| &said.services).find(|said| said.service == service);
        said.map_or(self.status == i32::from(WorkloadStatus::Healthy), |said| said.chosen)
    }
}

/// How a workload is reached in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum TunnelProtocol {
    /// As it is: it has no proxy.
    None = 0,
    /// HTTP CONNECT over mutual TLS.
    Hbone = 1,
    /// Mutual TLS on the workload's own port with ALPN `istio`: what a sidecar of Istio or Ringmail takes.
    LegacyIstioMtls = 2,
}

/// Whether a workload may be chosen for its services, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WorkloadStatus {
    /// It may.
    Healthy = 0,
    /// It may not, and is reached by its own address only.
    Unhealthy = 1,
}

/// What kind of workload a pod belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WorkloadType {
    /// A Deployment, and whatever has no name of its own here.
    Deployment = 0,
    /// A CronJob.
    CronJob = 1,
    /// A pod by itself.
    Pod = 2,
    /// A Job.
    Job = 3,
}

/// Whether a workload shares its node's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NetworkMode {
    /// It has a network of its own.
    Standard = 0,
    /// It has its node's.
    HostNetwork = 1,
}

/// Where a workload runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Locality {
    /// The region.
    #[prost(string, tag = "1")]
    pub region: String,
    /// The zone.
    #[prost(string, tag = "2")]
    pub zone: String,
    /// The part of the zone.
    #[prost(string, tag = "3")]
    pub subzone: String,
}

/// What others than Istio have to say.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Extension {
    /// Whose.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What.
    #[prost(message, optional, tag = "2")]
    pub config: Option<Any>,
}

/// The ports of a service as one workload serves them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PortList {
    /// The ports.
    #[prost(message, repeated, tag = "1")]
    pub ports: Vec<Port>,
}

/// One port of a service.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Port {
    /// The service's.
    #[prost(uint32, tag = "1")]
    pub service_port: u32,
    /// The workload's; 0 for the same.
    #[prost(uint32, tag = "2")]
    pub target_port: u32,
    /// What is spoken; nothing here asks.
    #[prost(int32, tag = "3")]
    pub app_protocol: i32,
}

/// A service; its resource is named `<namespace>/<hostname>`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Service {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// `<name>.<namespace>.svc.<cluster domain>`.
    #[prost(string, tag = "3")]
    pub hostname: String,
    /// Its own addresses; none for a headless one.
    #[prost(message, repeated, tag = "4")]
    pub addresses: Vec<NetworkAddress>,
    /// Its ports.
    #[prost(message, repeated, tag = "5")]
    pub ports: Vec<Port>,
}

/// An address in a network.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NetworkAddress {
    /// The network; empty for the only one.
    #[prost(string, tag = "1")]
    pub network: String,
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub address: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ringmail::Membership;

    #[test]
    fn the_status_holds_for_a_service_of_which_nothing_else_is_said() {
        let said = |service: &str, chosen| Membership { service: service.to_owned(), chosen };
        let memberships = Memberships { services: vec![said("a/young", false), said("a/old", true)] };
        let ours = Extension { name: EXTENSION.to_owned(), config: Some(memberships.to_any()) };
        let others = Extension { name: "other.io".to_owned(), config: Some(memberships.to_any()) };
        let mut workload = Workload { extensions: vec![others], ..Workload::default() };
        assert!(workload.may_be_chosen("a/young"));
        workload.extensions.push(ours);
        assert!(!workload.may_be_chosen("a/young"));
        workload.status = WorkloadStatus::Unhealthy.into();
        assert!(workload.may_be_chosen("a/old"));
        assert!(!workload.may_be_chosen("a/another"));
        assert_eq!(workload.memberships().unwrap(), memberships);
    }

    #[test]
    fn only_a_workload_that_is_reached_as_it_is_may_be_spoken_to_in_plaintext() {
        for (tunnel, in_mesh) in [(0, false), (1, true), (2, true), (3, true), (-1, true)] {
            let workload = Workload { tunnel_protocol: tunnel, ..Workload::default() };
            assert_eq!(workload.in_mesh(), in_mesh, "{tunnel}");
        }
    }
}
