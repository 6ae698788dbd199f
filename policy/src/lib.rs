//! Istio-shaped policy: resources in, compiled decisions out, each naming the resource that made it.
//!
//! The resources are the ones users already have: PeerAuthentication, AuthorizationPolicy (its L4 fields),
//! DestinationRule `trafficPolicy.tls.mode` and WorkloadEntry. [`Resources::parse`] reads them, [`Inbound`]
//! and [`Outbound`] compile them for one sidecar; what is compiled can also travel, as the messages of
//! discovery. Nothing here reads a clock, a file or a socket, so that the
//! proxy, the control plane and the command line decide the same thing from the same text.
//!
//! A resource that cannot be honoured in full is refused or reported, never half-applied silently.

#![forbid(unsafe_code)]

mod about;
mod authorization;
mod destination;
mod destination_rule;
mod inbound;
mod left_alone;
mod merge;
mod mode;
mod origin;
mod outbound;
mod parse;
mod pattern;
mod peer_authentication;
mod plaintext;
mod report;
mod resource;
mod service;
mod settings;
mod wire;
mod workload;

pub use about::{EnforcedPolicy, NamingRule, Selecting};
pub use authorization::{Request, Verdict};
pub use destination::{Client, Destination};
pub use inbound::Inbound;
pub use left_alone::{LeftAlone, SIDECAR_PORTS};
pub use merge::ClientClass;
pub use mode::{Mode, ModeDecision};
pub use origin::{Kind, Origin};
pub use outbound::{Answer, Outbound, OutsideReason, RefusedReason, Route};
pub use parse::{
    MAX_FAULTS, MAX_LIST_ITEMS, MAX_RESOURCES, MAX_SERVICE_ACCOUNTS, MAX_TEXT_BYTES, MAX_YAML_DEPTH,
    MAX_YAML_NODES, ParseError, Place, Resources,
};
pub use report::Report;
pub use service::Service;
pub use settings::{Pod, Settings};
pub use wire::WireError;
pub use workload::{Facts, ServicePort, Workload, in_mesh};
