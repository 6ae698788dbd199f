//! Services and their endpoints, reduced to what discovery says of them.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use ringmail_xds::{address_bytes, workload};

use super::{Age, ObjectKey};

/// The slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The suffix of every Service's host name: Kubernetes' default cluster domain.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// `AppProtocol.TCP`.
const APP_PROTOCOL_TCP: i32 = 4;

/// What is kept of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ServiceInfo {
    pub(crate) key: ObjectKey,
    pub(crate) age: Age,
    /// Empty for a headless one.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<ServicePortInfo>,
    pub(crate) publish_not_ready: bool,
}

/// A TCP port of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ServicePortInfo {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// 0 for a name, which each pod answers for itself.
    pub(crate) target: u16,
}

/// What is kept of an EndpointSlice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SliceInfo {
    pub(crate) service: ObjectKey,
    /// Name and number.
    pub(crate) ports: Vec<(String, u16)>,
    pub(crate) endpoints: Vec<EndpointInfo>,
}

/// One endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct EndpointInfo {
    pub(crate) address: IpAddr,
    /// Name and UID, where a pod is meant.
    pub(crate) pod: Option<(Arc<str>, Option<String>)>,
    pub(crate) ready: bool,
    /// Not ready only because it is being deleted: chosen while nobody else is there.
    pub(crate) last_resort: bool,
}

impl ServiceInfo {
    pub(crate) fn of(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let external = spec.type_.as_deref() == Some("ExternalName");
        let several = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let mut addresses: Vec<IpAddr> = several.filter_map(|text| text.parse().ok()).collect();
        addresses.retain(|_| !external);
        addresses.sort();
        addresses.dedup();
        let tcp = |protocol: &Option<String>| protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let ports = spec.ports.iter().flatten().filter(|port| tcp(&port.protocol)).filter_map(|port| {
            let target = match &port.target_port {
                Some(IntOrString::Int(number)) => u16::try_from(*number).ok()?,
                Some(IntOrString::String(_)) => 0,
                None => u16::try_from(port.port).ok()?,
            };
            let name = port.name.clone().unwrap_or_default();
            Some(ServicePortInfo { name, port: u16::try_from(port.port).ok()?, target })
        });
        Self {
            key: ObjectKey::of(service),
            age: Age::of(service),
            addresses,
            ports: ports.collect(),
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
        }
    }

    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc.{CLUSTER_DOMAIN}", self.key.name, self.key.namespace)
    }

    /// The name of its resource.
    pub(super) fn resource_name(&self) -> String {
        format!("{}/{}", self.key.namespace, self.host())
    }

    pub(super) fn to_wire(&self) -> workload::Service {
        let address = |address: &IpAddr| workload::NetworkAddress {
            network: String::new(),
            address: address_bytes(*address),
        };
        let port = |port: &ServicePortInfo| workload::Port {
            service_port: port.port.into(),
            target_port: port.target.into(),
            app_protocol: APP_PROTOCOL_TCP,
        };
        workload::Service {
            name: self.key.name.to_string(),
            namespace: self.key.namespace.to_string(),
            hostname: self.host(),
            addresses: self.addresses.iter().map(address).collect(),
            ports: self.ports.iter().map(port).collect(),
        }
    }
}

impl SliceInfo {
    /// Nothing for a slice of no Service, and for one of names instead of addresses.
    pub(crate) fn of(slice: &EndpointSlice) -> Option<Self> {
        let service = slice.labels().get(SERVICE_NAME)?;
        let namespace = slice.namespace().unwrap_or_default();
        let ports = slice
            .ports
            .iter()
            .flatten()
            .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
        let ports = ports.filter_map(|port| {
            Some((port.name.clone().unwrap_or_default(), u16::try_from(port.port?).ok()?))
        });
        let endpoints: Vec<_> = slice.endpoints.iter().filter_map(EndpointInfo::of).collect();
        Some(Self { service: ObjectKey::new(&namespace, service), ports: ports.collect(), endpoints })
    }
}

impl EndpointInfo {
    /// All addresses of an endpoint are of one pod: the first stands for it.
    fn of(endpoint: &Endpoint) -> Option<Self> {
        let address: IpAddr = endpoint.addresses.iter().find_map(|text| text.parse().ok())?;
        let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
        let terminating = conditions.and_then(|conditions| conditions.terminating) == Some(true);
        Some(Self {
            address: address.to_canonical(),
            pod: target.and_then(|target| Some((target.name.as_deref()?.into(), target.uid.clone()))),
            ready,
            last_resort: serving && terminating,
        })
    }
}
