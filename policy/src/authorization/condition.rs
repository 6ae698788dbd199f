//! One thing a rule asks about a connection, and whether it holds.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Request;
use crate::pattern::{Glob, Pattern};
use crate::settings::Settings;

/// The trust domain that a policy may write for "the local one, whatever it is called", as in Istio.
const LOCAL_TRUST_DOMAIN: &str = "cluster.local";
/// How many parts `<trust domain>/ns/<namespace>/sa/<service account>` has.
const PRINCIPAL_PARTS: usize = 5;

/// A question about one attribute: some value matches, or, negated, none does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) attribute: Attribute,
    pub(crate) negated: bool,
}

/// An attribute of a connection with the values that are asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Attribute {
    DestinationIp(Vec<IpNet>),
    DestinationPort(Vec<u16>),
    Namespace(Vec<Glob>),
    Principal(Vec<Pattern>),
    /// Namespace and name.
    ServiceAccount(Vec<(Box<str>, Box<str>)>),
    SourceIp(Vec<IpNet>),
    TrustDomain(Vec<Pattern>),
}

impl Condition {
    /// `absent_is_match` says what a negated question about an identity that the peer does not have comes to.
    pub(super) fn holds(&self, request: &Request<'_>, absent_is_match: bool) -> bool {
        match (self.attribute.matches(request), self.negated) {
            (Some(matches), negated) => matches != negated,
            (None, true) => absent_is_match,
            (None, false) => false,
        }
    }

    /// The same question with every principal and trust domain of this mesh under all of the mesh's names.
    pub(super) fn with_aliases(&self, settings: &Settings) -> Self {
        let attribute = match &self.attribute {
            Attribute::Principal(values) => {
                Attribute::Principal(values.iter().flat_map(|value| principals(value, settings)).collect())
            }
            Attribute::TrustDomain(values) => {
                Attribute::TrustDomain(values.iter().flat_map(|value| domains(value, settings)).collect())
            }
            other @ (Attribute::DestinationIp(_)
            | Attribute::DestinationPort(_)
            | Attribute::Namespace(_)
            | Attribute::ServiceAccount(_)
            | Attribute::SourceIp(_)) => other.clone(),
        };
        Self { attribute, negated: self.negated }
    }
}

impl Attribute {
    /// Whether some value matches; `None` when the connection does not have the attribute.
    fn matches(&self, request: &Request<'_>) -> Option<bool> {
        let identity = request.identity;
        Some(match self {
            Self::DestinationIp(values) => contains(values, request.destination.ip()),
            Self::DestinationPort(values) => values.contains(&request.destination.port()),
            Self::Namespace(values) => {
                let namespace = identity?.namespace()?;
                values.iter().any(|value| value.matches(namespace))
            }
            Self::Principal(values) => any(values, identity?.principal()),
            Self::ServiceAccount(values) => {
                let (namespace, name) = (identity?.namespace()?, identity?.service_account()?);
                values.iter().any(|(ns, sa)| **ns == *namespace && **sa == *name)
            }
            Self::SourceIp(values) => contains(values, request.source),
            Self::TrustDomain(values) => any(values, identity?.trust_domain()),
        })
    }
}

fn any(values: &[Pattern], text: &str) -> bool {
    values.iter().any(|value| value.matches(text))
}

fn contains(values: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    values.iter().any(|net| net.contains(&address))
}

/// A principal in full form whose trust domain is ours is asked for under each of our names. A `*` in front
/// that already covers a name stays as it is.
fn principals(value: &Pattern, settings: &Settings) -> Vec<Pattern> {
    let kept = || vec![value.clone()];
    if value.text().split('/').count() != PRINCIPAL_PARTS {
        return kept();
    }
    let Some((domain, path)) = value.text().split_once('/') else { return kept() };
    let pattern = Pattern::new(domain);
    let ours = settings.trust_domains().any(|own| pattern.matches(own.as_str()));
    if domain == "*" || !(ours || domain == LOCAL_TRUST_DOMAIN) {
        return kept();
    }
    let mut values: Vec<Pattern> = Vec::new();
    for own in settings.trust_domains() {
        let covered = pattern.is_suffix() && pattern.matches(own.as_str());
        let named = if covered { value.clone() } else { Pattern::new(&format!("{}/{path}", own.as_str())) };
        if !values.contains(&named) {
            values.push(named);
        }
    }
    values
}

fn domains(value: &Pattern, settings: &Settings) -> Vec<Pattern> {
    if settings.trust_domains().any(|own| own.as_str() == value.text()) {
        settings.trust_domains().map(|own| Pattern::new(own.as_str())).collect()
    } else {
        vec![value.clone()]
    }
}
