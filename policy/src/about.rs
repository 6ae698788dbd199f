//! What concerns one pod, told to a person who asks: the resources by name and what they say.
//!
//! Nothing is decided here. What becomes of a connection is for [`Inbound`](crate::Inbound) and
//! [`Outbound`](crate::Outbound) alone to say.

use std::collections::BTreeMap;

use crate::authorization::Effect;
use crate::destination_rule::{ClientTls, DestinationRule};
use crate::inbound::Inbound;
use crate::origin::Origin;
use crate::parse::Resources;
use crate::workload::Workload;

/// An AuthorizationPolicy that is enforced for a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EnforcedPolicy {
    /// Which one.
    pub origin: Origin,
    /// Its action as it is spelled: `ALLOW`, `DENY` or `CUSTOM`.
    pub action: &'static str,
    /// How many of its rules are in force; an ALLOW policy without any lets nobody in.
    pub rules: usize,
}

/// A DestinationRule that names a host of a workload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamingRule {
    /// Which one.
    pub origin: Origin,
    /// Its host, in full or with `*` in front.
    pub host: String,
    /// What it tells clients to speak, such as `DISABLE, port 10800 ISTIO_MUTUAL`; empty where it leaves the choice to
    /// them.
    pub tls: String,
}

/// A policy that asks for labels of the pods it is meant for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Selecting<'a> {
    /// Which one.
    pub origin: Origin,
    /// Its namespace.
    pub namespace: &'a str,
    /// The labels it asks for, at least one.
    pub selector: &'a BTreeMap<String, String>,
}

impl Inbound {
    /// The AuthorizationPolicies that are enforced, oldest first.
    pub fn authorizations(&self) -> Vec<EnforcedPolicy> {
        let policies = self.authorization.policies().iter();
        let told = policies.map(|policy| EnforcedPolicy {
            origin: policy.origin(""),
            action: match policy.effect {
                Effect::Allow => "ALLOW",
                Effect::Custom => "CUSTOM",
                Effect::Deny => "DENY",
            },
            rules: policy.rules.len(),
        });
        told.collect()
    }

    /// The ports for which a PeerAuthentication sets a mode of their own, in order.
    pub fn ports_with_modes(&self) -> impl Iterator<Item = u16> {
        self.modes.ports.keys().copied()
    }
}

impl Resources {
    /// The DestinationRules that name a host of `workload`, oldest first, whether or not one decides.
    pub fn rules_naming(&self, workload: &Workload) -> Vec<NamingRule> {
        self.rules_that_name(workload).into_iter().map(NamingRule::of).collect()
    }

    /// The PeerAuthentications and AuthorizationPolicies with a selector.
    pub fn selecting(&self) -> impl Iterator<Item = Selecting<'_>> {
        let peers = self.peer_authentications.iter().map(|policy| (&policy.meta, &policy.selector));
        let rights = self.authorization_policies.iter().map(|policy| (&policy.meta, &policy.selector));
        let selecting = peers.chain(rights).filter(|(_, selector)| !selector.is_empty());
        selecting.map(|(meta, selector)| Selecting {
            origin: meta.origin(""),
            namespace: &meta.namespace,
            selector,
        })
    }
}

impl NamingRule {
    fn of(rule: &DestinationRule) -> Self {
        let word = |tls: ClientTls| tls.as_str();
        let whole = rule.whole().map(|decision| word(decision.tls).to_owned());
        let ports = rule.ports().map(|port| match rule.at(port) {
            Some(decision) => format!("port {port} {}", word(decision.tls)),
            None => format!("port {port} left to the client"),
        });
        let tls: Vec<_> = whole.into_iter().chain(ports).collect();
        Self { origin: rule.meta.origin(""), host: rule.host().to_owned(), tls: tls.join(", ") }
    }
}
