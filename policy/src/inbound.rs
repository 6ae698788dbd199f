//! Everything that policy says about connections to one pod.

use crate::authorization::{self, Authorization, Request, Verdict};
use crate::mode::{self, ModeDecision, PortModes};
use crate::parse::Resources;
use crate::report::Report;
use crate::settings::{Pod, Settings};

/// The compiled decisions for connections to one pod. A change of any resource makes a new one.
#[derive(Clone, Debug)]
pub struct Inbound {
    pub(crate) modes: PortModes,
    pub(crate) authorization: Authorization,
    pub(crate) reports: Vec<Report>,
}

impl Inbound {
    /// Compiles what holds for `pod`.
    pub fn compile(resources: &Resources, settings: &Settings, pod: &Pod) -> Self {
        let (root, namespace, labels) = (&*settings.root_namespace, &*pod.namespace, &pod.labels);
        let peers = &resources.peer_authentications;
        let mut reports = mode::reports(peers, root, namespace, labels);
        reports.extend(authorization::reports(&resources.authorization_policies, settings, pod));
        Self {
            modes: PortModes::compile(peers, root, namespace, labels),
            authorization: Authorization::compile(&resources.authorization_policies, settings, pod),
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

    /// What of the resources that concern this pod is shadowed or not enforced.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }
}
