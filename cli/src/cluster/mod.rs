//! What commands ask a Kubernetes cluster: once, read-only, with the rights of whoever runs them.
//!
//! - `connect`: which cluster, as kubectl chooses it.
//! - `mesh`: the objects, the mesh's settings, and what follows from them, by the code of `ringmail-control`.
//! - `manifests`: objects from files that are taken as if they had been applied.
//! - `capture`: which of a pod's connections go through its sidecar.

mod capture;
mod connect;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod manifests;
mod mesh;

use std::future::Future;

use anyhow::{Context, Result};

pub(crate) use capture::{Capture, Direction};
pub(crate) use connect::{ClusterArgs, Connection, connect};
pub(crate) use error::ClusterError;
pub(crate) use manifests::{Supposed, manifests_in};
pub(crate) use mesh::Mesh;
#[cfg(test)]
pub(crate) use mesh::MeshFile;

/// Runs a command that asks a cluster to its end.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
    runtime.block_on(work)
}
