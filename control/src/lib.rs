//! Injector and discovery of the mesh, from the Kubernetes API.
//!
//! [`inject`] decides about a pod and is pure; [`webhook`] asks it on behalf of the API server.

pub mod inject;
pub mod webhook;
