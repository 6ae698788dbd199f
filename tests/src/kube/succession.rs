//! An address that goes from one pod to the next, with nothing in between.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{Toolbox, place::Place};

/// A pod's grace period, and what its node needs to take its network away.
const FREE_WITHIN: Duration = Duration::from_secs(30);

/// Its node has to start no more than the empty container that holds a pod's network.
const GIVEN_WITHIN: Duration = Duration::from_secs(20);

/// Where a pod is in the network.
#[derive(Clone, Debug)]
pub struct Held {
    node: String,
    addresses: Vec<IpAddr>,
}

impl Held {
    /// What the pod holds now. An error where it could not be passed on: on a cluster that is not of plain processes.
    pub fn by(place: &Place, pod: &str) -> Result<Self> {
        let node = place.field(&format!("pod/{pod}"), "{.spec.nodeName}")?;
        let held = Self { node, addresses: addresses_of(place, pod)? };
        let is_free = held.is_free(place).context("which address a pod gets cannot be chosen")?;
        ensure!(!is_free, "{pod} has {:?}, which its node takes for free", held.addresses);
        Ok(held)
    }

    /// The address that it is dialled at.
    pub fn address(&self) -> Result<String> {
        Ok(self.addresses.first().context("the pod has no address")?.to_string())
    }

    /// Makes `next` have the same addresses as soon as the node has taken them from whoever has them, and returns when
    /// it has them: its containers may still be starting. The scenario must be alone with the cluster: another pod that
    /// starts on the node meanwhile may get them instead, which is an error.
    pub fn pass_on(&self, place: &Place, next: &Toolbox) -> Result<()> {
        let what = format!("{} has taken {:?} back", self.node, self.addresses);
        place.until(FREE_WITHIN, &what, || Ok(self.is_free(place)?.then_some(())))?;
        place.stage().cluster().give_next(&self.node, &self.addresses)?;
        next.clone().spec(&format!("nodeName: {}", self.node)).begin(place)?;
        let name = next.name();
        let given = place.until(GIVEN_WITHIN, &format!("{name} has an address"), || {
            let addresses = addresses_of(place, name)?;
            Ok((!addresses.is_empty()).then_some(addresses))
        })?;
        ensure!(
            given == self.addresses,
            "{name} has {given:?}, expected {:?} to be given on",
            self.addresses
        );
        Ok(())
    }

    fn is_free(&self, place: &Place) -> Result<bool> {
        for address in &self.addresses {
            if !place.stage().cluster().has_free(&self.node, *address)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn addresses_of(place: &Place, pod: &str) -> Result<Vec<IpAddr>> {
    let addresses = place.field(&format!("pod/{pod}"), "{.status.podIPs[*].ip}")?;
    let parse = |text: &str| text.parse().with_context(|| format!("{pod}: read the address {text:?}"));
    addresses.split_whitespace().map(parse).collect()
}
