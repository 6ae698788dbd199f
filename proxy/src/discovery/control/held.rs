//! What the server has said, and the decisions that follow from it. Pure: answers in, snapshots out.
//!
//! A resource that lies or cannot be read is refused by itself: what was known of its name before stays. The own
//! policies count as a whole or not at all: only once every policy that the server lists is held in the version
//! that it lists.

mod addresses;
mod answers;
mod fault;
mod policies;
#[cfg(test)]
mod tests;
mod weight;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    mem,
    net::IpAddr,
    sync::Arc,
};

use ringmail_identity::SpiffeId;
use ringmail_policy::{Inbound, Outbound, Settings};
use ringmail_xds::{
    Resource,
    discovery::{DeltaDiscoveryResponse, NamedResource},
    named_address, ringmail,
    security::Authorization,
    workload::Address,
};

pub(super) use self::fault::Fault;
use self::weight::Weighed;
use super::asked::{Asked, Change};
use crate::{config::Config, credentials::own_id};

/// Workloads and services held at once: those behind the services that are asked for come unasked. A server that sends
/// without end must not fill the sidecar's memory.
pub(super) const MAX_HELD: usize = 16 * 1024;
/// Policies of one pod: far above what anybody writes.
pub(super) const MAX_POLICIES: usize = 1024;
/// Characters of a name that are repeated in a fault.
const MAX_SHOWN: usize = 200;
/// Addresses of one workload or service: a pod has two, a service a few more.
const MAX_ADDRESSES: usize = 64;
/// Characters of a resource's name: Kubernetes' longest have some 600.
const MAX_NAME: usize = 1024;
/// What all workloads, services and destinations may weigh together: as many as there may be, each of its usual size.
const MAX_ADDRESSES_WEIGHT: usize = 32 * 1024 * 1024;
/// What the own policies may weigh together.
const MAX_POLICIES_WEIGHT: usize = 32 * 1024 * 1024;

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
    /// What it takes of memory, about.
    weight: usize,
}

impl<M: Weighed> Named<M> {
    /// Reads a resource, if it is of a size to be read at all.
    fn read(resource: &NamedResource) -> Result<Self, Fault> {
        let bytes = resource.resource.as_ref().map_or(0, |any| any.value.len());
        if bytes > M::MAX_BYTES {
            return Err(fault::limit(resource, "bytes", M::MAX_BYTES));
        }
        let message: M = fault::read(resource)?;
        let weight = 2 * bytes + resource.name.len() + message.parts();
        // Aliases are read by nobody.
        let (name, version) = (resource.name.clone(), resource.version.clone());
        let resource =
            NamedResource { name, version, resource: resource.resource.clone(), ..Default::default() };
        Ok(Self { message, resource, weight })
    }
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
    addresses_weight: usize,
    policies_weight: usize,
    made: Option<Arc<Inbound>>,
    outbound: Arc<Outbound>,
}

/// What has a share of the memory of its own.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Addresses,
    Policies,
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
            addresses_weight: 0,
            policies_weight: 0,
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
                let novelty = fault::read::<ringmail_xds::next::Novelty>;
                answer.resources.iter().filter_map(|resource| novelty(resource).err()).collect()
            }
            other => vec![Fault::Type(cut(other))],
        }
    }

    /// Of a name that is said twice nobody knows which holds: what was known before stays.
    fn apply_each(
        &mut self,
        answer: &DeltaDiscoveryResponse,
        take: fn(&mut Self, &NamedResource) -> Result<(), Fault>,
        lose: fn(&mut Self, &str),
    ) -> Vec<Fault> {
        let mut said: HashMap<&str, usize> = HashMap::new();
        for name in answer.resources.iter().map(|resource| &resource.name).chain(&answer.removed_resources) {
            *said.entry(name).or_default() += 1;
        }
        let mut faults = Vec::new();
        for resource in &answer.resources {
            let name = &*resource.name;
            let taken = match said.get_mut(name) {
                Some(1) if name.len() > MAX_NAME => {
                    Err(Fault::Limit { name: cut(name), what: "characters of a name", limit: MAX_NAME })
                }
                Some(1) => take(self, resource),
                // One fault for each name.
                Some(times) if *times > 1 => {
                    let fault = Fault::Duplicate { name: cut(name), times: *times };
                    *times = 0;
                    Err(fault)
                }
                Some(_) | None => Ok(()),
            };
            faults.extend(taken.err());
        }
        for name in &answer.removed_resources {
            if said.get(&**name) == Some(&1) {
                lose(self, name);
            }
        }
        faults
    }

    /// Whether there is room for `weight` more in the place of `before`.
    fn weigh(&mut self, kind: Kind, before: usize, weight: usize, name: &str) -> Result<(), Fault> {
        let (held, limit, what) = match kind {
            Kind::Addresses => {
                (&mut self.addresses_weight, MAX_ADDRESSES_WEIGHT, "bytes of workloads and services")
            }
            Kind::Policies => (&mut self.policies_weight, MAX_POLICIES_WEIGHT, "bytes of policies"),
        };
        let next = held.saturating_sub(before) + weight;
        if next > limit && weight > before {
            return Err(Fault::Limit { name: name.to_owned(), what, limit });
        }
        *held = next;
        Ok(())
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

    /// What decides about connections from this pod.
    pub(super) fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
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

/// As much of a server's word as a line has room for.
fn cut(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}
