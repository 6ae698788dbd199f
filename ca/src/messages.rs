//! The messages of `istio.v1.auth.IstioCertificateService`, as the field's agents send them.
//!
//! They are declared by hand because three small messages are easier to audit than a build-time
//! generator. Field number 2 of the request was never used by the protocol and must stay free.

use std::collections::BTreeMap;

/// Path of the only method of the service.
pub const CREATE_CERTIFICATE_PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// A request to sign the public key of `csr`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateRequest {
    /// PEM-encoded PKCS#10 request.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Asked lifetime in seconds; zero or less means the server's default.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Free-form data of the caller; only `ImpersonatedIdentity` has a meaning here: it is refused.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
    /// What a later version asks besides.
    #[cfg(feature = "next-schema")]
    #[prost(string, tag = "100")]
    pub more: String,
}

/// The signed certificate and what is needed to verify it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateResponse {
    /// PEM: the leaf, then the intermediates one by one, then one element with all trusted roots.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
    /// What a later version says besides.
    #[cfg(feature = "next-schema")]
    #[prost(string, tag = "100")]
    pub more: String,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// The members of the object.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// The value; absent when the sender set none.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// The kinds of `google.protobuf.Value`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// JSON `null`.
    #[prost(int32, tag = "1")]
    Null(i32),
    /// A number.
    #[prost(double, tag = "2")]
    Number(f64),
    /// A string.
    #[prost(string, tag = "3")]
    String(String),
    /// A boolean.
    #[prost(bool, tag = "4")]
    Bool(bool),
    /// An object.
    #[prost(message, tag = "5")]
    Struct(Struct),
    /// An array.
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListValue {
    /// The elements.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}
