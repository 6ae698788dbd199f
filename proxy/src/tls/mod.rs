//! Mutual TLS 1.3 between sidecars: what is offered, how peers are verified, how a stream ends.
//!
//! - `material`: one pair of rustls configurations per set of credentials.
//! - `verifier`: the SPIFFE rules in rustls's shape, handing the verified peer out with the stream.
//! - `handshake`: accept and connect, yielding a stream **with** a peer identity, never an option.
//! - `alert`: the one fatal alert that tells the far sidecar that the application failed.

pub mod alert;
pub mod handshake;
pub mod material;
pub mod verifier;

pub use handshake::{HandshakeError, MeshStream, accept, connect};
pub use material::{Credentials, CredentialsRx, MaterialError};
