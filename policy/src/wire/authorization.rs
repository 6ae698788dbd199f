//! One AuthorizationPolicy as Istio's message: rules of clauses of matches.
//!
//! A match holds when all of its fields do, and a field when some of its values does (or, negated, none). What
//! Istio's fields cannot say, such as a namespace with a `*` in the middle, goes into an extension of the match.

use ipnet::IpNet;
use ringmail_xds::ringmail::{Conditions, EXTENSION, Written};
use ringmail_xds::security::{
    Action, Address, Authorization, Clause, Empty, Match, Rule, Scope, ServiceAccountMatch, StringMatch,
    string_match::Type,
};
use ringmail_xds::workload::Extension;
use ringmail_xds::{Resource, address_bytes, address_of};

use super::{WireError, port};
use crate::authorization::{Attribute, CompiledPolicy, CompiledRule, Condition, Effect};
use crate::pattern::{Form, Glob, Pattern};

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

    pub(super) fn from_wire(policy: &Authorization) -> Result<Self, WireError> {
        let written: Option<Written> = read_extension(&policy.extensions)?;
        let effect = match (Action::try_from(policy.action), &written) {
            (Ok(Action::Deny), Some(Written { custom: true, .. })) => Effect::Custom,
            (Ok(Action::Allow), _) => Effect::Allow,
            (Ok(Action::Deny), _) => Effect::Deny,
            (Err(_), _) => {
                return Err(WireError::new("action", "ALLOW (0) or DENY (1)", policy.action.to_string()));
            }
        };
        let places = written.map(|written| written.places).unwrap_or_default();
        let rules = policy.rules.iter().enumerate().map(|(position, rule)| {
            let index = places.get(position).and_then(|place| usize::try_from(*place).ok());
            rule_from_wire(index.unwrap_or(position), rule)
        });
        Ok(Self {
            namespace: policy.namespace.as_str().into(),
            name: policy.name.as_str().into(),
            effect,
            rules: rules.collect::<Result<_, _>>()?,
        })
    }
}

fn rule_to_wire(rule: &CompiledRule) -> Rule {
    let clause = |alternatives: &Vec<Vec<Condition>>| Clause {
        matches: alternatives.iter().map(|conditions| match_to_wire(conditions)).collect(),
    };
    Rule { clauses: rule.clauses.iter().map(clause).collect() }
}

fn rule_from_wire(index: usize, rule: &Rule) -> Result<CompiledRule, WireError> {
    let clause = |clause: &Clause| clause.matches.iter().map(match_from_wire).collect::<Result<Vec<_>, _>>();
    Ok(CompiledRule { index, clauses: rule.clauses.iter().map(clause).collect::<Result<_, _>>()? })
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

fn match_from_wire(found: &Match) -> Result<Vec<Condition>, WireError> {
    let more: Conditions = read_extension(&found.extensions)?.unwrap_or_default();
    let mut conditions = Vec::new();
    let mut ask = |attribute: Attribute, negated: bool| conditions.push(Condition { attribute, negated });
    for (negated, texts) in [(false, &found.namespaces), (true, &found.not_namespaces)] {
        if !texts.is_empty() {
            let globs = texts.iter().map(|text| Ok(Glob::new(pattern_from_wire(text)?.text())));
            ask(Attribute::Namespace(globs.collect::<Result<_, WireError>>()?), negated);
        }
    }
    for (negated, texts) in [(false, &more.namespaces), (true, &more.not_namespaces)] {
        if !texts.is_empty() {
            ask(Attribute::Namespace(texts.iter().map(|text| Glob::new(text)).collect()), negated);
        }
    }
    for (negated, texts) in [(false, &found.principals), (true, &found.not_principals)] {
        if !texts.is_empty() {
            let patterns = texts.iter().map(pattern_from_wire);
            ask(Attribute::Principal(patterns.collect::<Result<_, _>>()?), negated);
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
    Ok(conditions)
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

fn pattern_from_wire(text: &StringMatch) -> Result<Pattern, WireError> {
    match &text.r#type {
        Some(Type::Exact(text)) => Ok(Pattern::of(Form::Exact, text)),
        Some(Type::Prefix(text)) => Ok(Pattern::of(Form::Prefix, text)),
        Some(Type::Suffix(text)) => Ok(Pattern::of(Form::Suffix, text)),
        Some(Type::Presence(Empty {})) => Ok(Pattern::of(Form::Presence, "")),
        None => Err(WireError::new("string_match", "exact, prefix, suffix or presence", "none of them")),
    }
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

/// Our extension of this type. One of ours of another type is a question that this version cannot answer.
fn read_extension<M: Resource>(extensions: &[Extension]) -> Result<Option<M>, WireError> {
    let mut read = None;
    for extension in extensions.iter().filter(|extension| extension.name == EXTENSION) {
        let any = extension.config.clone().unwrap_or_default();
        let message = M::from_any(&any)
            .map_err(|error| WireError::new("extensions", M::TYPE_URL, error.to_string()))?;
        read = Some(message);
    }
    Ok(read)
}
