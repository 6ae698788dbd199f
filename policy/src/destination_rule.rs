//! DestinationRule: what a client is told to speak to a host, overriding what it would find out itself.
//!
//! Of all that a DestinationRule can say only `trafficPolicy.tls.mode` has a meaning for a sidecar that neither
//! balances nor reads: everything else is reported.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::destination::TlsDecision;
use crate::parse::{Document, Field};
use crate::resource::{Labels, Meta, selects};
use crate::settings::Pod;
use crate::workload::CLUSTER_DOMAIN;

/// What a client is told to speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ClientTls {
    Disable,
    IstioMutual,
    Mutual,
    Simple,
}

impl ClientTls {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::IstioMutual => "ISTIO_MUTUAL",
            Self::Mutual => "MUTUAL",
            Self::Simple => "SIMPLE",
        }
    }
}

/// A parsed rule. `None` as a mode leaves the choice to what is known about the workload.
#[derive(Clone, Debug)]
pub(crate) struct DestinationRule {
    pub(crate) meta: Meta,
    /// A full host name, or one with `*` in front.
    host: String,
    tls: Option<ClientTls>,
    ports: BTreeMap<u16, Option<ClientTls>>,
    /// A rule without a traffic policy leaves its host to the next older one with the same host.
    has_policy: bool,
    selector: Labels,
    export_to: Vec<String>,
}

const SPEC_FIELDS: &str = "host, trafficPolicy, subsets, exportTo or workloadSelector";
const POLICY_FIELDS: &str = "tls, portLevelSettings, loadBalancer, connectionPool, outlierDetection, tunnel, \
     proxyProtocol or retryBudget";
const PORT_FIELDS: &str = "port, tls, loadBalancer, connectionPool or outlierDetection";
const TLS_FIELDS: &str = "mode, clientCertificate, privateKey, caCertificates, caCrl, credentialName, \
     subjectAltNames, sni or insecureSkipVerify";
const MODES: &str = "DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL";

impl DestinationRule {
    /// Nothing after a fault.
    pub(crate) fn parse(document: &mut Document, meta: Meta, spec: &Field<'_>) -> Option<Self> {
        let mut rule = Self {
            meta,
            host: String::new(),
            tls: None,
            ports: BTreeMap::new(),
            has_policy: false,
            selector: Labels::new(),
            export_to: Vec::new(),
        };
        for (key, field) in spec.entries(document) {
            match key {
                "host" => {
                    let host = field.required_text(document).unwrap_or_default();
                    rule.host = full_host(host, &rule.meta.namespace);
                }
                "trafficPolicy" => rule.read_policy(document, &field),
                "workloadSelector" => rule.selector = field.selector(document),
                "exportTo" => {
                    for item in field.items(document) {
                        rule.export_to.extend(item.required_text(document).map(str::to_owned));
                    }
                }
                "subsets" => document.report(&rule.meta, &field, "subsets have no effect"),
                _ => document.unknown(&field, SPEC_FIELDS),
            }
        }
        if spec.get("host").is_none() {
            document.fault(spec, "a field host", "none");
        }
        (!rule.host.is_empty()).then_some(rule)
    }

    fn read_policy(&mut self, document: &mut Document, policy: &Field<'_>) {
        self.has_policy = !policy.is_null();
        for (key, field) in policy.entries(document) {
            match key {
                "tls" => self.tls = self.tls_mode(document, &field),
                "portLevelSettings" => self.read_ports(document, &field),
                "connectionPool" | "loadBalancer" | "outlierDetection" | "proxyProtocol" | "retryBudget"
                | "tunnel" => self.report_unused(document, &field, key),
                _ => document.unknown(&field, POLICY_FIELDS),
            }
        }
    }

    /// The first setting of a port holds, and holds whole: without `tls` it undoes the rule's own.
    fn read_ports(&mut self, document: &mut Document, list: &Field<'_>) {
        for item in list.items(document) {
            let (mut port, mut tls) = (None, None);
            for (key, field) in item.entries(document) {
                match key {
                    "port" => port = port_number(document, &field),
                    "tls" => tls = self.tls_mode(document, &field),
                    "connectionPool" | "loadBalancer" | "outlierDetection" => {
                        self.report_unused(document, &field, key);
                    }
                    _ => document.unknown(&field, PORT_FIELDS),
                }
            }
            if item.get("port").is_none() {
                document.fault(&item, "a field port", "none");
            }
            let Some(port) = port else { continue };
            match self.ports.entry(port) {
                Entry::Vacant(entry) => _ = entry.insert(tls),
                Entry::Occupied(_) => {
                    document.report(&self.meta, &item, format!("shadowed: port {port} already has settings"));
                }
            }
        }
    }

    fn tls_mode(&self, document: &mut Document, tls: &Field<'_>) -> Option<ClientTls> {
        if tls.is_null() {
            return None;
        }
        let mut mode = ClientTls::Disable;
        for (key, field) in tls.entries(document) {
            match key {
                "mode" => match field.text(document) {
                    Some("DISABLE") | None => {}
                    Some("ISTIO_MUTUAL") => mode = ClientTls::IstioMutual,
                    Some("MUTUAL") => mode = ClientTls::Mutual,
                    Some("SIMPLE") => mode = ClientTls::Simple,
                    Some(other) => document.fault(&field, MODES, format!("{other:?}")),
                },
                "caCertificates" | "caCrl" | "clientCertificate" | "credentialName"
                | "insecureSkipVerify" | "privateKey" | "sni" | "subjectAltNames" => {
                    self.report_unused(document, &field, key)
                }
                _ => document.unknown(&field, TLS_FIELDS),
            }
        }
        if tls.get("mode").is_none() {
            // Istio's own default for the field; spelled out, because it means plaintext.
            document.report(&self.meta, tls, "tls without a mode means DISABLE: plaintext");
        }
        if matches!(mode, ClientTls::Mutual | ClientTls::Simple) {
            let text =
                format!("tls mode {} is not supported: connections it decides are refused", mode.as_str());
            document.report(&self.meta, tls.get("mode").as_ref().unwrap_or(tls), text);
        }
        Some(mode)
    }

    fn report_unused(&self, document: &mut Document, field: &Field<'_>, key: &str) {
        document.report(&self.meta, field, format!("{key} has no effect"));
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn names(&self, host: &str) -> bool {
        match self.host.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix),
            None => host == self.host,
        }
    }

    /// What the rule says about every port that it does not name.
    pub(crate) fn whole(&self) -> Option<TlsDecision> {
        self.tls.map(|tls| TlsDecision { tls, decided_by: self.meta.origin("") })
    }

    /// The ports that it names.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// What the rule says about `port`. Nothing: find out yourself.
    pub(crate) fn at(&self, port: u16) -> Option<TlsDecision> {
        let Some(named) = self.ports.get(&port) else { return self.whole() };
        named.map(|tls| TlsDecision { tls, decided_by: self.meta.origin(&format!("port {port}")) })
    }

    /// Whether clients of the namespace may be told otherwise than those of a namespace that no rule names.
    pub(crate) fn means_clients_of(&self, namespace: &str) -> bool {
        *self.meta.namespace == *namespace || self.export_to.iter().any(|to| to == namespace)
    }

    /// Whether the rule asks for `tls` on any port.
    pub(crate) fn asks_for(&self, tls: ClientTls) -> bool {
        self.ports.values().chain([&self.tls]).any(|asked| *asked == Some(tls))
    }

    /// The namespaces and labels by which the rule can tell its clients from others: those of its own namespace, of
    /// those that it is exported to by name, and those that it selects.
    pub(crate) fn kinds_of_clients(&self) -> impl Iterator<Item = (String, Labels)> {
        let exported = self.export_to.iter().filter(|to| !matches!(to.as_str(), "*" | "."));
        let namespaces = exported.cloned().chain([self.meta.namespace.to_string()]);
        let selected = (self.meta.namespace.to_string(), self.selector.clone());
        namespaces.map(|namespace| (namespace, Labels::new())).chain([selected])
    }

    /// The labels that the rule asks of a client.
    pub(crate) fn client_labels(&self) -> impl Iterator<Item = &String> {
        self.selector.keys()
    }

    /// Whether the rule's author shows it to clients of the namespace; without one, to everybody's.
    fn is_exported(&self, client: Option<&Pod>) -> bool {
        self.export_to.is_empty()
            || self.export_to.iter().any(|to| match (to.as_str(), client) {
                ("*", _) => true,
                (".", Some(client)) => *client.namespace == *self.meta.namespace,
                (namespace, Some(client)) => namespace == client.namespace,
                (_, None) => false,
            })
    }

    /// Whether a rule with a workload selector means this client.
    fn selects(&self, client: Option<&Pod>) -> bool {
        client.is_some_and(|client| {
            *client.namespace == *self.meta.namespace && selects(&self.selector, &client.labels)
        })
    }
}

/// The rule that holds for `host`, a service of `namespace`, as `client` sees it: from the client's own
/// namespace, else the service's, else the root namespace; there the most specific host, and of one host the
/// oldest, one that selects the client before one that selects everybody. `rules` must be ordered from the
/// oldest to the youngest.
pub(crate) fn choose<'r>(
    rules: &'r [DestinationRule],
    root_namespace: &str,
    client: Option<&Pod>,
    (host, namespace): (&str, &str),
) -> Option<&'r DestinationRule> {
    let client_namespace = client.map(|pod| &*pod.namespace).filter(|&own| own != root_namespace);
    let namespaces = [client_namespace, Some(namespace), Some(root_namespace)];
    namespaces.into_iter().flatten().find_map(|namespace| {
        let candidates = || {
            rules.iter().filter(|rule| {
                *rule.meta.namespace == *namespace && rule.names(host) && rule.is_exported(client)
            })
        };
        let best = candidates().max_by(|a, b| specificity(a, b))?.host();
        let of_host = || candidates().filter(|rule| rule.host() == best);
        let selecting = of_host().find(|rule| !rule.selector.is_empty() && rule.selects(client));
        Some(selecting.or_else(|| {
            let everybody = || of_host().filter(|rule| rule.selector.is_empty());
            everybody().find(|rule| rule.has_policy).or_else(|| everybody().next())
        }))
    })?
}

/// A host without `*` is more specific than one with it; of two with it the longer is.
fn specificity(a: &DestinationRule, b: &DestinationRule) -> Ordering {
    let rank = |rule: &DestinationRule| (!rule.host.starts_with('*'), rule.host.len());
    rank(a).cmp(&rank(b))
}

/// A short name is relative to the rule's namespace; a name with a dot is taken as it is, as in Istio.
fn full_host(host: &str, namespace: &str) -> String {
    if host.is_empty() || host.contains('.') || host.contains('*') {
        host.to_owned()
    } else {
        format!("{host}.{namespace}.svc.{CLUSTER_DOMAIN}")
    }
}

fn port_number(document: &mut Document, field: &Field<'_>) -> Option<u16> {
    let mut number = None;
    for (key, field) in field.entries(document) {
        match key {
            "number" => number = field.number(document).and_then(|text| document.port(&field, text)),
            _ => document.unknown(&field, "number"),
        }
    }
    if field.get("number").is_none() {
        document.fault(field, "a field number", "none");
    }
    number
}
