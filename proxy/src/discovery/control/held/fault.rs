//! Why a resource is refused, and what is missing before anything may be decided.

use std::net::IpAddr;

use ringmail_policy::WireError;
use ringmail_xds::{ReadError, Resource, discovery::NamedResource};

/// Why a resource is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Fault {
    /// A field does not say what is needed.
    #[error("{name}: {error}")]
    Field {
        /// The resource.
        name: String,
        /// Which field.
        error: WireError,
    },
    /// There is no room for more.
    #[error("{name}: more than {limit} {what}, expected at most that")]
    Limit {
        /// The resource.
        name: String,
        /// What there is too much of.
        what: &'static str,
        /// How many are held at most.
        limit: usize,
    },
    /// It cannot be read.
    #[error("{name}: {error}")]
    Read {
        /// The resource.
        name: String,
        /// Why.
        error: ReadError,
    },
    /// It says nothing.
    #[error("{name}: expected {expected}, got nothing")]
    Empty {
        /// The resource.
        name: String,
        /// What it should have said.
        expected: &'static str,
    },
    /// It was not asked for.
    #[error("expected an answer of a type that was asked for, got {0:?}")]
    Type(String),
}

/// What is missing before anything may be decided. `Display` is what an operator reads on a pod that waits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Incomplete {
    /// The server has not said how this pod's ports are served.
    #[error("discovery has not sent this pod's own policies yet")]
    NoInbound,
    /// A policy is on its way.
    #[error("discovery lists AuthorizationPolicy {0}, which has not come yet")]
    NoPolicy(String),
    /// The server does not know this pod.
    #[error("discovery does not know this pod's own address yet: {0}")]
    OwnUnknown(String),
    /// The server takes this pod for another one.
    #[error("discovery says that this pod's own address {address} is {got}, expected {expected}")]
    OwnMistaken {
        /// Which address.
        address: IpAddr,
        /// Who is there in the server's opinion.
        got: String,
        /// Who is there.
        expected: String,
    },
    /// What the server sent makes no decisions.
    #[error("this pod's own policies: {0}")]
    Wire(#[from] WireError),
}

pub(super) fn read<M: Resource>(resource: &NamedResource) -> Result<M, Fault> {
    let Some(any) = &resource.resource else { return Err(empty(resource, "a resource")) };
    M::from_any(any).map_err(|error| Fault::Read { name: resource.name.clone(), error })
}

pub(super) fn empty(resource: &NamedResource, expected: &'static str) -> Fault {
    Fault::Empty { name: resource.name.clone(), expected }
}

pub(super) fn limit(resource: &NamedResource, what: &'static str, limit: usize) -> Fault {
    Fault::Limit { name: resource.name.clone(), what, limit }
}
