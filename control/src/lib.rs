//! Injector and discovery of the mesh, from the Kubernetes API.
//!
//! [`discovery`] tells proxies who answers at an address and what holds there.

pub mod discovery;
