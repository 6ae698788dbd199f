//! AuthorizationPolicy: who may open a connection to the pod.
//!
//! CUSTOM before DENY before ALLOW; without an ALLOW policy everyone may. Two rules decide what cannot be
//! known at this layer, always to the safe side: what a rule asks about HTTP drops the rule from an ALLOW and
//! is left out of a DENY, and a negative match (`notPrincipals`) of a peer without identity holds in a DENY and
//! does not hold in an ALLOW.

mod condition;
mod decide;
mod parse;
mod rule;

pub(crate) use condition::{Attribute, Condition};
pub(crate) use decide::{Authorization, CompiledPolicy, CompiledRule, Effect, reports};
pub use decide::{Request, Verdict};

use crate::resource::{Labels, Meta};

/// What a matching rule does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Allow,
    Audit,
    Custom,
    Deny,
}

impl Action {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
            Self::Deny => "DENY",
        }
    }
}

/// A parsed policy. Its rules hold only what this layer can decide.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizationPolicy {
    pub(crate) meta: Meta,
    pub(crate) selector: Labels,
    pub(crate) action: Action,
    /// Dropped rules are not among them.
    pub(crate) rules: Vec<Rule>,
    /// `istio.io/dry-run`: evaluated nowhere.
    pub(crate) dry_run: bool,
    /// A policy for gateways and waypoints, which a sidecar does not serve.
    pub(crate) targets_gateway: bool,
}

/// One rule: some `from`, some `to` and every `when` must hold. An empty list holds.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// The rule's place in its policy, from 0, dropped rules counted.
    pub(crate) index: usize,
    pub(crate) from: Vec<Vec<Condition>>,
    pub(crate) to: Vec<Vec<Condition>>,
    pub(crate) when: Vec<Condition>,
}
