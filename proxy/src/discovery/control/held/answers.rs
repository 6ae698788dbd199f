//! What is known about an address that the pod dials, in the words of decisions.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ringmail_policy::{Answer, Destination, Service};
use ringmail_xds::{
    address_of,
    workload::{self, address::Type},
};

use super::Held;

impl Held {
    /// What is known about an address; nothing while it is not known in full.
    pub(super) fn answer(&self, address: IpAddr) -> Option<Answer> {
        let Some(known) = self.by_address.get(&address).and_then(|name| self.addresses.get(name)) else {
            return self.nobody.contains(&address).then_some(Answer::Nobody);
        };
        match known.message.r#type.as_ref()? {
            Type::Service(service) => Some(Answer::Service(Arc::new(self.service(service, address)))),
            Type::Workload(workload) => {
                let destination = &self.destinations.get(&address)?.message;
                if destination.uid != workload.uid {
                    return None;
                }
                let known = Destination::from_wire(workload, destination, &self.settings);
                Some(known.map_or(Answer::Unverifiable, |known| Answer::Workload(Arc::new(known))))
            }
        }
    }

    fn service(&self, service: &workload::Service, address: IpAddr) -> Service {
        let name = format!("{}/{}", service.namespace, service.hostname);
        let mut ports = BTreeMap::<u16, Endpoints>::new();
        let endpoints = self.endpoints.get(&name).into_iter().flatten();
        for workload in endpoints.filter_map(|name| self.workload(name)) {
            let chosen = workload.may_be_chosen(&name);
            let in_mesh = workload.in_mesh();
            let own = workload.addresses.iter().filter_map(|bytes| address_of(bytes));
            let Some(own) = own.into_iter().find(|own| own.is_ipv4() == address.is_ipv4()) else { continue };
            let list = workload.services.get(&name).into_iter().flat_map(|list| &list.ports);
            for port in list {
                let target = if port.target_port == 0 { port.service_port } else { port.target_port };
                let (Ok(service_port), Ok(target)) =
                    (u16::try_from(port.service_port), u16::try_from(target))
                else {
                    continue;
                };
                let entry = ports.entry(service_port).or_default();
                let list = if chosen { &mut entry.chosen } else { &mut entry.others };
                list.push(SocketAddr::new(own, target));
                entry.in_mesh |= in_mesh;
            }
        }
        let in_mesh = ports.into_iter().filter(|(_, endpoints)| endpoints.in_mesh);
        Service {
            host: service.hostname.clone(),
            namespace: service.namespace.clone(),
            ports: in_mesh.map(|(port, endpoints)| (port, endpoints.dialled().into())).collect(),
        }
    }

    fn workload(&self, name: &str) -> Option<&workload::Workload> {
        match self.addresses.get(name)?.message.r#type.as_ref()? {
            Type::Workload(workload) => Some(workload),
            Type::Service(_) => None,
        }
    }
}

/// Who is behind one port of a service.
#[derive(Debug, Default)]
struct Endpoints {
    chosen: Vec<SocketAddr>,
    others: Vec<SocketAddr>,
    in_mesh: bool,
}

impl Endpoints {
    /// Where nobody may be chosen, those who may not: they refuse by themselves, while the service's own address
    /// would have to be dialled in plaintext.
    fn dialled(self) -> Vec<SocketAddr> {
        if self.chosen.is_empty() { self.others } else { self.chosen }
    }
}
