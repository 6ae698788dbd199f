//! Injector and discovery of the mesh, from the Kubernetes API.
//!
//! [`inject`] decides about a pod and is pure; [`webhook`] asks it on behalf of the API server. [`discovery`] tells proxies
//! who answers at an address and what holds there. [`health`] says whether both can do their work.

#![forbid(unsafe_code)]

pub mod discovery;
pub mod health;
pub mod inject;
pub mod webhook;
