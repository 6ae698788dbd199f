//! Mutual TLS 1.3 between sidecars: what is offered, how peers are verified, how a stream ends.
//!
//! - `material`: one pair of rustls configurations per set of credentials.
//! - `verifier`: the SPIFFE rules in rustls's shape, handing the verified peer out with the stream.
//! - `known_chains`: what it has verified a moment ago.
//! - `handshake`: accept and connect, yielding a stream **with** a peer identity, never an option.
//! - `beginning`: whether a peer speaks TLS at all.
//! - `record`: the record layer, from the handshake's keys to bytes on the socket.
//! - `reference`: the same by rustls's own stream.
//! - `stream`: one of the two with its peer.
//! - `alert`: the one fatal alert that tells the far sidecar that the application failed.

pub mod alert;
mod beginning;
pub mod handshake;
mod known_chains;
pub mod material;
pub mod record;
mod reference;
pub mod stream;
mod verifier;

pub use handshake::{HandshakeError, accept, connect};
pub use material::{Credentials, CredentialsRx, MaterialError, TlsSettings};
pub use stream::MeshStream;
