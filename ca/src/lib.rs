//! The SPIFFE CA of the mesh, speaking the certificate protocol that the field's agents already speak.
//!
//! The rooms, in the order a request passes them: [`door`] (listener, limits, HTTP/2), [`serve`] (TLS), [`service`] (one
//! request), [`attest`] (token to identity), [`csr`] (request to public key), [`issue`] (profile and
//! lifetime), [`audit`] (one line per decision). Beside them: [`authority`] (signing key, chain and
//! roots), [`cluster`] (what lives in the Kubernetes API), `start` (in which order things begin), `upkeep`
//! and `followed` (what changes while running), [`metrics`], `health`, [`config`].

#![forbid(unsafe_code)]

pub mod attest;
pub mod audit;
pub mod authority;
pub mod cluster;
pub mod config;
pub mod csr;
pub mod door;
mod followed;
mod health;
pub mod issue;
pub mod messages;
pub mod metrics;
mod persist;
pub mod serve;
pub mod service;
mod start;
mod upkeep;

use std::net::SocketAddr;

use crate::attest::SourceError;
use crate::authority::LoadError;
use crate::authority::self_signed::StateError;
use crate::cluster::{ConnectError, OpenError};
use crate::issue::IssueError;
use crate::serve::TlsSetupError;

pub use persist::PersistError;
pub use start::run;

/// Why the CA does not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's word.
        error: std::io::Error,
    },
    /// The bundle cannot be written.
    #[error("bundle: {0}")]
    Bundle(#[source] PersistError),
    /// There is no way to the Kubernetes API.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The signing key cannot be used.
    #[error("ca: {0}")]
    Load(#[from] LoadError),
    /// The metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A Secret yields no signing key.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The serving certificate cannot be signed.
    #[error("serving certificate: {0}")]
    Serving(#[from] IssueError),
    /// A source of tokens cannot be used.
    #[error("tokens: {0}")]
    Source(#[from] SourceError),
    /// The state folder yields no root.
    #[error("ca: {0}")]
    State(#[from] StateError),
    /// The TLS settings cannot be made.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// Files and certificates are no longer looked after.
    #[error("a task that follows files or secrets, or renews the serving certificate, has failed")]
    Upkeep,
}
