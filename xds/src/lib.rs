//! The messages of workload discovery: Istio's own, and the two that Istio's types have no room for.
//!
//! Proxy and control plane must agree field by field, so both take them from here. They are declared by
//! hand, with the field numbers of the published definitions, because a few messages are easier to audit
//! than a build-time generator. A field that nothing here reads is left out, and skipped when it comes.
//!
//! - [`discovery`]: Envoy's delta discovery, the stream that carries everything.
//! - [`workload`]: `istio.workload`, who answers at an address.
//! - [`security`]: `istio.security`, who may connect to a workload.
//! - [`ringmail`]: `ringmail.discovery.v1`, how each port is served, and what a client speaks to a workload.
//! - [`service`]: the gRPC method, for both ends, and how many parts a message may have.
//!
//! What a later version may say besides, and what becomes of it here, is in docs/upgrade.md. The feature `next-schema`
//! makes that later version, for the test that has both side by side.

#![forbid(unsafe_code)]

mod codec;
pub mod discovery;
#[cfg(feature = "next-schema")]
pub mod next;
pub mod ringmail;
pub mod security;
pub mod service;
pub mod workload;

use std::net::IpAddr;

use prost::Message;

use discovery::Any;

/// A message that travels as a resource.
pub trait Resource: Message + Default {
    /// What the stream calls its type.
    const TYPE_URL: &'static str;

    /// The message as the stream carries it.
    fn to_any(&self) -> Any {
        let value = self.encode_to_vec();
        #[cfg(feature = "next-schema")]
        let value = next::said(Self::TYPE_URL, value);
        Any { type_url: Self::TYPE_URL.to_owned(), value: value.into() }
    }

    /// Reads [`to_any`](Self::to_any) back.
    ///
    /// # Errors
    /// [`ReadError`] for another type, or bytes that are not of this one.
    fn from_any(any: &Any) -> Result<Self, ReadError> {
        if any.type_url != Self::TYPE_URL {
            return Err(ReadError::Type { expected: Self::TYPE_URL, got: any.type_url.clone() });
        }
        #[cfg(feature = "next-schema")]
        let any = &next::heard(any);
        let mut message = Self::decode(any.value.clone())
            .map_err(|error| ReadError::Bytes { expected: Self::TYPE_URL, error: error.to_string() })?;
        message.note_unread(&any.value);
        Ok(message)
    }

    /// Notes in a message what its encoded form says besides, where it would be wrong to pass over that.
    fn note_unread(&mut self, _encoded: &[u8]) {}
}

/// Why a resource cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not what its type says.
    #[error("expected a message {expected}: {error}")]
    Bytes {
        /// The type.
        expected: &'static str,
        /// What the decoder says.
        error: String,
    },
    /// It is of another type.
    #[error("expected a resource of type {expected}, got {got:?}")]
    Type {
        /// The type that was asked for.
        expected: &'static str,
        /// The one that came.
        got: String,
    },
}

/// The name by which an address is asked for: the network, here the only one and without a name, and the address.
pub fn address_name(address: IpAddr) -> String {
    format!("/{}", address.to_canonical())
}

/// The address that [`address_name`] names.
pub fn named_address(name: &str) -> Option<IpAddr> {
    let address: IpAddr = name.strip_prefix('/')?.parse().ok()?;
    Some(address.to_canonical())
}

/// An address as `istio.workload` and `istio.security` carry it: 4 or 16 bytes.
pub fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Reads [`address_bytes`] back; nothing for any other length.
pub fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match *bytes {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Address, Workload, address};

    #[test]
    fn an_address_and_its_name_come_back_as_they_were() {
        for text in ["10.0.0.7", "fd00::7"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(named_address(&address_name(address)), Some(address));
            assert_eq!(address_of(&address_bytes(address)), Some(address));
        }
        assert_eq!(address_name("::ffff:10.0.0.7".parse().unwrap()), "/10.0.0.7");
        for name in ["10.0.0.7", "network/10.0.0.7", "/", "/name", "ignite/ignite.ignite.svc.cluster.local"] {
            assert_eq!(named_address(name), None, "{name}");
        }
        assert_eq!(address_of(&[10, 0, 0]), None);
    }

    #[test]
    fn a_resource_comes_back_as_it_was_and_another_type_is_refused() {
        let workload = Workload { name: "ignite-0".to_owned(), ..Workload::default() };
        let sent = Address { r#type: Some(address::Type::Workload(workload)) };
        assert_eq!(Address::from_any(&sent.to_any()).unwrap(), sent);
        let error = security::Authorization::from_any(&sent.to_any()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a resource of type type.googleapis.com/istio.security.Authorization, got \
             \"type.googleapis.com/istio.workload.Address\""
        );
        let mut cut = sent.to_any();
        cut.value.truncate(3);
        assert!(matches!(Address::from_any(&cut), Err(ReadError::Bytes { .. })));
    }
}
