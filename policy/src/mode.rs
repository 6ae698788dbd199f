//! Which mode a port is served in: PeerAuthentication's precedence for one workload.
//!
//! Workload policy over namespace policy over mesh policy; inside a scope the oldest wins whole and the others
//! are ignored, never merged; a mode that is UNSET is inherited from the scope above, and the mesh's own default
//! is PERMISSIVE. Modes per port come from the winning workload policy only.

use std::collections::BTreeMap;

use crate::origin::Origin;
use crate::peer_authentication::PeerAuthentication;
use crate::report::Report;
use crate::resource::{Labels, selects};

/// How connections to one port of a workload are served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Plaintext only: the sidecar passes bytes through.
    Disable,
    /// Mutual TLS or plaintext, whichever the client speaks.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

impl Mode {
    /// The name as PeerAuthentication spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
        }
    }
}

/// A mode and what set it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ModeDecision {
    /// The mode the port is served in.
    pub mode: Mode,
    /// The policy that says so.
    pub decided_by: Origin,
}

/// The modes of all ports of one workload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PortModes {
    pub(crate) workload: ModeDecision,
    pub(crate) ports: BTreeMap<u16, ModeDecision>,
}

impl PortModes {
    /// `policies` must be ordered from the oldest to the youngest.
    pub(crate) fn compile(
        policies: &[PeerAuthentication],
        root_namespace: &str,
        namespace: &str,
        labels: &Labels,
    ) -> Self {
        let winners = Winners::choose(policies, root_namespace, namespace, labels);
        let mut workload = ModeDecision {
            mode: Mode::Permissive,
            decided_by: Origin::default("no PeerAuthentication sets a mode"),
        };
        for policy in [winners.mesh, winners.namespace, winners.workload].into_iter().flatten() {
            if let Some(mode) = policy.mode {
                workload = ModeDecision { mode, decided_by: policy.meta.origin("") };
            }
        }
        let mut ports = BTreeMap::new();
        if let Some(policy) = winners.workload {
            for (&port, &mode) in &policy.ports {
                let decision = mode.map(|mode| ModeDecision {
                    mode,
                    decided_by: policy.meta.origin(&format!("port {port}")),
                });
                ports.insert(port, decision.unwrap_or_else(|| workload.clone()));
            }
        }
        Self { workload, ports }
    }

    pub(crate) fn at(&self, port: u16) -> &ModeDecision {
        self.ports.get(&port).unwrap_or(&self.workload)
    }
}

/// The policy that holds in each scope.
#[derive(Default)]
struct Winners<'a> {
    mesh: Option<&'a PeerAuthentication>,
    namespace: Option<&'a PeerAuthentication>,
    workload: Option<&'a PeerAuthentication>,
}

impl<'a> Winners<'a> {
    fn choose(policies: &'a [PeerAuthentication], root: &str, namespace: &str, labels: &Labels) -> Self {
        let mut winners = Self::default();
        for policy in policies {
            match Scope::of(policy, root) {
                Scope::Mesh => _ = winners.mesh.get_or_insert(policy),
                Scope::Namespace if &*policy.meta.namespace == namespace => {
                    winners.namespace.get_or_insert(policy);
                }
                Scope::Workload
                    if &*policy.meta.namespace == namespace && selects(&policy.selector, labels) =>
                {
                    winners.workload.get_or_insert(policy);
                }
                Scope::Namespace | Scope::Nothing | Scope::Workload => {}
            }
        }
        winners
    }
}

/// What a policy can hold for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Scope {
    Mesh,
    Namespace,
    /// A selector in the root namespace: Istio ignores such a policy.
    Nothing,
    Workload,
}

impl Scope {
    fn of(policy: &PeerAuthentication, root: &str) -> Self {
        match (policy.selector.is_empty(), &*policy.meta.namespace == root) {
            (true, true) => Self::Mesh,
            (true, false) => Self::Namespace,
            (false, true) => Self::Nothing,
            (false, false) => Self::Workload,
        }
    }
}

/// Whether `policy` has a say in how a workload is served, or is reported to its author.
pub(crate) fn concerns(policy: &PeerAuthentication, root: &str, namespace: &str, labels: &Labels) -> bool {
    let own = &*policy.meta.namespace == namespace;
    match Scope::of(policy, root) {
        Scope::Mesh | Scope::Nothing => true,
        Scope::Namespace => own,
        Scope::Workload => own && selects(&policy.selector, labels),
    }
}

/// What a pod's author should know about the policies around it: the ignored ones and the overridden ones.
pub(crate) fn reports(
    policies: &[PeerAuthentication],
    root: &str,
    namespace: &str,
    labels: &Labels,
) -> Vec<Report> {
    let winners = Winners::choose(policies, root, namespace, labels);
    let mut reports = Vec::new();
    for policy in policies {
        let own = &*policy.meta.namespace == namespace;
        let winner = match Scope::of(policy, root) {
            Scope::Mesh => winners.mesh,
            Scope::Namespace if own => winners.namespace,
            Scope::Workload if own && selects(&policy.selector, labels) => winners.workload,
            Scope::Namespace | Scope::Workload => None,
            Scope::Nothing => {
                reports.push(policy.meta.report(
                    "ignored: a PeerAuthentication with a selector has no effect in the root namespace",
                ));
                None
            }
        };
        if let Some(winner) = winner
            && !std::ptr::eq(winner, policy)
        {
            reports.push(policy.meta.report(format!(
                "shadowed: {} is older and has the same scope; policies of one scope are not merged",
                winner.meta.origin("")
            )));
        }
    }
    reports
}
