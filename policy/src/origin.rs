//! The name of what made a decision. It goes into access logs and `explain` as it is, so that one line says
//! which resource to look at.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The kinds of resources that decide something here.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy,
    /// `networking.istio.io` DestinationRule.
    DestinationRule,
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication,
    /// Kubernetes' own Pod, which says who answers at its addresses.
    Pod,
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry,
}

impl Kind {
    /// Every kind, in alphabetical order.
    pub const ALL: [Self; 5] = [
        Self::AuthorizationPolicy,
        Self::DestinationRule,
        Self::PeerAuthentication,
        Self::Pod,
        Self::WorkloadEntry,
    ];

    /// The kinds that [`Resources`](crate::Resources) reads. Pods are known from the API server alone.
    pub const READ: [Self; 4] =
        [Self::AuthorizationPolicy, Self::DestinationRule, Self::PeerAuthentication, Self::WorkloadEntry];

    /// The name as a resource's `kind` field spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::DestinationRule => "DestinationRule",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Pod => "Pod",
            Self::WorkloadEntry => "WorkloadEntry",
        }
    }

    /// The API group in front of the `/` of a resource's `apiVersion`; empty for Kubernetes' core.
    pub const fn group(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy | Self::PeerAuthentication => "security.istio.io",
            Self::DestinationRule | Self::WorkloadEntry => "networking.istio.io",
            Self::Pod => "",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What decided. `Display` gives the text for logs: `PeerAuthentication ignite/default port 10800`,
/// `AuthorizationPolicy ignite/deny-thin rule 0`, `no AuthorizationPolicy selects the pod`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// No resource had a say; the text names the default that holds then.
    Default(Cow<'static, str>),
    /// A resource decided.
    Resource {
        /// The resource's kind.
        kind: Kind,
        /// The resource's namespace.
        namespace: Arc<str>,
        /// The resource's name.
        name: Arc<str>,
        /// Which part of it: `port 10800`, `rule 0`; empty when the resource as a whole decided.
        detail: Arc<str>,
    },
}

impl Origin {
    /// The origin of what holds where no resource has a say; `text` names it.
    pub(crate) const fn default(text: &'static str) -> Self {
        Self::Default(Cow::Borrowed(text))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(text) => f.write_str(text),
            Self::Resource { kind, namespace, name, detail } => {
                write!(f, "{kind} {namespace}/{name}")?;
                if detail.is_empty() { Ok(()) } else { write!(f, " {detail}") }
            }
        }
    }
}
