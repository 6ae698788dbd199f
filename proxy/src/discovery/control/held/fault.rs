//! Why a resource is refused, and what is missing before anything may be decided.

use std::net::IpAddr;

use ringmail_policy::WireError;
use ringmail_xds::{ReadError, Resource, discovery::NamedResource};

use crate::discovery::RefusedResource;

/// Why a resource is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Fault {
    /// Nobody knows which of them holds.
    #[error("{name}: said {times} times in one answer, expected once")]
    Duplicate {
        /// The resources' name.
        name: String,
        /// How often.
        times: usize,
    },
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
    /// It is of another network, whose addresses mean nothing here.
    #[error("{name}: expected an address of this network, got one of {network:?}")]
    Network {
        /// The resource.
        name: String,
        /// The other network.
        network: String,
    },
    /// It claims an address at which no other pod can be.
    #[error("{name}: expected the address of a pod or a service, got {address}")]
    Nowhere {
        /// The resource.
        name: String,
        /// What it claims.
        address: IpAddr,
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

impl Fault {
    /// Which series it counts in.
    pub(in super::super) fn reason(&self) -> RefusedResource {
        match self {
            Self::Duplicate { .. } => RefusedResource::Duplicate,
            Self::Empty { .. } | Self::Field { .. } => RefusedResource::Field,
            Self::Limit { .. } => RefusedResource::Limit,
            Self::Network { .. } => RefusedResource::Network,
            Self::Nowhere { .. } => RefusedResource::Nowhere,
            Self::Read { .. } => RefusedResource::Unreadable,
            Self::Type(_) => RefusedResource::Type,
        }
    }
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
