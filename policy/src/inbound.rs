//! Everything that policy says about connections to one pod.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::authorization::{self, Authorization, Request, Verdict};
use crate::mode::{self, ModeDecision, PortModes};
use crate::parse::Resources;
use crate::report::Report;
use crate::settings::{Pod, Settings};
use crate::workload;

/// The compiled decisions for connections to one pod. A change of any resource makes a new one.
#[derive(Clone, Debug)]
pub struct Inbound {
    modes: PortModes,
    authorization: Authorization,
    mesh_sources: HashSet<IpAddr>,
    reports: Vec<Report>,
}

impl Inbound {
    /// Compiles what holds for `pod`.
    pub fn compile(resources: &Resources, settings: &Settings, pod: &Pod) -> Self {
        let (root, namespace, labels) = (&*settings.root_namespace, &*pod.namespace, &pod.labels);
        let peers = &resources.peer_authentications;
        let mut reports = mode::reports(peers, root, namespace, labels);
        reports.extend(authorization::reports(&resources.authorization_policies, settings, pod));
        let (entries, _) = workload::by_address(&resources.workload_entries);
        let mesh = entries.into_iter().filter(|(_, entry)| entry.in_mesh());
        Self {
            modes: PortModes::compile(peers, root, namespace, labels),
            authorization: Authorization::compile(&resources.authorization_policies, settings, pod),
            mesh_sources: mesh.map(|(address, _)| address).collect(),
            reports,
        }
    }

    /// The mode in which the container port `port` is served.
    pub fn mode(&self, port: u16) -> ModeDecision {
        self.modes.at(port).clone()
    }

    /// Whether a connection may go on. The answer for the same request changes only with a new `Inbound`.
    pub fn authorize(&self, request: &Request<'_>) -> Verdict {
        self.authorization.decide(request)
    }

    /// Whether the workload at `address` has a sidecar, so that plaintext from there is nobody's intention.
    pub fn source_in_mesh(&self, address: IpAddr) -> bool {
        self.mesh_sources.contains(&address.to_canonical())
    }

    /// What of the resources that concern this pod is shadowed or not enforced.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }
}
