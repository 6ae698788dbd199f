//! Who connects and who answers: found by the WorkloadEntry of an address or name, or the pod of the settings file itself.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use ringmail_identity::SpiffeId;
use ringmail_policy::{Outbound, Pod, Resources, Workload};
use serde::Serialize;

use super::settings::MeshSettings;

/// Who connects, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Address(IpAddr),
    Named { namespace: String, name: String },
}

impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Named { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            Some(_) | None => Err("expected an IP address or namespace/name".to_owned()),
        }
    }
}

/// One end of the connection.
#[derive(Clone, Debug, Serialize)]
pub(super) struct End {
    pub(super) address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    /// `namespace/name`, where it is known.
    pub(super) name: Option<String>,
    /// What its sidecar presents; none without a sidecar.
    pub(super) identity: Option<String>,
    pub(super) sidecar: bool,
    #[serde(skip)]
    pub(super) id: Option<SpiffeId>,
    #[serde(skip)]
    pub(super) pod: Option<Pod>,
}

/// Everybody who is known.
pub(super) struct World<'a> {
    mesh: &'a MeshSettings,
    known: Outbound,
}

impl<'a> World<'a> {
    pub(super) fn new(resources: &Resources, mesh: &'a MeshSettings) -> Self {
        Self { mesh, known: Outbound::compile(resources, &mesh.settings) }
    }

    /// Who connects. An address about which nothing is known is somebody without a sidecar; a name must be known.
    pub(super) fn client(&self, party: &Party) -> Result<End> {
        match party {
            Party::Address(address) => Ok(self.at(*address)),
            Party::Named { namespace, name } => self.named(namespace, name),
        }
    }

    /// Who answers at an address.
    pub(super) fn destination(&self, to: SocketAddr) -> End {
        End { port: Some(to.port()), ..self.at(to.ip().to_canonical()) }
    }

    fn at(&self, address: IpAddr) -> End {
        if let Some(workload) = self.known.workload(address) {
            return self.end_of(workload, address);
        }
        if self.mesh.own.addresses.iter().any(|own| own.to_canonical() == address) {
            return self.own(address);
        }
        End { address, port: None, name: None, identity: None, sidecar: false, id: None, pod: None }
    }

    fn named(&self, namespace: &str, name: &str) -> Result<End> {
        let mut found: Vec<_> = self
            .known
            .workloads()
            .filter(|workload| workload.namespace == namespace)
            .filter(|workload| workload.name == name)
            .collect();
        found.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        if let Some(workload) = found.first() {
            let address = workload.addresses.first().context("a WorkloadEntry without an address")?;
            return Ok(self.end_of(workload, *address));
        }
        let own = namespace == self.mesh.own.namespace && Some(name) == self.mesh.own_name.as_deref();
        if let Some(address) = self.mesh.own.addresses.first().filter(|_| own) {
            return Ok(self.own(address.to_canonical()));
        }
        ensure!(!own, "{namespace}/{name} is the pod of the settings file, which names no pod_addresses");
        let mut names: Vec<_> = self
            .known
            .workloads()
            .map(|workload| format!("{}/{}", workload.namespace, workload.name))
            .collect();
        names.sort();
        let known = if names.is_empty() { "there are none at all".to_owned() } else { names.join(", ") };
        bail!("no WorkloadEntry {namespace}/{name} in {}: {known}", self.mesh.policy_dir.display())
    }

    fn end_of(&self, workload: &Workload, address: IpAddr) -> End {
        let id = workload.in_mesh.then(|| workload.identity.clone());
        End {
            address,
            port: None,
            name: Some(format!("{}/{}", workload.namespace, workload.name)),
            identity: id.as_ref().map(ToString::to_string),
            sidecar: workload.in_mesh,
            id,
            pod: Some(Pod {
                namespace: workload.namespace.clone(),
                labels: workload.labels.clone(),
                service_account: workload.service_account.clone(),
                addresses: workload.addresses.clone(),
            }),
        }
    }

    /// The pod of the settings file: it has a sidecar, since these are its settings.
    fn own(&self, address: IpAddr) -> End {
        let own = &self.mesh.own;
        let name = self.mesh.own_name.as_deref().unwrap_or("(this pod)");
        let id = SpiffeId::for_service_account(
            &self.mesh.settings.trust_domain,
            &own.namespace,
            &own.service_account,
        )
        .ok();
        End {
            address,
            port: None,
            name: Some(format!("{}/{name}", own.namespace)),
            identity: id.as_ref().map(ToString::to_string),
            sidecar: true,
            id,
            pod: Some(own.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_is_an_address_or_a_name_with_its_namespace() {
        assert_eq!("10.0.0.1".parse(), Ok(Party::Address([10, 0, 0, 1].into())));
        assert_eq!("::ffff:10.0.0.1".parse(), Ok(Party::Address([10, 0, 0, 1].into())));
        let named = Party::Named { namespace: "ignite".into(), name: "n1".into() };
        assert_eq!("ignite/n1".parse(), Ok(named));
        for wrong in ["n1", "/n1", "ignite/", "a/b/c", "", "10.0.0.1:80"] {
            assert!(wrong.parse::<Party>().is_err(), "{wrong}");
        }
    }
}
