//! The decision on one connection, over the policies that select one pod.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ringmail_identity::SpiffeId;

use super::condition::Condition;
use super::{Action, AuthorizationPolicy, Rule};
use crate::origin::{Kind, Origin};
use crate::report::Report;
use crate::resource::selects;
use crate::settings::{Pod, Settings};

/// What is known about a connection when it is authorized.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The peer's identity from its certificate; none when it spoke plaintext.
    pub identity: Option<&'a SpiffeId>,
    /// The address the connection came from.
    pub source: IpAddr,
    /// The original destination: the pod's address and the container's port.
    pub destination: SocketAddr,
}

/// A decision on one connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Whether the connection may go on.
    pub allowed: bool,
    /// What says so.
    pub decided_by: Origin,
}

/// The compiled policies of one pod.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    /// Oldest first.
    policies: Arc<[CompiledPolicy]>,
    /// CUSTOM before DENY, by policy and rule.
    denying: Vec<(usize, usize)>,
    allowing: Vec<(usize, usize)>,
    /// What holds when no rule matches.
    otherwise: Verdict,
}

/// A policy that holds for the pod, with every name of the mesh's trust domain written out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CompiledPolicy {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) effect: Effect,
    pub(crate) rules: Vec<CompiledRule>,
}

/// What a match of a policy that is enforced means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    Allow,
    /// CUSTOM, which denies for want of an authorizer to ask.
    Custom,
    Deny,
}

/// Every clause must hold; a clause holds when some of its alternatives does, and an alternative when all of its
/// conditions do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CompiledRule {
    /// The rule's place in its policy as it was written, from 0.
    pub(crate) index: usize,
    pub(crate) clauses: Vec<Vec<Vec<Condition>>>,
}

impl Authorization {
    /// `policies` must be ordered from the oldest to the youngest.
    pub(crate) fn compile(policies: &[AuthorizationPolicy], settings: &Settings, pod: &Pod) -> Self {
        let selected = policies.iter().filter(|policy| policy.in_scope(settings, pod));
        Self::of(selected.filter_map(|policy| CompiledPolicy::new(policy, settings)).collect())
    }

    /// What `policies`, oldest first, decide together.
    pub(crate) fn of(policies: Vec<CompiledPolicy>) -> Self {
        let policies: Arc<[CompiledPolicy]> = policies.into();
        let rules = |effect: Effect| {
            let of_effect = policies.iter().enumerate().filter(move |(_, policy)| policy.effect == effect);
            of_effect.flat_map(|(place, policy)| (0..policy.rules.len()).map(move |rule| (place, rule)))
        };
        let allow: Vec<_> = policies.iter().filter(|policy| policy.effect == Effect::Allow).collect();
        let otherwise = match allow.split_first() {
            None if policies.is_empty() => Verdict {
                allowed: true,
                decided_by: Origin::default("no AuthorizationPolicy selects the pod"),
            },
            None => Verdict {
                allowed: true,
                decided_by: Origin::default("no AuthorizationPolicy with action ALLOW selects the pod"),
            },
            Some((first, others)) => {
                let detail = match others.len() {
                    0 => "no rule matches".to_owned(),
                    others => format!("no rule matches, nor in {others} other ALLOW policies"),
                };
                Verdict { allowed: false, decided_by: first.origin(&detail) }
            }
        };
        Self {
            denying: rules(Effect::Custom).chain(rules(Effect::Deny)).collect(),
            allowing: rules(Effect::Allow).collect(),
            policies: Arc::clone(&policies),
            otherwise,
        }
    }

    pub(crate) fn policies(&self) -> &[CompiledPolicy] {
        &self.policies
    }

    pub(crate) fn decide(&self, request: &Request<'_>) -> Verdict {
        if let Some(decided_by) = self.matching(&self.denying, request, true) {
            return Verdict { allowed: false, decided_by };
        }
        if let Some(decided_by) = self.matching(&self.allowing, request, false) {
            return Verdict { allowed: true, decided_by };
        }
        self.otherwise.clone()
    }

    /// The first of the rules at `places` that matches.
    fn matching(
        &self,
        places: &[(usize, usize)],
        request: &Request<'_>,
        absent_is_match: bool,
    ) -> Option<Origin> {
        places.iter().find_map(|&(policy, rule)| {
            let policy = self.policies.get(policy)?;
            let rule = policy.rules.get(rule)?;
            rule.matches(request, absent_is_match).then(|| policy.origin_of(rule))
        })
    }
}

impl AuthorizationPolicy {
    /// Whether the policy is meant for the pod. The root namespace reaches every pod, with a selector too.
    fn in_scope(&self, settings: &Settings, pod: &Pod) -> bool {
        let namespace = &*self.meta.namespace;
        (namespace == settings.root_namespace || namespace == pod.namespace)
            && selects(&self.selector, &pod.labels)
    }
}

impl CompiledPolicy {
    /// Nothing for a policy that is not enforced.
    fn new(policy: &AuthorizationPolicy, settings: &Settings) -> Option<Self> {
        let effect = match policy.action {
            _ if policy.dry_run || policy.targets_gateway => return None,
            Action::Audit => return None,
            Action::Allow => Effect::Allow,
            Action::Custom => Effect::Custom,
            Action::Deny => Effect::Deny,
        };
        Some(Self {
            namespace: Arc::clone(&policy.meta.namespace),
            name: Arc::clone(&policy.meta.name),
            effect,
            rules: policy.rules.iter().map(|rule| CompiledRule::new(rule, settings)).collect(),
        })
    }

    pub(crate) fn origin(&self, detail: &str) -> Origin {
        Origin::Resource {
            kind: Kind::AuthorizationPolicy,
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(&self.name),
            detail: detail.into(),
        }
    }

    fn origin_of(&self, rule: &CompiledRule) -> Origin {
        match self.effect {
            Effect::Custom => {
                self.origin(&format!("rule {} (CUSTOM: no external authorizer to ask)", rule.index))
            }
            Effect::Allow | Effect::Deny => self.origin(&format!("rule {}", rule.index)),
        }
    }
}

impl CompiledRule {
    fn new(rule: &Rule, settings: &Settings) -> Self {
        let alternative = |conditions: &Vec<Condition>| -> Vec<Condition> {
            conditions.iter().map(|condition| condition.with_aliases(settings)).collect()
        };
        let mut clauses = Vec::new();
        for alternatives in [&rule.from, &rule.to].into_iter().filter(|list| !list.is_empty()) {
            clauses.push(alternatives.iter().map(alternative).collect());
        }
        clauses.extend(rule.when.iter().map(|condition| vec![vec![condition.with_aliases(settings)]]));
        Self { index: rule.index, clauses }
    }

    fn matches(&self, request: &Request<'_>, absent_is_match: bool) -> bool {
        self.clauses.iter().all(|alternatives| {
            alternatives.iter().any(|conditions| {
                conditions.iter().all(|condition| condition.holds(request, absent_is_match))
            })
        })
    }
}

/// What a pod's author should know about the policies that select the pod and are not enforced as written.
pub(crate) fn reports(policies: &[AuthorizationPolicy], settings: &Settings, pod: &Pod) -> Vec<Report> {
    let mut reports = Vec::new();
    for policy in policies.iter().filter(|policy| policy.in_scope(settings, pod)) {
        let report = |text: &str| policy.meta.report(text);
        if policy.targets_gateway {
            reports.push(report("not enforced for this pod: it targets gateways or waypoints"));
        } else if policy.action == Action::Audit {
            reports.push(report("AUDIT selects this pod: nothing is audited, no decision changes"));
        } else if policy.dry_run {
            reports.push(report("dry run selects this pod: the policy is not enforced"));
        } else if policy.action == Action::Custom {
            reports.push(report(
                "CUSTOM selects this pod: there is no external authorizer, so what its rules match is denied",
            ));
        }
    }
    reports
}
