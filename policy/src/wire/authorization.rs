//! One AuthorizationPolicy as Istio's message: rules of clauses of matches.
//!
//! A match holds when all of its fields do, and a field when some of its values does (or, negated, none). What
//! Istio's fields cannot say, such as a namespace with a `*` in the middle, goes into an extension of the match.
//!
//! A later sender may ask what is not known here. Whatever it was, nobody is let in by not asking it: an ALLOW rule does
//! not match by such a match, a DENY rule matches by what else it says, and an action that is not known denies.

use ipnet::IpNet;
use ringmail_xds::ringmail::{Conditions, EXTENSION, Written};
use ringmail_xds::security::{
    Action, Address, Authorization, Clause, Empty, Match, Rule, Scope, ServiceAccountMatch, StringMatch,
    string_match::Type,
};
use ringmail_xds::workload::Extension;
use ringmail_xds::{Resource, address_bytes, address_of};

use super::decision::CONTROL_PLANE;
use super::{WireError, port};
use crate::authorization::{Attribute, CompiledPolicy, CompiledRule, Condition, Effect};
use crate::origin::Kind;
use crate::pattern::{Form, Glob, Pattern};
use crate::report::Report;

/// What the reader of a report can do about it.
const UPGRADE: &str = "upgrade the sidecar";

impl CompiledPolicy {
    /// The scope is a selector's, whatever the policy was: the receiver is told which policies hold for it.
    pub(super) fn to_wire(&self) -> Authorization {
        let written = Written {
            places: self.rules.iter().map(|rule| u32::try_from(rule.index).unwrap_or(u32::MAX)).collect(),
            custom: self.effect == Effect::Custom,
        };
        let action = match self.effect {
            Effect::Allow => Action::Allow,
            Effect::Custom | Effect::Deny => Action::Deny,
        };
        Authorization {
            name: self.name.to_string(),
            namespace: self.namespace.to_string(),
            scope: Scope::WorkloadSelector.into(),
            action: action.into(),
            rules: self.rules.iter().map(rule_to_wire).collect(),
            dry_run: false,
            extensions: vec![extension(&written)],
        }
    }

    /// What is not known here goes into `reports`.
    pub(super) fn from_wire(policy: &Authorization, reports: &mut Vec<Report>) -> Result<Self, WireError> {
        let mut report = |text: String| {
            let (kind, namespace, name) =
                (Kind::AuthorizationPolicy.to_string(), policy.namespace.clone(), policy.name.clone());
            reports.push(Report {
                kind,
                namespace,
                name,
                source: CONTROL_PLANE.to_owned(),
                line: 1,
                path: String::new(),
                text,
            });
        };
        let written: Option<Written> = read_extension(&policy.extensions)?;
        let effect = match (Action::try_from(policy.action), &written) {
            (Ok(Action::Deny), Some(Written { custom: true, .. })) => Effect::Custom,
            (Ok(Action::Allow), _) => Effect::Allow,
            (Ok(Action::Deny), _) => Effect::Deny,
            (Err(_), _) => {
                let action = policy.action;
                report(format!(
                    "action {action}: not known to this version, what its rules match is denied: {UPGRADE}"
                ));
                Effect::Custom
            }
        };
        let places = written.map(|written| written.places).unwrap_or_default();
        let mut rules = Vec::new();
        for (position, rule) in policy.rules.iter().enumerate() {
            let index =
                places.get(position).and_then(|place| usize::try_from(*place).ok()).unwrap_or(position);
            let (rule, unread) = rule_from_wire(index, rule, effect)?;
            if unread {
                let instead = match effect {
                    Effect::Allow => "nobody is allowed by that",
                    Effect::Custom | Effect::Deny => "all are denied who match the rest",
                };
                report(format!("rule {index} asks what is not known to this version, {instead}: {UPGRADE}"));
            }
            rules.push(rule);
        }
        let (namespace, name) = (policy.namespace.as_str().into(), policy.name.as_str().into());
        Ok(Self { namespace, name, effect, rules })
    }
}

fn rule_to_wire(rule: &CompiledRule) -> Rule {
    let clause = |alternatives: &Vec<Vec<Condition>>| Clause {
        matches: alternatives.iter().map(|conditions| match_to_wire(conditions)).collect(),
    };
    Rule { clauses: rule.clauses.iter().map(clause).collect() }
}

/// The rule, and whether it asks what is not known here.
fn rule_from_wire(index: usize, rule: &Rule, effect: Effect) -> Result<(CompiledRule, bool), WireError> {
    let (mut clauses, mut any_unread) = (Vec::new(), false);
    for clause in &rule.clauses {
        let mut alternatives = Vec::new();
        for found in &clause.matches {
            let (conditions, unread) = match_from_wire(found)?;
            any_unread |= unread;
            if !unread || effect != Effect::Allow {
                alternatives.push(conditions);
            }
        }
        clauses.push(alternatives);
    }
    Ok((CompiledRule { index, clauses }, any_unread))
}

fn match_to_wire(conditions: &[Condition]) -> Match {
    let (mut found, mut more) = (Match::default(), Conditions::default());
    for Condition { attribute, negated } in conditions {
        let negated = *negated;
        match attribute {
            Attribute::DestinationIp(nets) => {
                let field = if negated { &mut found.not_destination_ips } else { &mut found.destination_ips };
                field.extend(nets.iter().map(net_to_wire));
            }
            Attribute::DestinationPort(ports) => {
                let field =
                    if negated { &mut found.not_destination_ports } else { &mut found.destination_ports };
                field.extend(ports.iter().copied().map(u32::from));
            }
            Attribute::Namespace(globs) => namespaces_to_wire(globs, negated, &mut found, &mut more),
            Attribute::Principal(patterns) => {
                let field = if negated { &mut found.not_principals } else { &mut found.principals };
                field.extend(patterns.iter().map(|pattern| text_to_wire(pattern.form(), pattern.literal())));
            }
            Attribute::ServiceAccount(accounts) => {
                let field =
                    if negated { &mut found.not_service_accounts } else { &mut found.service_accounts };
                field.extend(accounts.iter().map(|(namespace, name)| ServiceAccountMatch {
                    namespace: namespace.to_string(),
                    service_account: name.to_string(),
                }));
            }
            Attribute::SourceIp(nets) => {
                // Two questions about the source must both hold, and one field would take either.
                let field = match (negated, found.source_ips.is_empty()) {
                    (true, _) => &mut found.not_source_ips,
                    (false, true) => &mut found.source_ips,
                    (false, false) => &mut more.source_ips,
                };
                field.extend(nets.iter().map(net_to_wire));
            }
            Attribute::TrustDomain(patterns) => {
                let field = if negated { &mut more.not_trust_domains } else { &mut more.trust_domains };
                field.extend(patterns.iter().map(|pattern| pattern.text().to_owned()));
            }
        }
    }
    if more != Conditions::default() {
        found.extensions.push(extension(&more));
    }
    found
}

/// What of the match is known here, and whether that is less than all.
fn match_from_wire(found: &Match) -> Result<(Vec<Condition>, bool), WireError> {
    let mut unread = asks_unknown(&found.extensions);
    let more: Conditions = read_extension(&found.extensions)?.unwrap_or_default();
    let mut conditions = Vec::new();
    let mut ask = |attribute: Attribute, negated: bool| conditions.push(Condition { attribute, negated });
    for (negated, texts) in [(false, &found.namespaces), (true, &found.not_namespaces)] {
        match patterns_from_wire(texts) {
            Some(patterns) if patterns.is_empty() => {}
            Some(patterns) => {
                let globs = patterns.iter().map(|pattern| Glob::new(pattern.text()));
                ask(Attribute::Namespace(globs.collect()), negated);
            }
            None => unread = true,
        }
    }
    for (negated, texts) in [(false, &more.namespaces), (true, &more.not_namespaces)] {
        if !texts.is_empty() {
            ask(Attribute::Namespace(texts.iter().map(|text| Glob::new(text)).collect()), negated);
        }
    }
    for (negated, texts) in [(false, &found.principals), (true, &found.not_principals)] {
        match patterns_from_wire(texts) {
            Some(patterns) if patterns.is_empty() => {}
            Some(patterns) => ask(Attribute::Principal(patterns), negated),
            None => unread = true,
        }
    }
    for (negated, texts) in [(false, &more.trust_domains), (true, &more.not_trust_domains)] {
        if !texts.is_empty() {
            ask(Attribute::TrustDomain(texts.iter().map(|text| Pattern::new(text)).collect()), negated);
        }
    }
    let sources = [(false, &found.source_ips), (true, &found.not_source_ips), (false, &more.source_ips)];
    for (negated, nets) in sources.into_iter().filter(|(_, nets)| !nets.is_empty()) {
        ask(Attribute::SourceIp(nets_from_wire(nets)?), negated);
    }
    let destinations = [(false, &found.destination_ips), (true, &found.not_destination_ips)];
    for (negated, nets) in destinations.into_iter().filter(|(_, nets)| !nets.is_empty()) {
        ask(Attribute::DestinationIp(nets_from_wire(nets)?), negated);
    }
    for (negated, ports) in [(false, &found.destination_ports), (true, &found.not_destination_ports)] {
        if !ports.is_empty() {
            let ports = ports.iter().map(|number| port("destination_ports", *number));
            ask(Attribute::DestinationPort(ports.collect::<Result<_, _>>()?), negated);
        }
    }
    for (negated, accounts) in [(false, &found.service_accounts), (true, &found.not_service_accounts)] {
        if !accounts.is_empty() {
            let accounts = accounts
                .iter()
                .map(|account| (account.namespace.as_str().into(), account.service_account.as_str().into()));
            ask(Attribute::ServiceAccount(accounts.collect()), negated);
        }
    }
    Ok((conditions, unread))
}

/// All in one place or the other: the values of one question are alternatives, and two fields would both have to
/// hold.
fn namespaces_to_wire(globs: &[Glob], negated: bool, found: &mut Match, more: &mut Conditions) {
    let plain: Option<Vec<_>> = globs.iter().map(glob_to_wire).collect();
    match (plain, negated) {
        (Some(texts), false) => found.namespaces.extend(texts),
        (Some(texts), true) => found.not_namespaces.extend(texts),
        (None, false) => more.namespaces.extend(globs.iter().map(|glob| glob.text().to_owned())),
        (None, true) => more.not_namespaces.extend(globs.iter().map(|glob| glob.text().to_owned())),
    }
}

/// Nothing where a `*` stands anywhere but at one end.
fn glob_to_wire(glob: &Glob) -> Option<StringMatch> {
    let pattern = Pattern::new(glob.text());
    (!pattern.literal().contains('*')).then(|| text_to_wire(pattern.form(), pattern.literal()))
}

fn text_to_wire(form: Form, literal: &str) -> StringMatch {
    let found = match form {
        Form::Exact => Type::Exact(literal.to_owned()),
        Form::Prefix => Type::Prefix(literal.to_owned()),
        Form::Presence => Type::Presence(Empty {}),
        Form::Suffix => Type::Suffix(literal.to_owned()),
    };
    StringMatch { r#type: Some(found) }
}

/// Nothing where a text is asked for in a way that is not known here.
fn patterns_from_wire(texts: &[StringMatch]) -> Option<Vec<Pattern>> {
    let pattern = |text: &StringMatch| match text.r#type.as_ref()? {
        Type::Exact(text) => Some(Pattern::of(Form::Exact, text)),
        Type::Prefix(text) => Some(Pattern::of(Form::Prefix, text)),
        Type::Suffix(text) => Some(Pattern::of(Form::Suffix, text)),
        Type::Presence(Empty {}) => Some(Pattern::of(Form::Presence, "")),
    };
    texts.iter().map(pattern).collect()
}

fn net_to_wire(net: &IpNet) -> Address {
    Address { address: address_bytes(net.addr()), length: net.prefix_len().into() }
}

fn nets_from_wire(nets: &[Address]) -> Result<Vec<IpNet>, WireError> {
    let net = |range: &Address| {
        let address = address_of(&range.address)?;
        IpNet::new(address, u8::try_from(range.length).ok()?).ok()
    };
    let read = |range: &Address| {
        net(range).ok_or_else(|| {
            let got = format!("{} bytes of which {} bits count", range.address.len(), range.length);
            WireError::new("address", "4 or 16 bytes, and as many bits as they have at most", got)
        })
    };
    nets.iter().map(read).collect()
}

fn extension(message: &impl Resource) -> Extension {
    Extension { name: EXTENSION.to_owned(), config: Some(message.to_any()) }
}

/// Whether there is an extension of ours among a match's that is a question of a later version.
fn asks_unknown(extensions: &[Extension]) -> bool {
    let own = extensions.iter().filter(|extension| extension.name == EXTENSION);
    own.map(|extension| &extension.config)
        .any(|config| config.as_ref().is_none_or(|any| any.type_url != Conditions::TYPE_URL))
}

/// Our extension of this type. One of ours of another type says nothing here.
fn read_extension<M: Resource>(extensions: &[Extension]) -> Result<Option<M>, WireError> {
    let own = extensions.iter().filter(|extension| extension.name == EXTENSION);
    let of_type =
        own.filter_map(|extension| extension.config.as_ref().filter(|any| any.type_url == M::TYPE_URL));
    let read = of_type.map(M::from_any).next_back().transpose();
    read.map_err(|error| WireError::new("extensions", M::TYPE_URL, error.to_string()))
}
