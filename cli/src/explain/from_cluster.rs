//! The world of a cluster: its pods, Services, WorkloadEntries and policies, as `ringmail-control` sees them.

mod services;

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod as KubePod;
use ringmail_control::inject::{Sidecar, sidecar_of};
use ringmail_policy::{Kind, Origin, Outbound, Pod, Report, Resources, Settings, Workload};

use super::party::{Destination, End, Party, Target, World};
use super::settings::Outside;
use crate::cluster::{Capture, Mesh};

/// The setting of a sidecar that says what becomes of connections that leave the mesh.
const OUTBOUND_OUTSIDE: &str = "RINGMAIL_OUTBOUND_OUTSIDE";

/// See the module.
pub(super) struct Cluster<'a> {
    mesh: &'a Mesh,
    settings: Settings,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(mesh: &'a Mesh) -> Self {
        Self { mesh, settings: mesh.snapshot.settings() }
    }

    fn end_of(&self, workload: &Workload, origin: &Origin, address: IpAddr) -> End {
        let sidecar = self.sidecar(workload, origin);
        let setting = sidecar.as_ref().and_then(|sidecar| sidecar.environment.get(OUTBOUND_OUTSIDE));
        let outside = match setting.map(String::as_str) {
            Some("refuse") => Outside::Refuse,
            Some(_) | None => Outside::Passthrough,
        };
        let capture = sidecar.and_then(|sidecar| Capture::read(&sidecar.capture));
        End { capture, ..End::of(workload, address, origin.to_string(), outside) }
    }

    fn sidecar(&self, workload: &Workload, origin: &Origin) -> Option<Sidecar> {
        let Origin::Resource { kind: Kind::Pod, .. } = origin else { return None };
        let pod = self.mesh.pod(&workload.namespace, &workload.name).ok()?;
        sidecar_of(&serde_json::to_value(pod).ok()?)
    }

    fn named(&self, namespace: &str, name: &str, ipv4: Option<bool>) -> Result<End> {
        let snapshot = &self.mesh.snapshot;
        let found = snapshot.pod(namespace, name).or_else(|| snapshot.entry(namespace, name));
        if let Some((workload, origin)) = found {
            let own = || workload.addresses.iter().copied();
            let like = own().find(|own| ipv4.is_some_and(|ipv4| own.is_ipv4() == ipv4));
            let address = like.or_else(|| own().next()).context("a workload without an address")?;
            return Ok(self.end_of(workload, origin, address));
        }
        let pod = self.mesh.pod(namespace, name)?;
        without_workload(pod, namespace, name)
    }

    fn host(&self, labels: &[String], port: u16) -> Result<Destination> {
        let by_hostname = |hostname: &str, subdomain: &str, namespace: &str| {
            self.mesh.objects.pods.iter().find(|pod| {
                let spec = pod.spec.as_ref();
                pod.metadata.namespace.as_deref() == Some(namespace)
                    && spec.and_then(|spec| spec.hostname.as_deref()) == Some(hostname)
                    && spec.and_then(|spec| spec.subdomain.as_deref()) == Some(subdomain)
            })
        };
        match labels {
            [name, namespace] => self
                .service(namespace, name, port)?
                .with_context(|| {
                    let place = &self.mesh.place;
                    format!(
                        "{name}.{namespace} is no name of {place}'s DNS: there is no Service {namespace}/{name}; for \
                         what is outside the cluster give its address"
                    )
                }),
            [hostname, subdomain, namespace] => {
                let pod =
                    by_hostname(hostname, subdomain, namespace).and_then(|pod| pod.metadata.name.as_ref());
                let name = pod.with_context(|| {
                    format!(
                        "no pod of namespace {namespace} has hostname {hostname} and subdomain {subdomain}"
                    )
                })?;
                let to = self.named(namespace, name, None)?;
                Ok(Destination { to: End { port: Some(port), ..to }, behind: None })
            }
            _ => bail!("expected service.namespace or hostname.service.namespace"),
        }
    }

    fn is_of(&self, namespace: &str, namespaces: &[&str]) -> bool {
        namespace == self.settings.root_namespace || namespaces.contains(&namespace)
    }
}

/// A pod that discovery does not count.
fn without_workload(pod: &KubePod, namespace: &str, name: &str) -> Result<End> {
    let spec = pod.spec.as_ref();
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    if matches!(phase, "Failed" | "Succeeded") {
        bail!("pod {namespace}/{name} has ended ({phase}), and nobody is at its address");
    }
    let address: Option<IpAddr> = status.pod_ip.as_deref().and_then(|text| text.parse().ok());
    let Some(address) = address else {
        bail!(
            "pod {namespace}/{name} has no address yet ({phase}); `ringmail describe pod` says what it waits for"
        );
    };
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        let known_by = format!("Pod {namespace}/{name} has its node's network");
        return Ok(End { name: Some(format!("{namespace}/{name}")), known_by, ..End::unknown(address) });
    }
    bail!("pod {namespace}/{name} does not hold its address {address} any more: a newer one has it")
}

impl World for Cluster<'_> {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn resources(&self) -> &Resources {
        self.mesh.snapshot.resources()
    }

    fn at(&self, address: IpAddr) -> End {
        match self.mesh.snapshot.workload_at(address) {
            Some((workload, origin)) => self.end_of(workload, origin, address),
            None => End::unknown(address),
        }
    }

    fn client(&self, party: &Party, ipv4: Option<bool>) -> Result<End> {
        match party {
            Party::Address(address) => Ok(self.at(*address)),
            Party::Named { namespace, name } => self.named(namespace, name, ipv4),
        }
    }

    fn destination(&self, target: &Target) -> Result<Destination> {
        match target {
            Target::Address(to) => match self.mesh.snapshot.service_at(to.ip()) {
                Some((namespace, name)) => {
                    let found = self.service(namespace, name, to.port())?;
                    let mut found = found.with_context(|| format!("no Service {namespace}/{name}"))?;
                    // It may be its second address, of the other family.
                    if let Some(behind) = &mut found.behind {
                        let endpoints =
                            self.mesh.snapshot.endpoints((namespace, name), to.port(), to.is_ipv4());
                        behind.endpoints = endpoints.unwrap_or_default();
                    }
                    found.to.address = to.ip();
                    Ok(found)
                }
                None => self.outside_address(*to),
            },
            Target::Host { labels, port } => self.host(labels, *port),
            Target::Named { party, port } => match self.client(party, None) {
                Ok(to) => Ok(Destination { to: End { port: Some(*port), ..to }, behind: None }),
                Err(error) => match party {
                    // Whoever says ignite/ignite may mean the Service.
                    Party::Named { namespace, name } => self.service(namespace, name, *port)?.ok_or(error),
                    Party::Address(_) => Err(error),
                },
            },
        }
    }

    fn outbound(&self, client: &Pod, address: IpAddr) -> Outbound {
        self.mesh.snapshot.outbound(client, &[address])
    }

    fn cite(&self, report: &Report, namespaces: &[&str]) -> Option<String> {
        let Report { kind, namespace, name, text, .. } = report;
        self.is_of(namespace, namespaces).then(|| format!("{kind} {namespace}/{name}: {text}"))
    }

    fn faults(&self, namespaces: &[&str]) -> Vec<String> {
        let notices = self.mesh.snapshot.notices();
        let faults =
            notices.into_iter().filter(|notice| notice.fault && self.is_of(&notice.namespace, namespaces));
        let told = faults.map(|notice| {
            format!("{} {}/{}: {}", notice.kind, notice.namespace, notice.name, notice.texts.join("; "))
        });
        told.collect()
    }
}
