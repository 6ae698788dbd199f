//! Reading one rule of an AuthorizationPolicy: every field becomes a condition, or is noted as one that this
//! layer cannot decide.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::Rule;
use super::condition::{Attribute, Condition};
use crate::parse::{Document, Field, MAX_SERVICE_ACCOUNTS};
use crate::pattern::{Glob, Pattern};
use crate::resource::Meta;

const SOURCE_FIELDS: &str = "principals, namespaces, serviceAccounts, ipBlocks, remoteIpBlocks, trustDomains, \
     requestPrincipals or one of them with not in front";
const OPERATION_FIELDS: &str = "ports, hosts, methods, paths or one of them with not in front";
const SPIFFE_SCHEME: &str = "spiffe://";

/// Reads one rule, collecting the fields that this layer cannot decide.
pub(super) struct RuleReader<'p> {
    policy: &'p Meta,
    left_out: Vec<String>,
}

impl<'p> RuleReader<'p> {
    pub(super) const fn new(policy: &'p Meta) -> Self {
        Self { policy, left_out: Vec::new() }
    }

    /// The rule, and the names of the fields that are not in it because this layer cannot decide them.
    pub(super) fn read(
        mut self,
        document: &mut Document,
        index: usize,
        field: &Field<'_>,
    ) -> (Rule, Vec<String>) {
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
        (rule, self.left_out)
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
        let has = |names: &[&str]| entries.iter().any(|(key, _)| names.contains(&negation(key).0));
        if has(&["serviceAccounts"]) && has(&["principals", "namespaces"]) {
            document.fault(whole, "no principals or namespaces beside serviceAccounts", "both");
        }
        let mut conditions = Vec::new();
        for (key, field) in &entries {
            let (name, negated) = negation(key);
            let attribute = if source {
                self.source(document, field, (key, name))
            } else {
                self.operation(document, field, (key, name))
            };
            conditions.extend(attribute.map(|attribute| Condition { attribute, negated }));
        }
        conditions
    }

    fn source(
        &mut self,
        document: &mut Document,
        field: &Field<'_>,
        (key, name): (&str, &str),
    ) -> Option<Attribute> {
        match name {
            "principals" => Some(self.principals(document, field)),
            "namespaces" => Some(Attribute::Namespace(globs(document, field))),
            "serviceAccounts" => Some(self.service_accounts(document, field)),
            "ipBlocks" => Some(Attribute::SourceIp(blocks(document, field))),
            "remoteIpBlocks" => Some(self.remote_blocks(document, field, key)),
            "trustDomains" => Some(Attribute::TrustDomain(self.patterns(document, field))),
            "requestPrincipals" => {
                self.leave_out(document, field, key);
                None
            }
            _ => {
                document.unknown(field, SOURCE_FIELDS);
                None
            }
        }
    }

    fn operation(
        &mut self,
        document: &mut Document,
        field: &Field<'_>,
        (key, name): (&str, &str),
    ) -> Option<Attribute> {
        match name {
            "ports" => Some(Attribute::DestinationPort(ports(document, field))),
            "hosts" | "methods" | "paths" => {
                self.leave_out(document, field, key);
                None
            }
            _ => {
                document.unknown(field, OPERATION_FIELDS);
                None
            }
        }
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
                "source.namespace" => Attribute::Namespace(globs(document, &field)),
                "source.serviceAccount" => self.service_accounts(document, &field),
                "source.trustDomain" => Attribute::TrustDomain(self.patterns(document, &field)),
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
        let values = self.patterns(document, field);
        for value in values.iter().filter(|value| value.text().starts_with(SPIFFE_SCHEME)) {
            let text =
                format!("{:?} never matches: principals are written without {SPIFFE_SCHEME}", value.text());
            document.report(self.policy, field, text);
        }
        Attribute::Principal(values)
    }

    fn patterns(&self, document: &mut Document, field: &Field<'_>) -> Vec<Pattern> {
        let values: Vec<_> = texts(document, field).into_iter().map(Pattern::new).collect();
        for value in values.iter().filter(|value| value.literal().contains('*')) {
            let text =
                format!("{:?}: a * that is neither first nor last is an ordinary character", value.text());
            document.report(self.policy, field, text);
        }
        values
    }

    fn service_accounts(&self, document: &mut Document, field: &Field<'_>) -> Attribute {
        let mut accounts = Vec::new();
        for item in field.items_up_to(document, MAX_SERVICE_ACCOUNTS) {
            let Some(text) = item.required_text(document) else { continue };
            let (namespace, name) = text.split_once('/').unwrap_or((&self.policy.namespace, text));
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
        document.report(self.policy, field, text);
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

fn globs(document: &mut Document, field: &Field<'_>) -> Vec<Glob> {
    texts(document, field).into_iter().map(Glob::new).collect()
}

fn texts<'a>(document: &mut Document, field: &Field<'a>) -> Vec<&'a str> {
    let items = not_empty(document, field);
    items.iter().filter_map(|item| item.required_text(document)).collect()
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
