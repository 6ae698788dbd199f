//! Resources as they travel: bytes, and a version that is made of them, so that every replica gives the same.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use ringmail_xds::{
    Resource,
    discovery::{Any, NamedResource},
};

/// Equal versions of a name are equal resources: half of a SHA-256 of the message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Version(u128);

impl Version {
    fn of(bytes: &[u8]) -> Self {
        let mut half = [0; 16];
        for (to, from) in half.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
            *to = *from;
        }
        Self(u128::from_be_bytes(half))
    }

    /// What a client says it holds; a text of another server's is a version that nothing has.
    pub(crate) fn read(text: &str) -> Self {
        Self(u128::from_str_radix(text, 16).unwrap_or_default())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A resource as it travels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Encoded {
    pub(crate) version: Version,
    value: Bytes,
}

impl Encoded {
    pub(crate) fn new(message: &impl Resource) -> Arc<Self> {
        let value = message.to_any().value;
        Arc::new(Self { version: Version::of(&value), value })
    }

    pub(crate) fn named(&self, type_url: &str, name: &str, aliases: Vec<String>) -> NamedResource {
        let any = Any { type_url: type_url.to_owned(), value: self.value.clone() };
        let (version, name) = (self.version.to_string(), name.to_owned());
        NamedResource { version, resource: Some(any), name, aliases }
    }
}
