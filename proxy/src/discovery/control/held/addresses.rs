//! Who is at which address: workloads, services, destinations, and addresses where nobody is.

use std::net::IpAddr;

use ringmail_xds::{
    address_of,
    discovery::NamedResource,
    named_address,
    workload::{Address, address::Type},
};

use super::{
    Held, Kind, MAX_ADDRESSES, MAX_HELD, Named, cut,
    fault::{Fault, empty, limit},
};

impl Held {
    pub(super) fn take_address(&mut self, resource: &NamedResource) -> Result<(), Fault> {
        let named = Named::<Address>::read(resource)?;
        let Some(found) = &named.message.r#type else {
            return Err(empty(resource, "a workload or a service"));
        };
        check(resource, found)?;
        if self.addresses.len() >= MAX_HELD && !self.addresses.contains_key(&resource.name) {
            return Err(limit(resource, "workloads and services", MAX_HELD));
        }
        let before = self.addresses.get(&resource.name).map_or(0, |known| known.weight);
        self.weigh(Kind::Addresses, before, named.weight, &resource.name)?;
        let own = addresses(found);
        self.take_out(&resource.name);
        for address in own {
            self.by_address.insert(address, resource.name.clone());
            self.nobody.remove(&address);
            self.asked.somebody_at(address);
            self.changed_addresses.insert(address);
        }
        if let Type::Workload(workload) = found {
            for service in workload.services.keys() {
                self.endpoints.entry(service.clone()).or_default().insert(resource.name.clone());
            }
        }
        let services = services(found);
        self.addresses.insert(resource.name.clone(), named);
        self.touch_services(&services);
        Ok(())
    }

    /// A name that is an address: nobody answers there. Any other: that workload or service is gone.
    pub(super) fn lose_address(&mut self, name: &str) {
        if let Some(address) = named_address(name) {
            self.by_address.remove(&address);
            self.set_nobody(address);
        } else {
            for address in self.forget_address(name) {
                self.set_nobody(address);
            }
        }
    }

    /// Forgets a workload or service, and answers which addresses were its own.
    fn forget_address(&mut self, name: &str) -> Vec<IpAddr> {
        self.addresses_weight -= self.addresses.get(name).map_or(0, |known| known.weight);
        self.take_out(name)
    }

    /// Takes a workload or service out of all indexes, and answers which addresses were its own.
    fn take_out(&mut self, name: &str) -> Vec<IpAddr> {
        let Some(known) = self.addresses.remove(name) else { return Vec::new() };
        let Some(found) = &known.message.r#type else { return Vec::new() };
        let mut own = addresses(found);
        own.retain(|address| self.by_address.get(address).is_some_and(|holder| holder == name));
        for address in &own {
            self.by_address.remove(address);
            self.changed_addresses.insert(*address);
        }
        if let Type::Workload(workload) = found {
            for service in workload.services.keys() {
                if let Some(endpoints) = self.endpoints.get_mut(service) {
                    endpoints.remove(name);
                }
            }
            self.endpoints.retain(|_, endpoints| !endpoints.is_empty());
        }
        self.touch_services(&services(found));
        own
    }

    fn set_nobody(&mut self, address: IpAddr) {
        if self.asked.contains(address) {
            self.nobody.insert(address);
            self.asked.nobody_at(address);
        }
        self.changed_addresses.insert(address);
    }

    /// What is known of services by their endpoints has changed.
    fn touch_services(&mut self, names: &[String]) {
        for name in names {
            if let Some(known) = self.addresses.get(name)
                && let Some(found) = &known.message.r#type
            {
                self.changed_addresses.extend(addresses(found));
            }
        }
    }

    /// Forgets an address that is no longer asked for.
    pub(super) fn drop_address(&mut self, address: IpAddr) {
        self.nobody.remove(&address);
        self.forget_destination(address);
        if let Some(name) = self.by_address.get(&address).cloned() {
            self.forget_address(&name);
        }
        self.changed_addresses.insert(address);
    }

    pub(super) fn take_destination(&mut self, resource: &NamedResource) -> Result<(), Fault> {
        let named = Named::read(resource)?;
        let Some(address) = named_address(&resource.name) else {
            return Err(empty(resource, "an address as its name"));
        };
        if is_nowhere(address) {
            return Err(Fault::Nowhere { name: resource.name.clone(), address });
        }
        if self.destinations.len() >= MAX_HELD && !self.destinations.contains_key(&address) {
            return Err(limit(resource, "destinations", MAX_HELD));
        }
        let before = self.destinations.get(&address).map_or(0, |known| known.weight);
        self.weigh(Kind::Addresses, before, named.weight, &resource.name)?;
        self.destinations.insert(address, named);
        self.changed_addresses.insert(address);
        Ok(())
    }

    pub(super) fn lose_destination(&mut self, name: &str) {
        if let Some(address) = named_address(name) {
            self.forget_destination(address);
            self.changed_addresses.insert(address);
        }
    }

    fn forget_destination(&mut self, address: IpAddr) {
        let known = self.destinations.remove(&address);
        self.addresses_weight -= known.map_or(0, |known| known.weight);
    }
}

/// What no workload and no service of this cluster can be.
fn check(resource: &NamedResource, found: &Type) -> Result<(), Fault> {
    let (count, networks): (_, Vec<&str>) = match found {
        Type::Workload(workload) => (workload.addresses.len(), vec![&workload.network]),
        Type::Service(service) => {
            let networks = service.addresses.iter().map(|address| &*address.network);
            (service.addresses.len(), networks.collect())
        }
    };
    if count > MAX_ADDRESSES {
        return Err(limit(resource, "addresses", MAX_ADDRESSES));
    }
    if let Some(network) = networks.into_iter().find(|network| !network.is_empty()) {
        return Err(Fault::Network { name: resource.name.clone(), network: cut(network) });
    }
    match addresses(found).into_iter().find(|address| is_nowhere(*address)) {
        Some(address) => Err(Fault::Nowhere { name: resource.name.clone(), address }),
        None => Ok(()),
    }
}

/// An address at which no other pod can be.
fn is_nowhere(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_broadcast
}

/// The addresses of a workload, or of a service.
fn addresses(found: &Type) -> Vec<IpAddr> {
    match found {
        Type::Workload(workload) => workload.addresses.iter().filter_map(|bytes| address_of(bytes)).collect(),
        Type::Service(service) => {
            service.addresses.iter().filter_map(|network| address_of(&network.address)).collect()
        }
    }
}

/// The services that a workload is an endpoint of, by the names of their resources.
fn services(found: &Type) -> Vec<String> {
    match found {
        Type::Workload(workload) => workload.services.keys().cloned().collect(),
        Type::Service(_) => Vec::new(),
    }
}
