//! Mutual TLS 1.3 between sidecars: what is offered, how peers are verified, how a stream ends.
//!
//! - `material`: one pair of rustls configurations per set of credentials.
//! - `verifier`: the SPIFFE rules in rustls's shape, handing the verified peer out with the stream.
//! - `handshake`: accept and connect, yielding a stream **with** a peer identity, never an option.
//! - `stream`: the stream with its peer, and the bytes that were read before the handshake.
//! - `alert`: the one fatal alert that tells the far sidecar that the application failed.

pub mod alert;
pub mod handshake;
pub mod material;
pub mod stream;
mod verifier;

pub use handshake::{HandshakeError, accept, connect};
pub use material::{Credentials, CredentialsRx, MaterialError};
pub use stream::MeshStream;
