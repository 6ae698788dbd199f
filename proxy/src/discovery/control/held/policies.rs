//! What decides about connections to this pod. Its policies count as a whole or not at all.

use std::sync::Arc;

use ipnet::IpNet;
use ringmail_policy::{Inbound, Outbound, WireError};
use ringmail_xds::{discovery::NamedResource, ringmail, security::Authorization};

use super::{
    Held, Kind, MAX_POLICIES, Named,
    fault::{Fault, Incomplete, limit},
};

impl Held {
    pub(super) fn take_inbound(&mut self, resource: &NamedResource) -> Result<(), Fault> {
        let named = Named::<ringmail::Inbound>::read(resource)?;
        let field = |error| Fault::Field { name: resource.name.clone(), error };
        ranges(&named.message).map_err(field)?;
        // Judged now, so that a message that makes no decisions is refused before it takes another's place.
        Inbound::from_wire(&named.message, []).map_err(field)?;
        let before = self.inbound.as_ref().map_or(0, |known| known.weight);
        self.weigh(Kind::Policies, before, named.weight, &resource.name)?;
        self.inbound = Some(named);
        self.inbound_changed = true;
        Ok(())
    }

    /// The server knows this pod no longer. What it said stays: a pod that is being deleted still drains.
    pub(super) fn lose_inbound(&mut self, _name: &str) {}

    pub(super) fn take_policy(&mut self, resource: &NamedResource) -> Result<(), Fault> {
        let named = Named::<Authorization>::read(resource)?;
        if self.policies.len() >= MAX_POLICIES && !self.policies.contains_key(&resource.name) {
            return Err(limit(resource, "policies", MAX_POLICIES));
        }
        let judged = Inbound::from_wire(&ringmail::Inbound::permissive(), [&named.message]);
        judged.map_err(|error| Fault::Field { name: resource.name.clone(), error })?;
        let before = self.policies.get(&resource.name).map_or(0, |known| known.weight);
        self.weigh(Kind::Policies, before, named.weight, &resource.name)?;
        self.policies.insert(resource.name.clone(), named);
        self.inbound_changed = true;
        Ok(())
    }

    pub(super) fn lose_policy(&mut self, name: &str) {
        let known = self.policies.remove(name);
        self.policies_weight -= known.map_or(0, |known| known.weight);
        self.inbound_changed = true;
    }

    /// Takes the own policies as a whole, where the whole is there.
    pub(super) fn remake_inbound(&mut self) {
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
    pub(in super::super) fn complete(&self) -> Result<Arc<Inbound>, Incomplete> {
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
