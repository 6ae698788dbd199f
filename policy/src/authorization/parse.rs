//! Reading an AuthorizationPolicy, and deciding what of a rule can be honoured at this layer.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::condition::{Attribute, Condition};
use super::{Action, AuthorizationPolicy, Rule};
use crate::parse::{Document, Field, MAX_SERVICE_ACCOUNTS};
use crate::pattern::Pattern;
use crate::resource::{Labels, Meta};

const DRY_RUN: &str = "istio.io/dry-run";
const SPEC_FIELDS: &str = "selector, targetRef, targetRefs, action, provider or rules";
const SOURCE_FIELDS: &str = "principals, namespaces, serviceAccounts, ipBlocks, remoteIpBlocks, trustDomains, \
     requestPrincipals or one of them with not in front";
const OPERATION_FIELDS: &str = "ports, hosts, methods, paths or one of them with not in front";
const SPIFFE_SCHEME: &str = "spiffe://";

impl AuthorizationPolicy {
    pub(crate) fn parse(document: &mut Document, meta: Meta, spec: &Field<'_>) -> Self {
        let mut policy = Self {
            dry_run: false,
            meta,
            selector: Labels::new(),
            action: Action::Allow,
            rules: Vec::new(),
            targets_gateway: false,
        };
        let mut rules = None;
        for (key, field) in spec.entries(document) {
            match key {
                "selector" => policy.selector = field.selector(document),
                "targetRef" => policy.targets_gateway = !field.entries(document).is_empty(),
                "targetRefs" => policy.targets_gateway |= !field.items(document).is_empty(),
                "action" => policy.action = action(document, &field),
                "provider" => _ = field.entries(document),
                "rules" => rules = Some(field),
                _ => document.unknown(&field, SPEC_FIELDS),
            }
        }
        if let Some(rules) = &rules {
            policy.read_rules(document, rules);
        }
        policy.dry_run = policy.read_dry_run(document, spec);
        policy.report_whole(document, spec);
        policy
    }

    fn read_rules(&mut self, document: &mut Document, rules: &Field<'_>) {
        for (index, field) in rules.items(document).iter().enumerate() {
            let mut reader = RuleReader { policy: self, left_out: Vec::new() };
            let rule = reader.read(document, index, field);
            let left_out = reader.left_out;
            if left_out.is_empty() {
                self.rules.push(rule);
                continue;
            }
            let fields = left_out.join(", ");
            let action = self.action;
            let consequence = match action {
                Action::Allow | Action::Audit => {
                    format!("the whole rule is dropped from this {} policy", action.as_str())
                }
                Action::Custom | Action::Deny => {
                    self.rules.push(rule);
                    format!("left out, so this {} rule matches more than it says", action.as_str())
                }
            };
            document.report(
                &self.meta,
                field,
                format!("rule {index}: {fields} cannot be known at this layer: {consequence}"),
            );
        }
    }

    fn read_dry_run(&self, document: &mut Document, spec: &Field<'_>) -> bool {
        let Some(value) = self.meta.annotations.get(DRY_RUN) else { return false };
        match value.as_str() {
            // Denying what a CUSTOM policy matches is already a stand-in; not even that would fail open.
            "1" | "t" | "T" | "true" | "TRUE" | "True" => self.action != Action::Custom,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            other => {
                let text = format!("{DRY_RUN} {other:?} is not a boolean: the policy is enforced");
                document.report(&self.meta, spec, text);
                false
            }
        }
    }

    fn report_whole(&self, document: &mut Document, spec: &Field<'_>) {
        let text = match (self.action, self.dry_run) {
            _ if self.targets_gateway => "not enforced: it targets gateways or waypoints, not sidecars",
            (Action::Audit, _) => "not supported: AUDIT has no effect",
            (_, true) => "not enforced: istio.io/dry-run is set",
            (Action::Custom, false) => {
                "not supported: there is no external authorizer to ask, so what a CUSTOM rule matches is denied"
            }
            (Action::Deny, false) if self.rules.is_empty() => "has no effect: a DENY policy without rules",
            (Action::Allow | Action::Deny, false) => return,
        };
        document.report(&self.meta, spec, text);
    }
}

fn action(document: &mut Document, field: &Field<'_>) -> Action {
    match field.text(document) {
        Some("ALLOW") | None => Action::Allow,
        Some("AUDIT") => Action::Audit,
        Some("CUSTOM") => Action::Custom,
        Some("DENY") => Action::Deny,
        Some(other) => {
            document.fault(field, "ALLOW, DENY, AUDIT or CUSTOM", format!("{other:?}"));
            Action::Deny
        }
    }
}

/// Reads one rule, collecting the fields that this layer cannot decide.
struct RuleReader<'p> {
    policy: &'p AuthorizationPolicy,
    left_out: Vec<String>,
}

impl RuleReader<'_> {
    fn read(&mut self, document: &mut Document, index: usize, field: &Field<'_>) -> Rule {
        let mut rule = Rule { index, from: Vec::new(), to: Vec::new(), when: Vec::new() };
        if field.is_null() {
            document.fault(field, "a rule ({} for the one that always matches)", "nothing");
        }
        for (key, field) in field.entries(document) {
            match key {
                "from" => rule.from = self.alternatives(document, &field, "source"),
                "to" => rule.to = self.alternatives(document, &field, "operation"),
                "when" => {
                    for item in not_empty(document, &field) {
                        rule.when.extend(self.condition(document, &item));
                    }
                }
                _ => document.unknown(&field, "from, to or when"),
            }
        }
        rule
    }

    /// The items of `from` or `to`, each a `member` (`source` or `operation`) that must not be empty.
    fn alternatives(
        &mut self,
        document: &mut Document,
        list: &Field<'_>,
        member: &str,
    ) -> Vec<Vec<Condition>> {
        let mut alternatives = Vec::new();
        for item in not_empty(document, list) {
            let mut conditions = None;
            for (key, field) in item.entries(document) {
                if key == member {
                    conditions = Some(self.fields(document, &field, member == "source"));
                } else {
                    document.unknown(&field, member);
                }
            }
            if conditions.is_none() {
                document.fault(&item, format!("a field {member}"), item.node.value.describe());
            }
            alternatives.push(conditions.unwrap_or_default());
        }
        alternatives
    }

    fn fields(&mut self, document: &mut Document, whole: &Field<'_>, source: bool) -> Vec<Condition> {
        let entries = whole.entries(document);
        if entries.is_empty() {
            document.fault(whole, "at least one field", whole.node.value.describe());
        }
        let names: Vec<&str> = entries.iter().map(|(key, _)| negation(key).0).collect::<Vec<_>>();
        let mut conditions = Vec::new();
        for (key, field) in &entries {
            let (name, negated) = negation(key);
            let attribute = match name {
                "principals" if source => self.principals(document, field),
                "namespaces" if source => Attribute::Namespace(patterns(document, field)),
                "serviceAccounts" if source => {
                    if names.iter().any(|name| matches!(*name, "principals" | "namespaces")) {
                        document.fault(field, "no principals or namespaces beside it", "both");
                    }
                    self.service_accounts(document, field)
                }
                "ipBlocks" if source => Attribute::SourceIp(blocks(document, field)),
                "remoteIpBlocks" if source => self.remote_blocks(document, field, "remoteIpBlocks"),
                "trustDomains" if source => Attribute::TrustDomain(patterns(document, field)),
                "ports" if !source => Attribute::DestinationPort(ports(document, field)),
                "requestPrincipals" if source => {
                    self.leave_out(document, field, key);
                    continue;
                }
                "hosts" | "methods" | "paths" if !source => {
                    self.leave_out(document, field, key);
                    continue;
                }
                _ => {
                    document.unknown(field, if source { SOURCE_FIELDS } else { OPERATION_FIELDS });
                    continue;
                }
            };
            conditions.push(Condition { attribute, negated });
        }
        conditions
    }

    fn condition(&mut self, document: &mut Document, item: &Field<'_>) -> Vec<Condition> {
        let (mut key, mut lists) = (None, Vec::new());
        for (name, field) in item.entries(document) {
            match name {
                "key" => key = field.required_text(document),
                "values" => lists.push((field, false)),
                "notValues" => lists.push((field, true)),
                _ => document.unknown(&field, "key, values or notValues"),
            }
        }
        if lists.is_empty() {
            document.fault(item, "values or notValues", "neither");
        }
        let Some(key) = key else {
            document.fault(item, "a field key", "none");
            return Vec::new();
        };
        let mut conditions = Vec::new();
        for (field, negated) in lists {
            let attribute = match key {
                "source.principal" => self.principals(document, &field),
                "source.namespace" => Attribute::Namespace(patterns(document, &field)),
                "source.serviceAccount" => self.service_accounts(document, &field),
                "source.trustDomain" => Attribute::TrustDomain(patterns(document, &field)),
                "source.ip" => Attribute::SourceIp(blocks(document, &field)),
                "remote.ip" => self.remote_blocks(document, &field, key),
                "destination.ip" => Attribute::DestinationIp(blocks(document, &field)),
                "destination.port" => Attribute::DestinationPort(ports(document, &field)),
                _ => {
                    self.leave_out(document, &field, key);
                    continue;
                }
            };
            conditions.push(Condition { attribute, negated });
        }
        conditions
    }

    /// HTTP fields, the server name of a handshake (another sidecar's is its own wording, not the client's
    /// will) and attributes unknown here: what cannot be known must not open anything.
    fn leave_out(&mut self, document: &mut Document, field: &Field<'_>, name: &str) {
        not_empty(document, field);
        if !self.left_out.iter().any(|known| known == name) {
            self.left_out.push(name.to_owned());
        }
    }

    fn principals(&self, document: &mut Document, field: &Field<'_>) -> Attribute {
        let values = patterns(document, field);
        for value in &values {
            if value.text().starts_with(SPIFFE_SCHEME) {
                let text = format!(
                    "{:?} never matches: principals are written without {SPIFFE_SCHEME}",
                    value.text()
                );
                document.report(&self.policy.meta, field, text);
            } else if value.literal().contains('*') {
                let text = format!(
                    "{:?}: a * that is neither first nor last is an ordinary character",
                    value.text()
                );
                document.report(&self.policy.meta, field, text);
            }
        }
        Attribute::Principal(values)
    }

    fn service_accounts(&self, document: &mut Document, field: &Field<'_>) -> Attribute {
        let mut accounts = Vec::new();
        for item in field.items_up_to(document, MAX_SERVICE_ACCOUNTS) {
            let Some(text) = item.required_text(document) else { continue };
            let (namespace, name) = text.split_once('/').unwrap_or((&self.policy.meta.namespace, text));
            if text.contains('*') || namespace.is_empty() || name.is_empty() || name.contains('/') {
                document.fault(&item, "<namespace>/<service account> without *", format!("{text:?}"));
            }
            accounts.push((namespace.into(), name.into()));
        }
        refuse_empty(document, field, accounts.is_empty());
        Attribute::ServiceAccount(accounts)
    }

    /// The address behind proxies is told by HTTP headers or a PROXY header; without either it is the
    /// connection's own, as a sidecar of Istio takes it for TCP.
    fn remote_blocks(&self, document: &mut Document, field: &Field<'_>, name: &str) -> Attribute {
        let text = format!("{name} is compared with the connection's own source address");
        document.report(&self.policy.meta, field, text);
        Attribute::SourceIp(blocks(document, field))
    }
}

/// A field's name without `not` in front, and whether it was there.
fn negation(key: &str) -> (&str, bool) {
    match key {
        "notPrincipals" => ("principals", true),
        "notRequestPrincipals" => ("requestPrincipals", true),
        "notNamespaces" => ("namespaces", true),
        "notServiceAccounts" => ("serviceAccounts", true),
        "notIpBlocks" => ("ipBlocks", true),
        "notRemoteIpBlocks" => ("remoteIpBlocks", true),
        "notTrustDomains" => ("trustDomains", true),
        "notPorts" => ("ports", true),
        "notHosts" => ("hosts", true),
        "notMethods" => ("methods", true),
        "notPaths" => ("paths", true),
        plain => (plain, false),
    }
}

fn not_empty<'a>(document: &mut Document, field: &Field<'a>) -> Vec<Field<'a>> {
    let faults = document.faults.len();
    let items = field.items(document);
    refuse_empty(document, field, items.is_empty() && document.faults.len() == faults);
    items
}

/// An empty list would mean "any" in one reading and "none" in the other, so it is refused, as Istio does.
fn refuse_empty(document: &mut Document, field: &Field<'_>, empty: bool) {
    if empty {
        document.fault(field, "at least one item", "none");
    }
}

fn patterns(document: &mut Document, field: &Field<'_>) -> Vec<Pattern> {
    let items = not_empty(document, field);
    items.iter().filter_map(|item| item.required_text(document)).map(Pattern::new).collect()
}

fn ports(document: &mut Document, field: &Field<'_>) -> Vec<u16> {
    let mut ports = Vec::new();
    for item in not_empty(document, field) {
        if let Some(text) = item.required_text(document) {
            ports.extend(document.port(&item, text));
        }
    }
    ports
}

fn blocks(document: &mut Document, field: &Field<'_>) -> Vec<IpNet> {
    let mut blocks = Vec::new();
    for item in not_empty(document, field) {
        let Some(text) = item.required_text(document) else { continue };
        let block = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
        if block.is_none() {
            document.fault(&item, "an address or a range such as 10.0.0.0/8", format!("{text:?}"));
        }
        blocks.extend(block.map(canonical));
    }
    blocks
}

/// A range of IPv4 addresses written in IPv6 form as the IPv4 range: addresses are compared in that form.
fn canonical(block: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let (address, bits) = (block.addr().to_canonical(), block.prefix_len());
    match (block, address, bits.checked_sub(MAPPED_BITS)) {
        (IpNet::V6(_), IpAddr::V4(address), Some(bits)) => {
            Ipv4Net::new(address, bits).map_or(block, IpNet::V4)
        }
        (IpNet::V4(_) | IpNet::V6(_), IpAddr::V4(_) | IpAddr::V6(_), _) => block,
    }
}
