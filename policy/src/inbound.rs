//! Everything that policy says about connections to one pod.

use crate::authorization::{self, Authorization, Request, Verdict};
use crate::mode::{self, ModeDecision, PortModes};
use crate::origin::Origin;
use crate::parse::Resources;
use crate::plaintext::PlaintextPorts;
use crate::report::Report;
use crate::settings::{Pod, Settings};
use crate::workload::Workload;

/// The compiled decisions for connections to one pod. A change of any resource makes a new one.
#[derive(Clone, Debug)]
pub struct Inbound {
    pub(crate) modes: PortModes,
    pub(crate) authorization: Authorization,
    pub(crate) plaintext: PlaintextPorts,
    pub(crate) reports: Vec<Report>,
}

impl Inbound {
    /// Compiles what holds for `pod`, whose clients know it by its WorkloadEntry where the set has one.
    pub fn compile(resources: &Resources, settings: &Settings, pod: &Pod) -> Self {
        let (root, namespace, labels) = (&*settings.root_namespace, &*pod.namespace, &pod.labels);
        let peers = &resources.peer_authentications;
        let mut reports = mode::reports(peers, root, namespace, labels);
        reports.extend(authorization::reports(&resources.authorization_policies, settings, pod));
        let entry = resources.workload_entries.iter().rfind(|entry| pod.addresses.contains(&entry.address));
        let workload = entry.and_then(|entry| entry.workload(&settings.trust_domain));
        let plaintext = workload.map(|known| PlaintextPorts::compile(resources, settings, &known));
        Self {
            modes: PortModes::compile(peers, root, namespace, labels),
            authorization: Authorization::compile(&resources.authorization_policies, settings, pod),
            plaintext: plaintext.unwrap_or_default(),
            reports,
        }
    }

    /// The same for a pod that clients know as `workload`.
    #[must_use]
    pub fn known_as(self, workload: &Workload, resources: &Resources, settings: &Settings) -> Self {
        Self { plaintext: PlaintextPorts::compile(resources, settings, workload), ..self }
    }

    /// The mode in which the container port `port` is served.
    pub fn mode(&self, port: u16) -> ModeDecision {
        self.modes.at(port).clone()
    }

    /// The DestinationRule that has clients in the mesh dial `port` in plaintext, where one does: there, plaintext from
    /// one of them is meant. It changes nothing about the port's mode.
    pub fn plaintext_from_mesh(&self, port: u16) -> Option<&Origin> {
        self.plaintext.at(port)
    }

    /// Whether a connection may go on. The answer for the same request changes only with a new `Inbound`.
    pub fn authorize(&self, request: &Request<'_>) -> Verdict {
        self.authorization.decide(request)
    }

    /// What of the resources that concern this pod is shadowed or not enforced.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }
}
