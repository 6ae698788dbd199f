//! Working off changes: from objects to the workloads and services that they make up, and on to the addresses and
//! pods whose answers may differ now.
//!
//! The order matters. First who claims which address, then who stands behind which Service, then what each of the
//! workloads is: each step only looks at what the ones before have left.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use ringmail_policy::{Kind, Origin, Workload};
use ringmail_xds::workload::{Address, address::Type};

use super::{
    Age, Dirty, Encoded, Known, Member, NodeInfo, ObjectKey, PodInfo, PolicyKey, PolicyObject, ServiceInfo,
    ServiceState, SliceInfo, Update, WorkloadKey, World, kind_of, known, policies,
};

/// What is still to be worked off.
#[derive(Debug, Default)]
struct Work {
    services: BTreeSet<ObjectKey>,
    workloads: BTreeSet<WorkloadKey>,
    policies: Vec<Arc<ringmail_policy::Resources>>,
    ranges: bool,
    dirty: Dirty,
}

impl World {
    /// Takes changes in their order, and answers whose answers may differ now.
    pub(crate) fn apply(&mut self, updates: impl IntoIterator<Item = Update>) -> Dirty {
        let mut work = Work::default();
        for update in updates {
            match update {
                Update::Node(name, node) => self.put_node(&mut work, name, node),
                Update::Pod(key, pod) => self.put_pod(&mut work, key, pod),
                Update::Policy(key, object) => self.put_policy(&mut work, &key, object.as_ref()),
                Update::Range(name, ranges) => {
                    match ranges {
                        Some(ranges) => self.ranges.insert(name, ranges),
                        None => self.ranges.remove(&name),
                    };
                    work.ranges = true;
                }
                Update::Service(key, service) => self.put_service(&mut work, key, service),
                Update::Slice(key, slice) => self.put_slice(&mut work, &key, slice),
            }
        }
        for key in std::mem::take(&mut work.services) {
            self.settle_service(&mut work, &key);
        }
        self.settle_policies(&mut work);
        for key in std::mem::take(&mut work.workloads) {
            self.settle_workload(&mut work, &key);
        }
        if work.ranges {
            self.settle_ranges(&mut work);
        }
        work.dirty
    }

    fn put_node(&mut self, work: &mut Work, name: Arc<str>, node: Option<NodeInfo>) {
        let after = node.clone().unwrap_or_default();
        let before = match node {
            Some(node) => self.nodes.insert(Arc::clone(&name), node),
            None => self.nodes.remove(&name),
        };
        let before = before.unwrap_or_default();
        work.ranges |= before.ranges != after.ranges;
        if before.locality != after.locality {
            let there = self.pods.values().filter(|pod| pod.node.as_ref() == Some(&name));
            work.workloads.extend(there.map(|pod| WorkloadKey::Pod(pod.key.clone())));
        }
    }

    fn put_pod(&mut self, work: &mut Work, key: ObjectKey, pod: Option<PodInfo>) {
        let workload = WorkloadKey::Pod(key.clone());
        let before = match &pod {
            Some(pod) => self.pods.insert(key.clone(), pod.clone()),
            None => self.pods.remove(&key),
        };
        if before == pod {
            return;
        }
        let of = |pod: &Option<PodInfo>| pod.as_ref().map(|pod| pod.addresses.clone()).unwrap_or_default();
        let age = pod.as_ref().map(|pod| pod.age.clone()).unwrap_or_default();
        self.move_claims(work, &workload, &of(&before), (&of(&pod), &age));
        // Endpoints name it, and mean the pod of one UID.
        work.services.extend(self.services_by_pod.get(&key).into_iter().flatten().cloned());
        work.workloads.insert(workload);
        work.dirty.pods.insert(key);
    }

    fn move_claims(
        &mut self,
        work: &mut Work,
        key: &WorkloadKey,
        before: &[IpAddr],
        (after, age): (&[IpAddr], &Age),
    ) {
        for address in before {
            self.holders.release(*address, key);
        }
        for address in after {
            self.holders.claim(*address, age, key);
        }
        for address in before.iter().chain(after) {
            work.workloads.extend(self.holders.claimants(*address).cloned());
            work.services.extend(self.services_by_endpoint.get(address).into_iter().flatten().cloned());
            work.dirty.addresses.insert(*address);
        }
    }

    fn put_service(&mut self, work: &mut Work, key: ObjectKey, service: Option<ServiceInfo>) {
        let mut members = BTreeMap::new();
        if let Some(before) = self.services.remove(&key) {
            for address in &before.info.addresses {
                if let Some(services) = self.service_at.get_mut(address) {
                    services.remove(&key);
                    if services.is_empty() {
                        self.service_at.remove(address);
                    }
                }
                work.dirty.addresses.insert(*address);
            }
            members = before.members;
            // Its name, its age and its ports are part of what its endpoints are.
            work.workloads.extend(members.keys().cloned());
        }
        match service {
            Some(info) => {
                for address in &info.addresses {
                    self.service_at.entry(*address).or_default().insert(key.clone());
                    work.dirty.addresses.insert(*address);
                }
                let address = Address { r#type: Some(Type::Service(info.to_wire())) };
                let (name, encoded) = (info.resource_name().into(), Encoded::new(&address));
                self.services.insert(key.clone(), ServiceState { info, name, encoded, members });
            }
            None => self.forget_members(&key, members.keys()),
        }
        work.services.insert(key);
    }

    fn forget_members<'k>(&mut self, service: &ObjectKey, members: impl Iterator<Item = &'k WorkloadKey>) {
        for member in members {
            if let Some(services) = self.services_of.get_mut(member) {
                services.remove(service);
                if services.is_empty() {
                    self.services_of.remove(member);
                }
            }
        }
    }

    fn put_slice(&mut self, work: &mut Work, key: &ObjectKey, slice: Option<SliceInfo>) {
        let after = slice.as_ref().map(|slice| slice.service.clone());
        let before = match slice {
            Some(slice) => self.slices.insert(key.clone(), slice),
            None => self.slices.remove(key),
        };
        if let Some(before) = before {
            if let Some(slices) = self.slices_of.get_mut(&before.service) {
                slices.remove(key);
                if slices.is_empty() {
                    self.slices_of.remove(&before.service);
                }
            }
            work.services.insert(before.service);
        }
        if let Some(service) = after {
            self.slices_of.entry(service.clone()).or_default().insert(key.clone());
            work.services.insert(service);
        }
    }

    fn put_policy(&mut self, work: &mut Work, key: &PolicyKey, object: Option<&PolicyObject>) {
        let entry = WorkloadKey::Entry(key.object.clone());
        let before = self.entry_addresses(key);
        let policies::Change { before: old, after: new } = self.policies.put(key, object);
        if key.kind == Kind::WorkloadEntry {
            let after = self.entry_addresses(key);
            let age = object.map(|object| object.age.clone()).unwrap_or_default();
            self.move_claims(work, &entry, &before, (&after, &age));
            work.workloads.insert(entry);
        } else {
            work.policies.extend([old, new].into_iter().flatten());
        }
    }

    fn entry_addresses(&self, key: &PolicyKey) -> Vec<IpAddr> {
        if key.kind != Kind::WorkloadEntry {
            return Vec::new();
        }
        self.entry(&key.object).map(|(workload, _)| workload.addresses).unwrap_or_default()
    }

    fn entry(&self, key: &ObjectKey) -> Option<(Workload, Origin)> {
        let resources = self.policies.entry(key)?;
        resources.workloads(&self.settings.trust_domain).into_iter().flatten().next()
    }

    /// Who stands behind a Service now.
    fn settle_service(&mut self, work: &mut Work, key: &ObjectKey) {
        self.forget_endpoints(key);
        let mut members = BTreeMap::<WorkloadKey, (Member, bool)>::new();
        let slices = self.slices_of.get(key).cloned().unwrap_or_default();
        for slice in slices.iter().filter_map(|slice| self.slices.get(slice)).cloned().collect::<Vec<_>>() {
            self.add_members(key, &slice, &mut members);
        }
        let Some(state) = self.services.get_mut(key) else { return };
        let somebody = members.values().any(|(member, _)| member.chosen);
        let after: BTreeMap<_, _> = members
            .into_iter()
            .map(|(workload, (mut member, last_resort))| {
                member.chosen |= !somebody && last_resort;
                (workload, member)
            })
            .collect();
        let before = std::mem::take(&mut state.members);
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
        let differs = |workload: &WorkloadKey| before.get(workload) != after.get(workload);
        let changed: Vec<_> = keys.into_iter().filter(differs).collect();
        let addresses = state.info.addresses.clone();
        let now: Vec<_> = after.keys().cloned().collect();
        state.members = after;
        if !changed.is_empty() {
            work.dirty.addresses.extend(addresses);
        }
        work.workloads.extend(changed);
        self.forget_members(key, before.keys());
        for workload in now {
            self.services_of.entry(workload).or_default().insert(key.clone());
        }
    }

    fn forget_endpoints(&mut self, service: &ObjectKey) {
        for address in self.endpoints_of.remove(service).into_iter().flatten() {
            if let Some(services) = self.services_by_endpoint.get_mut(&address) {
                services.remove(service);
                if services.is_empty() {
                    self.services_by_endpoint.remove(&address);
                }
            }
        }
        for pod in self.endpoint_pods_of.remove(service).into_iter().flatten() {
            if let Some(services) = self.services_by_pod.get_mut(&pod) {
                services.remove(service);
                if services.is_empty() {
                    self.services_by_pod.remove(&pod);
                }
            }
        }
    }

    fn add_members(
        &mut self,
        service: &ObjectKey,
        slice: &SliceInfo,
        members: &mut BTreeMap<WorkloadKey, (Member, bool)>,
    ) {
        let (mut ports, mut all_chosen) = (BTreeSet::new(), false);
        if let Some(state) = self.services.get(service) {
            all_chosen = state.info.publish_not_ready;
            for own in &state.info.ports {
                let target = slice.ports.iter().find(|(name, _)| *name == own.name);
                ports.extend(target.map(|(_, target)| (own.port, *target)));
            }
        }
        for endpoint in &slice.endpoints {
            let workload = match &endpoint.pod {
                Some((name, uid)) => {
                    let pod = ObjectKey { namespace: Arc::clone(&service.namespace), name: Arc::clone(name) };
                    self.services_by_pod.entry(pod.clone()).or_default().insert(service.clone());
                    self.endpoint_pods_of.entry(service.clone()).or_default().insert(pod.clone());
                    let info = self.pods.get(&pod);
                    info.filter(|info| uid.as_ref().is_none_or(|uid| *uid == info.uid))
                        .map(|_| WorkloadKey::Pod(pod))
                }
                None => {
                    self.services_by_endpoint.entry(endpoint.address).or_default().insert(service.clone());
                    self.endpoints_of.entry(service.clone()).or_default().insert(endpoint.address);
                    self.holders.of(endpoint.address).cloned()
                }
            };
            let Some(workload) = workload else { continue };
            let (member, last_resort) = members.entry(workload).or_default();
            member.ports.extend(&ports);
            member.chosen |= all_chosen || endpoint.ready;
            *last_resort |= endpoint.last_resort;
        }
    }

    fn settle_policies(&mut self, work: &mut Work) {
        if work.policies.is_empty() {
            return;
        }
        self.resources = self.policies.merged();
        for (key, pod) in &self.pods {
            let concerned = work.policies.iter().any(|part| {
                let known = self.known.get(&WorkloadKey::Pod(key.clone()));
                part.sets_modes_of(&self.settings, &key.namespace, &pod.labels)
                    || part.authorizes_for(&self.settings, &key.namespace, &pod.labels)
                    || known.is_some_and(|known| part.names(&known.workload))
            });
            if concerned {
                work.dirty.pods.insert(key.clone());
            }
        }
        for known in self.known.values_mut() {
            let workload = &known.workload;
            let concerned = work.policies.iter().any(|part| {
                part.names(workload)
                    || part.sets_modes_of(&self.settings, &workload.namespace, &workload.labels)
            });
            if concerned {
                work.dirty.addresses.extend(known.addresses.iter().map(|(address, _)| *address));
            }
            known.forget_told();
        }
        let concerned = |state: &&ServiceState| {
            let members = state.members.keys().filter_map(|key| self.known.get(key));
            members.flat_map(|known| &known.addresses).any(|(own, _)| work.dirty.addresses.contains(own))
        };
        let services = self.services.values().filter(|state| !state.info.addresses.is_empty());
        let behind: Vec<_> =
            services.filter(concerned).flat_map(|state| &state.info.addresses).copied().collect();
        work.dirty.addresses.extend(behind);
    }

    /// What a workload is now, if it still is one.
    fn settle_workload(&mut self, work: &mut Work, key: &WorkloadKey) {
        let before = self.known.remove(key);
        let after = self.make(key);
        let versions = (
            before.as_ref().map(|known| known.encoded.version),
            after.as_ref().map(|known| known.encoded.version),
        );
        let same = before
            .as_ref()
            .zip(after.as_ref())
            .is_some_and(|(before, after)| before.workload == after.workload && before.entry == after.entry);
        if versions.0 != versions.1 || !same {
            let addresses = before.iter().chain(&after).flat_map(|known| &known.addresses);
            work.dirty.addresses.extend(addresses.map(|(address, _)| *address));
            let services = self.services_of.get(key).into_iter().flatten();
            let services = services.filter_map(|service| self.services.get(service));
            work.dirty.addresses.extend(services.flat_map(|state| &state.info.addresses));
            if let Some(after) = after {
                self.known.insert(key.clone(), after);
            }
            // Which rules tell its clients something depends on its Services.
            if let WorkloadKey::Pod(pod) = key {
                work.dirty.pods.insert(pod.clone());
            }
        } else if let Some(before) = before {
            self.known.insert(key.clone(), before);
        }
    }

    fn make(&self, key: &WorkloadKey) -> Option<Known> {
        let held = |addresses: &[IpAddr]| -> Vec<IpAddr> {
            addresses.iter().copied().filter(|address| self.holders.of(*address) == Some(key)).collect()
        };
        let memberships = self.memberships(key);
        let services = memberships.iter().flat_map(|(state, member)| member.service_ports(&state.info));
        let (workload, entry, pod) = match key {
            WorkloadKey::Pod(object) => {
                let pod = self.pods.get(object)?;
                let facts =
                    pod.facts(&self.cluster, held(&pod.addresses), services.collect(), self.locality(pod));
                let entry = Origin::Resource {
                    kind: Kind::Pod,
                    namespace: Arc::clone(&object.namespace),
                    name: Arc::clone(&object.name),
                    detail: "".into(),
                };
                (facts.workload(&self.settings.trust_domain)?, entry, Some(pod))
            }
            WorkloadKey::Entry(object) => {
                let (mut workload, entry) = self.entry(object)?;
                workload.addresses = held(&workload.addresses);
                workload.services = services.collect();
                (workload, entry, None)
            }
        };
        if workload.addresses.is_empty() {
            return None;
        }
        let mut message = workload.to_wire();
        message.node = pod.and_then(|pod| pod.node.as_deref()).unwrap_or_default().to_owned();
        message.workload_type = kind_of(pod).into();
        known::say_memberships(&mut message, &memberships);
        let encoded = Encoded::new(&Address { r#type: Some(Type::Workload(message)) });
        Some(Known::new(workload, entry, encoded))
    }

    /// The Services of a workload, the oldest first.
    fn memberships(&self, key: &WorkloadKey) -> Vec<(&ServiceState, &Member)> {
        let services = self.services_of.get(key).into_iter().flatten();
        let states = services.filter_map(|service| self.services.get(service));
        let mut own: Vec<_> = states.filter_map(|state| Some((state, state.members.get(key)?))).collect();
        own.sort_by_key(|(state, _)| (&state.info.age, &state.info.key));
        own
    }

    fn settle_ranges(&mut self, work: &mut Work) {
        let nodes = self.nodes.values().flat_map(|node| &node.ranges);
        let services = self.ranges.values().flatten();
        let all: HashSet<IpNet> =
            self.settings.mesh_ranges.iter().chain(nodes).chain(services).copied().collect();
        let mut mesh = IpNet::aggregate(&all.into_iter().collect());
        mesh.sort();
        if mesh != self.mesh {
            self.mesh = mesh;
            work.dirty.all_pods = true;
        }
    }
}
