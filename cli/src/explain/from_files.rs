//! The world of a proxy's settings file: WorkloadEntries of the policy directory, and the pod of the settings itself.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use ringmail_identity::SpiffeId;
use ringmail_policy::{Outbound, Pod, Report, Resources, Settings, Workload};

use super::party::{Destination, End, Party, Target, World};
use super::settings::MeshSettings;

/// See the module.
pub(super) struct Files<'a> {
    mesh: &'a MeshSettings,
    resources: &'a Resources,
    known: Outbound,
}

impl<'a> Files<'a> {
    pub(super) fn new(resources: &'a Resources, mesh: &'a MeshSettings) -> Self {
        Self { mesh, resources, known: Outbound::compile(resources, &mesh.settings) }
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
        let known_by = format!("WorkloadEntry {}/{}", workload.namespace, workload.name);
        End::of(workload, address, known_by, self.mesh.outside)
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
            name: Some(format!("{}/{name}", own.namespace)),
            identity: id.as_ref().map(ToString::to_string),
            sidecar: true,
            known_by: "the settings file".to_owned(),
            id,
            pod: Some(own.clone()),
            outside: self.mesh.outside,
            ..End::unknown(address)
        }
    }
}

impl World for Files<'_> {
    fn settings(&self) -> &Settings {
        &self.mesh.settings
    }

    fn resources(&self) -> &Resources {
        self.resources
    }

    fn at(&self, address: IpAddr) -> End {
        if let Some(workload) = self.known.workload(address) {
            return self.end_of(workload, address);
        }
        if self.mesh.own.addresses.iter().any(|own| own.to_canonical() == address) {
            return self.own(address);
        }
        End::unknown(address)
    }

    fn client(&self, party: &Party, _: Option<bool>) -> Result<End> {
        match party {
            Party::Address(address) => Ok(self.at(*address)),
            Party::Named { namespace, name } => self.named(namespace, name),
        }
    }

    fn destination(&self, target: &Target) -> Result<Destination> {
        let (to, port) = match target {
            Target::Address(to) => (self.at(to.ip().to_canonical()), to.port()),
            Target::Named { party, port } => (self.client(party, None)?, *port),
            Target::Host { labels, .. } => {
                bail!(
                    "{} is a name of a cluster's DNS, and files name no Services: give an address",
                    labels.join(".")
                )
            }
        };
        Ok(Destination { to: End { port: Some(port), ..to }, behind: None })
    }

    fn outbound(&self, client: &Pod, _: IpAddr) -> Outbound {
        Outbound::compile_for(self.resources, &self.mesh.settings, client)
    }

    fn cite(&self, report: &Report, _: &[&str]) -> Option<String> {
        Some(report.to_string())
    }

    fn faults(&self, _: &[&str]) -> Vec<String> {
        Vec::new()
    }
}
