//! Services as they are dialled: by name, by address, and by a port of a node.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::Cluster;
use crate::explain::party::{Behind, Destination, Dialled, End, World};

/// The label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A port that leads into the cluster from outside of it.
struct Outer<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    /// `its nodePort 30080`, or which of its addresses.
    by: String,
}

impl Cluster<'_> {
    /// A Service by its name in the cluster's DNS.
    pub(super) fn service(&self, namespace: &str, name: &str, port: u16) -> Result<Option<Destination>> {
        let mut own = self.mesh.objects.services.iter().filter(|service| {
            let metadata = &service.metadata;
            (metadata.namespace.as_deref(), metadata.name.as_deref()) == (Some(namespace), Some(name))
        });
        let Some(service) = own.next() else { return Ok(None) };
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            let host = spec.external_name.unwrap_or_default();
            bail!(
                "Service {namespace}/{name} is an ExternalName: it stands for {host:?}; ask for what that is"
            );
        }
        let address = addresses(&spec).next();
        let ports: Vec<_> = tcp(&spec).map(|port| port.port).collect();
        // A headless Service is a name alone: any port of its pods can be dialled by it.
        if address.is_some() && !ports.contains(&i32::from(port)) {
            let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
            bail!("Service {namespace}/{name} has no port {port}; it has {}", ports.join(", "));
        }
        let (full, by) = (Some(format!("{namespace}/{name}")), format!("Service {namespace}/{name}"));
        if let Some(address) = address {
            let found = self.mesh.snapshot.endpoints((namespace, name), port, address.is_ipv4());
            let to = End { port: Some(port), name: full, known_by: by, ..End::unknown(address) };
            let behind = Behind { dialled: Dialled::Address, endpoints: found.unwrap_or_default() };
            return Ok(Some(Destination { to, behind: Some(behind) }));
        }
        let endpoints = match &ports[..] {
            [] => self.without_ports((namespace, name), &spec, port),
            ports => self.headless((namespace, name), ports, port),
        };
        let Some(first) = endpoints.first() else {
            bail!(
                "Service {namespace}/{name} is headless and has no ready endpoints: its name has no address"
            );
        };
        let to = End { port: Some(port), name: full, known_by: by, ..End::unknown(first.ip()) };
        Ok(Some(Destination { to, behind: Some(Behind { dialled: Dialled::Name, endpoints }) }))
    }

    /// The addresses that the name of a headless Service stands for, one of each pod, with the port that is dialled.
    fn headless(&self, service: (&str, &str), ports: &[i32], port: u16) -> Vec<SocketAddr> {
        let mut endpoints = Vec::new();
        for own in ports.iter().filter_map(|port| u16::try_from(*port).ok()) {
            for ipv4 in [true, false] {
                let found = self.mesh.snapshot.endpoints(service, own, ipv4).unwrap_or_default();
                endpoints.extend(found.iter().map(|found| SocketAddr::new(found.ip(), port)));
            }
        }
        self.one_of_each(endpoints)
    }

    /// The same for one that names no port: what its slices list is in the cluster's DNS nonetheless.
    fn without_ports(&self, service: (&str, &str), spec: &ServiceSpec, port: u16) -> Vec<SocketAddr> {
        let unready = spec.publish_not_ready_addresses == Some(true);
        let own = self.mesh.objects.slices.iter().filter(|slice| is_of(slice, service));
        let endpoints = own.flat_map(|slice| slice.endpoints.iter()).filter(|endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            unready || ready != Some(false)
        });
        let addresses = endpoints.flat_map(|endpoint| endpoint.addresses.iter());
        let addresses = addresses.filter_map(|text| text.parse::<IpAddr>().ok());
        self.one_of_each(addresses.map(|address| SocketAddr::new(address, port)).collect())
    }

    fn one_of_each(&self, mut endpoints: Vec<SocketAddr>) -> Vec<SocketAddr> {
        endpoints.sort();
        endpoints.dedup();
        let mut seen = Vec::new();
        endpoints.retain(|endpoint| {
            let name = self.at(endpoint.ip()).name;
            let is_new = name.is_none() || !seen.contains(&name);
            seen.push(name);
            is_new
        });
        endpoints
    }

    /// An address that is no Service's own: a workload's, a node's, or that of a load balancer.
    pub(super) fn outside_address(&self, to: SocketAddr) -> Result<Destination> {
        let at = End { port: Some(to.port()), ..self.at(to.ip()) };
        if at.name.is_some() {
            return Ok(Destination { to: at, behind: None });
        }
        if let Some(outer) = self.outer(to)? {
            return Ok(self.through(to, &outer));
        }
        let known_by = match self.node_at(to.ip()) {
            Some(node) => format!("Node {node} itself: no Service has the nodePort {}", to.port()),
            None => at.known_by.clone(),
        };
        Ok(Destination { to: End { known_by, ..at }, behind: None })
    }

    fn through(&self, to: SocketAddr, outer: &Outer<'_>) -> Destination {
        let metadata = &outer.service.metadata;
        let (namespace, name) =
            (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
        let port = u16::try_from(outer.port.port).unwrap_or_default();
        let found = self.mesh.snapshot.endpoints((namespace, name), port, to.is_ipv4());
        let spec = outer.service.spec.as_ref();
        let policy = spec.and_then(|spec| spec.external_traffic_policy.as_deref());
        let end = End {
            port: Some(to.port()),
            name: Some(format!("{namespace}/{name}")),
            known_by: format!("Service {namespace}/{name}, {}", outer.by),
            ..End::unknown(to.ip())
        };
        let dialled = Dialled::Node { local: policy == Some("Local") };
        Destination { to: end, behind: Some(Behind { dialled, endpoints: found.unwrap_or_default() }) }
    }

    /// The Service that answers at an address outside the cluster's own.
    fn outer(&self, to: SocketAddr) -> Result<Option<Outer<'_>>> {
        for service in &self.mesh.objects.services {
            let Some(spec) = &service.spec else { continue };
            if let Some(port) = tcp(spec).find(|port| port.port == i32::from(to.port()))
                && balanced(service, spec).any(|address| address == to.ip())
            {
                return Ok(Some(Outer { service, port, by: format!("its address {} for outside", to.ip()) }));
            }
            let Some(port) = tcp(spec).find(|port| port.node_port == Some(i32::from(to.port()))) else {
                continue;
            };
            if let Some(node) = self.node_at(to.ip()) {
                let by = format!("its nodePort {} on Node {node}", to.port());
                return Ok(Some(Outer { service, port, by }));
            }
            if self.mesh.objects.nodes.is_empty() {
                let metadata = &service.metadata;
                let (namespace, name) = (&metadata.namespace, &metadata.name);
                bail!(
                    "{to}: {} is the nodePort of Service {}/{}; expected to list nodes to know whether {} is one of \
                     them, and none was read",
                    to.port(),
                    namespace.as_deref().unwrap_or_default(),
                    name.as_deref().unwrap_or_default(),
                    to.ip()
                );
            }
        }
        Ok(None)
    }

    /// The node that has this address itself.
    fn node_at(&self, address: IpAddr) -> Option<&str> {
        let mut nodes = self.mesh.objects.nodes.iter();
        let found = nodes.find(|node| {
            let own = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
            own.filter_map(|own| own.address.parse::<IpAddr>().ok()).any(|own| own == address)
        });
        found.and_then(|node| node.metadata.name.as_deref())
    }
}

fn addresses(spec: &ServiceSpec) -> impl Iterator<Item = IpAddr> {
    let texts = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    texts.filter_map(|text| text.parse().ok())
}

fn tcp(spec: &ServiceSpec) -> impl Iterator<Item = &ServicePort> {
    let ports = spec.ports.iter().flatten();
    ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
}

/// Addresses outside the cluster that lead to the Service's own ports.
fn balanced<'a>(service: &'a Service, spec: &'a ServiceSpec) -> impl Iterator<Item = IpAddr> + 'a {
    let status = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let balancers = status.flat_map(|balancer| balancer.ingress.iter().flatten());
    let texts = balancers.filter_map(|ingress| ingress.ip.as_ref());
    texts.chain(spec.external_ips.iter().flatten()).filter_map(|text| text.parse().ok())
}

fn is_of(slice: &EndpointSlice, (namespace, name): (&str, &str)) -> bool {
    let labels = slice.metadata.labels.iter();
    slice.metadata.namespace.as_deref() == Some(namespace)
        && labels.flatten().any(|(key, value)| key == SERVICE_NAME && value == name)
}
