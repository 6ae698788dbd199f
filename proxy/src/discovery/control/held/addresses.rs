//! Who is at which address: workloads, services, destinations, and addresses where nobody is.

use std::net::IpAddr;

use ringmail_xds::{
    address_of,
    discovery::NamedResource,
    named_address,
    workload::{Address, address::Type},
};

use super::{
    Held, MAX_HELD, Named,
    fault::{Fault, empty, limit, read},
};

impl Held {
    pub(super) fn take_address(&mut self, resource: &NamedResource) -> Result<(), Fault> {
        let message: Address = read(resource)?;
        let Some(found) = &message.r#type else {
            return Err(empty(resource, "a workload or a service"));
        };
        if self.addresses.len() >= MAX_HELD && !self.addresses.contains_key(&resource.name) {
            return Err(limit(resource, "workloads and services", MAX_HELD));
        }
        let own = addresses(found);
        self.forget_address(&resource.name);
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
        self.addresses.insert(resource.name.clone(), Named { message, resource: resource.clone() });
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

    /// Takes a workload or service out of all indexes, and answers which addresses were its own.
    fn forget_address(&mut self, name: &str) -> Vec<IpAddr> {
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
        self.destinations.remove(&address);
        if let Some(name) = self.by_address.get(&address).cloned() {
            self.forget_address(&name);
        }
        self.changed_addresses.insert(address);
    }

    pub(super) fn take_destination(&mut self, resource: &NamedResource) -> Result<(), Fault> {
        let message = read(resource)?;
        let Some(address) = named_address(&resource.name) else {
            return Err(empty(resource, "an address as its name"));
        };
        if self.destinations.len() >= MAX_HELD && !self.destinations.contains_key(&address) {
            return Err(limit(resource, "destinations", MAX_HELD));
        }
        self.destinations.insert(address, Named { message, resource: resource.clone() });
        self.changed_addresses.insert(address);
        Ok(())
    }

    pub(super) fn lose_destination(&mut self, name: &str) {
        if let Some(address) = named_address(name) {
            self.destinations.remove(&address);
            self.changed_addresses.insert(address);
        }
    }
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
