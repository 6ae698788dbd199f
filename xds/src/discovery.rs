//! `envoy.service.discovery.v3`: subscriptions in one direction, resources and removals in the other.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What a client asks for, or says of an answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks; sent with the first request of a stream.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// The type of what is asked for.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names that are asked for from now on.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names that are no longer asked for.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// In the first request of a type: what is already held, name and version.
    #[prost(btree_map = "string, string", tag = "5")]
    pub initial_resource_versions: BTreeMap<String, String>,
    /// The answer that this acknowledges or, with `error_detail`, refuses.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Why the answer was refused.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// What changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryResponse {
    /// The server's own version, for people.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// What is new or changed.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<NamedResource>,
    /// The type of all of it.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// What the client is to quote when it acknowledges.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names that are gone, or were asked for and do not exist.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// `envoy.service.discovery.v3.Resource`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamedResource {
    /// Its version: equal versions of a name are equal resources.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The resource itself.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its own name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Other names that it may have been asked for by.
    #[prost(string, repeated, tag = "4")]
    pub aliases: Vec<String>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Any {
    /// What the bytes are.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `envoy.config.core.v3.Node`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// `<role>~<address>~<pod>.<namespace>~<namespace>.svc.<cluster domain>`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The client's version, for the server's books.
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
    /// The version of the client.
    #[prost(string, tag = "7")]
    pub user_agent_version: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// A code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What went wrong.
    #[prost(string, tag = "2")]
    pub message: String,
}
