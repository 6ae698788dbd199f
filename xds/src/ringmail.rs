//! `ringmail.discovery.v1`: what Istio's types have no room for.
//!
//! Every decision names the resource that made it, so that a proxy's log and `explain` say the same as the
//! control plane would.

use std::collections::BTreeMap;

use crate::{Resource, security};

/// How one pod's ports are served. The stream's own pod is the only one it can be asked for, by [`Inbound::NAME`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Inbound {
    /// The pod's namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The pod's name.
    #[prost(string, tag = "2")]
    pub pod: String,
    /// The mode of every port that `ports` does not name.
    #[prost(message, optional, tag = "3")]
    pub mode: Option<ModeDecision>,
    /// Ports with a mode of their own.
    #[prost(message, repeated, tag = "4")]
    pub ports: Vec<PortMode>,
    /// The authorization policies that hold for the pod, all of them, oldest first. A client applies the whole when
    /// it has each in this version.
    #[prost(message, repeated, tag = "5")]
    pub authorizations: Vec<Versioned>,
    /// What of the policies is not honoured as written.
    #[prost(message, repeated, tag = "6")]
    pub reports: Vec<Report>,
    /// What holds for the whole mesh.
    #[prost(message, optional, tag = "7")]
    pub mesh: Option<Mesh>,
    /// Ports that a DestinationRule has clients in the mesh dial in plaintext; absent where none does. A client that
    /// does not read it takes plaintext from nobody in the mesh.
    #[prost(message, optional, tag = "8")]
    pub plaintext: Option<PlaintextPorts>,
}

impl Inbound {
    /// The name it is asked for by.
    pub const NAME: &'static str = "inbound";

    /// What holds where nothing was ever said: PERMISSIVE on every port.
    pub fn permissive() -> Self {
        let mode = ModeDecision { mode: Mode::Permissive.into(), decided_by: Some(Origin::default()) };
        Self { mode: Some(mode), ..Self::default() }
    }
}

impl Resource for Inbound {
    const TYPE_URL: &'static str = "type.googleapis.com/ringmail.discovery.v1.Inbound";
}

/// Ports of a pod that clients in the mesh dial in plaintext, because they are told to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PlaintextPorts {
    /// What tells them of every port that `ports` does not name; absent where nothing does.
    #[prost(message, optional, tag = "1")]
    pub whole: Option<Origin>,
    /// Ports of which something is said of their own.
    #[prost(message, repeated, tag = "2")]
    pub ports: Vec<PlaintextPort>,
}

/// One port of a pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PlaintextPort {
    /// The workload's port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
    /// What has clients dial it in plaintext; absent where nothing does, whatever is said of all others.
    #[prost(message, optional, tag = "2")]
    pub decided_by: Option<Origin>,
}

/// What holds for the whole mesh.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mesh {
    /// The cluster's own address ranges, as CIDRs.
    #[prost(string, repeated, tag = "1")]
    pub ranges: Vec<String>,
}

/// A resource in a version.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Versioned {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// What a client speaks to one workload. Named as the address is, [`address_name`](crate::address_name).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Destination {
    /// The `uid` of the workload that this is said of. It counts only together with that workload.
    #[prost(string, tag = "1")]
    pub uid: String,
    /// What says that the workload is there.
    #[prost(message, optional, tag = "2")]
    pub entry: Option<Origin>,
    /// The mode in which ports are served that `ports` does not name.
    #[prost(message, optional, tag = "3")]
    pub mode: Option<ModeDecision>,
    /// Ports with a mode of their own.
    #[prost(message, repeated, tag = "4")]
    pub ports: Vec<PortMode>,
    /// What a DestinationRule tells clients of ports that `port_tls` does not name; absent where none does.
    #[prost(message, optional, tag = "5")]
    pub tls: Option<TlsDecision>,
    /// Ports of which a DestinationRule says something of their own.
    #[prost(message, repeated, tag = "6")]
    pub port_tls: Vec<PortTls>,
    /// Those of the workload's labels that metrics ask for and Istio's message has no field for.
    #[prost(btree_map = "string, string", tag = "7")]
    pub labels: BTreeMap<String, String>,
    /// Ports that the workload's sidecar does not capture, beside its own. A client that does not read it speaks to
    /// them as to any other port, and is not understood there.
    #[prost(message, repeated, tag = "8")]
    pub left_alone: Vec<PortRange>,
}

impl Resource for Destination {
    const TYPE_URL: &'static str = "type.googleapis.com/ringmail.discovery.v1.Destination";
}

/// Ports from the first to the last, both counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct PortRange {
    /// The first.
    #[prost(uint32, tag = "1")]
    pub first: u32,
    /// The last.
    #[prost(uint32, tag = "2")]
    pub last: u32,
}

/// What made a decision.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Origin {
    /// The resource's kind; empty where a default decided.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Which part of it.
    #[prost(string, tag = "4")]
    pub detail: String,
}

/// A mode and what set it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModeDecision {
    /// The mode.
    #[prost(enumeration = "Mode", tag = "1")]
    pub mode: i32,
    /// What set it.
    #[prost(message, optional, tag = "2")]
    pub decided_by: Option<Origin>,
}

/// How a port is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Mode {
    /// Not said: a fault of the sender.
    Unspecified = 0,
    /// Plaintext only.
    Disable = 1,
    /// Mutual TLS or plaintext.
    Permissive = 2,
    /// Mutual TLS only.
    Strict = 3,
}

/// A port's mode.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PortMode {
    /// The workload's port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
    /// Its mode.
    #[prost(message, optional, tag = "2")]
    pub mode: Option<ModeDecision>,
}

/// What a client is told to speak, and by what.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TlsDecision {
    /// What.
    #[prost(enumeration = "ClientTls", tag = "1")]
    pub tls: i32,
    /// By what.
    #[prost(message, optional, tag = "2")]
    pub decided_by: Option<Origin>,
}

/// What a client is told to speak: DestinationRule's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ClientTls {
    /// Not said: a fault of the sender.
    Unspecified = 0,
    /// Plaintext.
    Disable = 1,
    /// TLS with what the application brings; not supported.
    Simple = 2,
    /// Mutual TLS with what the application brings; not supported.
    Mutual = 3,
    /// The mesh's own mutual TLS.
    IstioMutual = 4,
}

/// What clients of one port are told.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PortTls {
    /// The workload's port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
    /// What; absent where the rule leaves the port to what is known about the workload.
    #[prost(message, optional, tag = "2")]
    pub tls: Option<TlsDecision>,
}

/// One thing about one resource that its author should know.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Report {
    /// The resource's kind.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// What is not as written.
    #[prost(string, tag = "4")]
    pub text: String,
}

/// The name under which our extensions of Istio's messages stand beside those of others.
pub const EXTENSION: &str = "ringmail.io";

/// An extension of `istio.workload.Workload`, for one of several services: its map of services has no order, and
/// its status is one for all of them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Memberships {
    /// The services, the oldest first.
    #[prost(message, repeated, tag = "1")]
    pub services: Vec<Membership>,
}

impl Resource for Memberships {
    const TYPE_URL: &'static str = "type.googleapis.com/ringmail.discovery.v1.Memberships";
}

/// A workload as an endpoint of one service.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Membership {
    /// The service, `<namespace>/<host name>`.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Whether the workload may be chosen for it.
    #[prost(bool, tag = "2")]
    pub chosen: bool,
}

/// An extension of `istio.security.Authorization`: where its rules stood in the policy as it was written.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Written {
    /// For each rule its place in the policy, from 0: rules that this layer cannot decide are left out of the
    /// message, and would shift the others.
    #[prost(uint32, repeated, tag = "1")]
    pub places: Vec<u32>,
    /// The policy's action is CUSTOM, which denies for want of somebody to ask.
    #[prost(bool, tag = "2")]
    pub custom: bool,
}

impl Resource for Written {
    const TYPE_URL: &'static str = "type.googleapis.com/ringmail.discovery.v1.Written";
}

/// An extension of `istio.security.Match`: what its own fields cannot say.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Conditions {
    /// Namespaces with `*` anywhere, any of them.
    #[prost(string, repeated, tag = "1")]
    pub namespaces: Vec<String>,
    /// Trust domains of the peer, any of them.
    #[prost(string, repeated, tag = "2")]
    pub trust_domains: Vec<String>,
    /// None of these namespaces.
    #[prost(string, repeated, tag = "3")]
    pub not_namespaces: Vec<String>,
    /// None of these trust domains.
    #[prost(string, repeated, tag = "4")]
    pub not_trust_domains: Vec<String>,
    /// Ranges of the source address that must hold besides the match's own.
    #[prost(message, repeated, tag = "5")]
    pub source_ips: Vec<security::Address>,
}

impl Resource for Conditions {
    const TYPE_URL: &'static str = "type.googleapis.com/ringmail.discovery.v1.Conditions";
}
