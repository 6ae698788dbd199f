//! The decision on one connection, over the policies that select one pod.

use std::net::{IpAddr, SocketAddr};

use ringmail_identity::SpiffeId;

use super::condition::Condition;
use super::{Action, AuthorizationPolicy, Rule};
use crate::origin::Origin;
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
    /// CUSTOM before DENY, each oldest first.
    denying: Vec<CompiledRule>,
    allowing: Vec<CompiledRule>,
    /// What holds when no rule matches.
    otherwise: Verdict,
}

#[derive(Clone, Debug)]
struct CompiledRule {
    from: Vec<Vec<Condition>>,
    to: Vec<Vec<Condition>>,
    when: Vec<Condition>,
    origin: Origin,
}

impl Authorization {
    /// `policies` must be ordered from the oldest to the youngest.
    pub(crate) fn compile(policies: &[AuthorizationPolicy], settings: &Settings, pod: &Pod) -> Self {
        let selected: Vec<_> = policies.iter().filter(|policy| policy.holds_for(settings, pod)).collect();
        let rules = |action: Action| {
            let policies = selected.iter().filter(move |policy| policy.action == action);
            policies
                .flat_map(|policy| policy.rules.iter().map(|rule| CompiledRule::new(policy, rule, settings)))
        };
        let allow: Vec<_> = selected.iter().filter(|policy| policy.action == Action::Allow).collect();
        let otherwise = match allow.split_first() {
            None if selected.is_empty() => Verdict {
                allowed: true,
                decided_by: Origin::Default("no AuthorizationPolicy selects the pod"),
            },
            None => Verdict {
                allowed: true,
                decided_by: Origin::Default("no AuthorizationPolicy with action ALLOW selects the pod"),
            },
            Some((first, others)) => {
                let detail = match others.len() {
                    0 => "no rule matches".to_owned(),
                    others => format!("no rule matches, nor in {others} other ALLOW policies"),
                };
                Verdict { allowed: false, decided_by: first.meta.origin(&detail) }
            }
        };
        Self {
            denying: rules(Action::Custom).chain(rules(Action::Deny)).collect(),
            allowing: rules(Action::Allow).collect(),
            otherwise,
        }
    }

    pub(crate) fn decide(&self, request: &Request<'_>) -> Verdict {
        if let Some(rule) = self.denying.iter().find(|rule| rule.matches(request, true)) {
            return Verdict { allowed: false, decided_by: rule.origin.clone() };
        }
        if let Some(rule) = self.allowing.iter().find(|rule| rule.matches(request, false)) {
            return Verdict { allowed: true, decided_by: rule.origin.clone() };
        }
        self.otherwise.clone()
    }
}

impl AuthorizationPolicy {
    /// Whether the policy is enforced for the pod. The root namespace reaches every pod, with a selector too.
    fn holds_for(&self, settings: &Settings, pod: &Pod) -> bool {
        let enforced = !self.dry_run && !self.targets_gateway && self.action != Action::Audit;
        enforced && self.in_scope(settings, pod)
    }

    fn in_scope(&self, settings: &Settings, pod: &Pod) -> bool {
        let namespace = &*self.meta.namespace;
        (namespace == settings.root_namespace || namespace == pod.namespace)
            && selects(&self.selector, &pod.labels)
    }
}

impl CompiledRule {
    fn new(policy: &AuthorizationPolicy, rule: &Rule, settings: &Settings) -> Self {
        let compile = |conditions: &Vec<Condition>| -> Vec<Condition> {
            conditions.iter().map(|condition| condition.with_aliases(settings)).collect()
        };
        let detail = match policy.action {
            Action::Custom => format!("rule {} (CUSTOM: no external authorizer to ask)", rule.index),
            Action::Allow | Action::Audit | Action::Deny => format!("rule {}", rule.index),
        };
        Self {
            from: rule.from.iter().map(compile).collect(),
            to: rule.to.iter().map(compile).collect(),
            when: compile(&rule.when),
            origin: policy.meta.origin(&detail),
        }
    }

    fn matches(&self, request: &Request<'_>, absent_is_match: bool) -> bool {
        let all = |conditions: &[Condition]| {
            conditions.iter().all(|condition| condition.holds(request, absent_is_match))
        };
        let some = |alternatives: &[Vec<Condition>]| {
            alternatives.is_empty() || alternatives.iter().any(|conditions| all(conditions))
        };
        some(&self.from) && some(&self.to) && all(&self.when)
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
