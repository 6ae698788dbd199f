//! What the server has said, and the decisions that follow from it. Pure: answers in, snapshots out.
//!
//! A resource that lies or cannot be read is refused by itself: what was known of its name before stays. The own
//! policies count as a whole or not at all: only once every policy that the server lists is held in the version
//! that it lists.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    mem,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use ringmail_identity::SpiffeId;
use ringmail_policy::{Answer, Destination, Inbound, Outbound, Service, Settings, WireError};
use ringmail_xds::{
    ReadError, Resource, address_of,
    discovery::{DeltaDiscoveryResponse, NamedResource},
    named_address, ringmail,
    security::Authorization,
    workload::{self, Address, address::Type},
};

use super::asked::{Asked, Change};
use crate::{config::Config, credentials::own_id};

/// Workloads and services held at once: those behind the services that are asked for come unasked. A server that sends
/// without end must not fill the sidecar's memory.
pub(super) const MAX_HELD: usize = 16 * 1024;
/// Policies of one pod: far above what anybody writes.
pub(super) const MAX_POLICIES: usize = 1024;

/// Who this proxy is, and so what the server must say of its addresses.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) identity: Option<SpiffeId>,
}

impl Own {
    pub(super) fn of(config: &Config) -> Self {
        let addresses = config.pod_addresses.iter().map(IpAddr::to_canonical).collect();
        // The settings were checked: where there is no identity the proxy does not start.
        Self { addresses, identity: own_id(config).ok() }
    }
}

/// A resource as it came, to be kept and compared by its version.
#[derive(Clone, Debug)]
struct Named<M> {
    message: M,
    resource: NamedResource,
}

/// Why a resource is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// A field does not say what is needed.
    #[error("{name}: {error}")]
    Field {
        /// The resource.
        name: String,
        /// Which field.
        error: WireError,
    },
    /// There is no room for more.
    #[error("{name}: more than {limit} {what}, expected at most that")]
    Limit {
        /// The resource.
        name: String,
        /// What there is too much of.
        what: &'static str,
        /// How many are held at most.
        limit: usize,
    },
    /// It cannot be read.
    #[error("{name}: {error}")]
    Read {
        /// The resource.
        name: String,
        /// Why.
        error: ReadError,
    },
    /// It says nothing.
    #[error("{name}: expected {expected}, got nothing")]
    Empty {
        /// The resource.
        name: String,
        /// What it should have said.
        expected: &'static str,
    },
    /// It was not asked for.
    #[error("expected an answer of a type that was asked for, got {0:?}")]
    Type(String),
}

/// What is missing before anything may be decided. `Display` is what an operator reads on a pod that waits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Incomplete {
    /// The server has not said how this pod's ports are served.
    #[error("discovery has not sent this pod's own policies yet")]
    NoInbound,
    /// A policy is on its way.
    #[error("discovery lists AuthorizationPolicy {0}, which has not come yet")]
    NoPolicy(String),
    /// The server does not know this pod.
    #[error("discovery does not know this pod's own address yet: {0}")]
    OwnUnknown(String),
    /// The server takes this pod for another one.
    #[error("discovery says that this pod's own address {address} is {got}, expected {expected}")]
    OwnMistaken {
        /// Which address.
        address: IpAddr,
        /// Who is there in the server's opinion.
        got: String,
        /// Who is there.
        expected: String,
    },
    /// What the server sent makes no decisions.
    #[error("this pod's own policies: {0}")]
    Wire(#[from] WireError),
}

/// Everything that is held; see the module.
#[derive(Debug)]
pub(super) struct Held {
    settings: Settings,
    own: Own,
    asked: Asked,
    addresses: HashMap<String, Named<Address>>,
    by_address: HashMap<IpAddr, String>,
    /// Workloads by the services they are endpoints of, both by name.
    endpoints: HashMap<String, BTreeSet<String>>,
    destinations: HashMap<IpAddr, Named<ringmail::Destination>>,
    nobody: HashSet<IpAddr>,
    policies: HashMap<String, Named<Authorization>>,
    inbound: Option<Named<ringmail::Inbound>>,
    changed_addresses: HashSet<IpAddr>,
    inbound_changed: bool,
    made: Option<Arc<Inbound>>,
    outbound: Arc<Outbound>,
}

impl Held {
    pub(super) fn new(settings: Settings, own: Own) -> Self {
        let outbound = Arc::new(Outbound::on_demand(settings.mesh_ranges.clone()));
        let asked = Asked::new(own.addresses.clone());
        Self {
            settings,
            own,
            asked,
            addresses: HashMap::new(),
            by_address: HashMap::new(),
            endpoints: HashMap::new(),
            destinations: HashMap::new(),
            nobody: HashSet::new(),
            policies: HashMap::new(),
            inbound: None,
            changed_addresses: HashSet::new(),
            inbound_changed: false,
            made: None,
            outbound,
        }
    }

    /// Asks for an address; what is to be said to the server.
    pub(super) fn ask(&mut self, address: IpAddr) -> Change {
        let change = self.asked.ask(address.to_canonical());
        for dropped in &change.unsubscribe {
            self.drop_address(*dropped);
        }
        change
    }

    /// Asks for what an earlier process had an answer for.
    pub(super) fn ask_again(&mut self, answer: &DeltaDiscoveryResponse) {
        if answer.type_url == ringmail::Destination::TYPE_URL {
            let names =
                answer.resources.iter().map(|resource| &resource.name).chain(&answer.removed_resources);
            for address in names.filter_map(|name| named_address(name)) {
                self.asked.ask(address);
            }
        }
    }

    /// Every address that is asked for.
    pub(super) fn asked(&self) -> impl Iterator<Item = IpAddr> {
        self.asked.all()
    }

    /// Takes an answer. What is refused of it is named; the rest counts.
    pub(super) fn apply(&mut self, answer: &DeltaDiscoveryResponse) -> Vec<Fault> {
        match &*answer.type_url {
            Address::TYPE_URL => self.apply_each(answer, Self::take_address, Self::lose_address),
            ringmail::Destination::TYPE_URL => {
                self.apply_each(answer, Self::take_destination, Self::lose_destination)
            }
            ringmail::Inbound::TYPE_URL => self.apply_each(answer, Self::take_inbound, Self::lose_inbound),
            Authorization::TYPE_URL => self.apply_each(answer, Self::take_policy, Self::lose_policy),
            #[cfg(feature = "next-schema")]
            ringmail_xds::next::Novelty::TYPE_URL => {
                let novelty = read::<ringmail_xds::next::Novelty>;
                answer.resources.iter().filter_map(|resource| novelty(resource).err()).collect()
            }
            other => vec![Fault::Type(other.to_owned())],
        }
    }

    fn apply_each(
        &mut self,
        answer: &DeltaDiscoveryResponse,
        take: fn(&mut Self, &NamedResource) -> Result<(), Fault>,
        lose: fn(&mut Self, &str),
    ) -> Vec<Fault> {
        let faults = answer.resources.iter().filter_map(|resource| take(self, resource).err()).collect();
        for name in &answer.removed_resources {
            lose(self, name);
        }
        faults
    }

    fn take_address(&mut self, resource: &NamedResource) -> Result<(), Fault> {
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
    fn lose_address(&mut self, name: &str) {
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
    fn drop_address(&mut self, address: IpAddr) {
        self.nobody.remove(&address);
        self.destinations.remove(&address);
        if let Some(name) = self.by_address.get(&address).cloned() {
            self.forget_address(&name);
        }
        self.changed_addresses.insert(address);
    }

    fn take_destination(&mut self, resource: &NamedResource) -> Result<(), Fault> {
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

    fn lose_destination(&mut self, name: &str) {
        if let Some(address) = named_address(name) {
            self.destinations.remove(&address);
            self.changed_addresses.insert(address);
        }
    }

    fn take_inbound(&mut self, resource: &NamedResource) -> Result<(), Fault> {
        let message: ringmail::Inbound = read(resource)?;
        let field = |error| Fault::Field { name: resource.name.clone(), error };
        ranges(&message).map_err(field)?;
        // Judged now, so that a message that makes no decisions is refused before it takes another's place.
        Inbound::from_wire(&message, []).map_err(field)?;
        self.inbound = Some(Named { message, resource: resource.clone() });
        self.inbound_changed = true;
        Ok(())
    }

    /// The server knows this pod no longer. What it said stays: a pod that is being deleted still drains.
    fn lose_inbound(&mut self, _name: &str) {}

    fn take_policy(&mut self, resource: &NamedResource) -> Result<(), Fault> {
        let message: Authorization = read(resource)?;
        if self.policies.len() >= MAX_POLICIES && !self.policies.contains_key(&resource.name) {
            return Err(limit(resource, "policies", MAX_POLICIES));
        }
        let judged = Inbound::from_wire(&ringmail::Inbound::permissive(), [&message]);
        judged.map_err(|error| Fault::Field { name: resource.name.clone(), error })?;
        self.policies.insert(resource.name.clone(), Named { message, resource: resource.clone() });
        self.inbound_changed = true;
        Ok(())
    }

    fn lose_policy(&mut self, name: &str) {
        self.policies.remove(name);
        self.inbound_changed = true;
    }

    /// Whether an answer has changed anything since the last call; what follows from it is made anew.
    pub(super) fn take_changed(&mut self) -> bool {
        let changed = mem::take(&mut self.changed_addresses);
        let inbound_changed = mem::take(&mut self.inbound_changed);
        if inbound_changed {
            self.remake_inbound();
        }
        if !changed.is_empty() {
            let mut outbound = Outbound::clone(&self.outbound);
            for address in &changed {
                match self.answer(*address) {
                    Some(answer) => outbound.insert(*address, answer),
                    None => outbound.forget(*address),
                }
            }
            self.outbound = Arc::new(outbound);
        }
        inbound_changed || !changed.is_empty()
    }

    /// Takes the own policies as a whole, where the whole is there.
    fn remake_inbound(&mut self) {
        if let Ok(made) = self.make_inbound() {
            self.made = Some(Arc::new(made));
        }
        if let Some(ranges) = self.inbound.as_ref().and_then(|held| ranges(&held.message).ok()) {
            let mut outbound = Outbound::clone(&self.outbound);
            outbound.set_mesh_ranges([&self.settings.mesh_ranges[..], &ranges].concat());
            self.outbound = Arc::new(outbound);
        }
    }

    fn make_inbound(&self) -> Result<Inbound, Incomplete> {
        let inbound = self.inbound.as_ref().ok_or(Incomplete::NoInbound)?;
        let mut policies = Vec::new();
        for listed in &inbound.message.authorizations {
            match self.policies.get(&listed.name) {
                Some(held) if held.resource.version == listed.version => policies.push(&held.message),
                Some(_) | None => return Err(Incomplete::NoPolicy(listed.name.clone())),
            }
        }
        Ok(Inbound::from_wire(&inbound.message, policies)?)
    }

    /// What decides about connections to this pod, once the first complete set is in and the server knows who this
    /// pod is.
    pub(super) fn complete(&self) -> Result<Arc<Inbound>, Incomplete> {
        let made = match &self.made {
            Some(made) => Arc::clone(made),
            None => return Err(self.make_inbound().err().unwrap_or(Incomplete::NoInbound)),
        };
        let known = self.own.addresses.iter().find_map(|own| Some((*own, self.outbound.workload(*own)?)));
        match (known, &self.own.identity) {
            (Some((_, workload)), Some(own)) if workload.identity == *own => Ok(made),
            (Some((address, workload)), own) => Err(Incomplete::OwnMistaken {
                address,
                got: workload.identity.to_string(),
                expected: own.as_ref().map(ToString::to_string).unwrap_or_default(),
            }),
            (None, _) => {
                let own: Vec<_> = self.own.addresses.iter().map(ToString::to_string).collect();
                Err(Incomplete::OwnUnknown(own.join(", ")))
            }
        }
    }

    /// What decides about connections from this pod.
    pub(super) fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    /// What is known about an address; nothing while it is not known in full.
    fn answer(&self, address: IpAddr) -> Option<Answer> {
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

    /// Everything that is held, as the answers that would bring it about again.
    pub(super) fn answers(&self) -> Vec<DeltaDiscoveryResponse> {
        fn answer<'r, M: 'r>(
            type_url: &str,
            held: impl Iterator<Item = &'r Named<M>>,
            removed_resources: Vec<String>,
        ) -> DeltaDiscoveryResponse {
            let resources = held.map(|held| held.resource.clone()).collect();
            let type_url = type_url.to_owned();
            DeltaDiscoveryResponse { type_url, resources, removed_resources, ..Default::default() }
        }
        let nobody: Vec<String> = self.nobody.iter().copied().map(ringmail_xds::address_name).collect();
        vec![
            // First, since it says which addresses are asked for.
            answer(ringmail::Destination::TYPE_URL, self.destinations.values(), nobody.clone()),
            answer(Address::TYPE_URL, self.addresses.values(), nobody),
            answer(Authorization::TYPE_URL, self.policies.values(), Vec::new()),
            answer(ringmail::Inbound::TYPE_URL, self.inbound.iter(), Vec::new()),
        ]
    }

    /// What is held of a type, by name and version.
    pub(super) fn versions(&self, type_url: &str) -> BTreeMap<String, String> {
        fn versions<'r, M: 'r>(held: impl Iterator<Item = &'r Named<M>>) -> BTreeMap<String, String> {
            held.map(|held| (held.resource.name.clone(), held.resource.version.clone())).collect()
        }
        match type_url {
            Address::TYPE_URL => versions(self.addresses.values()),
            ringmail::Destination::TYPE_URL => versions(self.destinations.values()),
            Authorization::TYPE_URL => versions(self.policies.values()),
            ringmail::Inbound::TYPE_URL => versions(self.inbound.iter()),
            _ => BTreeMap::new(),
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

fn read<M: Resource>(resource: &NamedResource) -> Result<M, Fault> {
    let Some(any) = &resource.resource else { return Err(empty(resource, "a resource")) };
    M::from_any(any).map_err(|error| Fault::Read { name: resource.name.clone(), error })
}

fn empty(resource: &NamedResource, expected: &'static str) -> Fault {
    Fault::Empty { name: resource.name.clone(), expected }
}

fn limit(resource: &NamedResource, what: &'static str, limit: usize) -> Fault {
    Fault::Limit { name: resource.name.clone(), what, limit }
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

fn ranges(inbound: &ringmail::Inbound) -> Result<Vec<IpNet>, WireError> {
    let ranges = inbound.mesh.iter().flat_map(|mesh| &mesh.ranges);
    let read = |text: &String| {
        text.parse().map_err(|_| WireError {
            field: "mesh.ranges",
            expected: "a range such as 10.0.0.0/8",
            got: text.clone(),
        })
    };
    ranges.map(read).collect()
}

#[cfg(test)]
mod tests;
