//! Ringmail on a real Kubernetes (`make e2e-kube`): each file is a family of scenarios.
//!
//! They are ignored without a cluster, which `scripts/e2e-kube.sh` brings; there, nothing of it is skipped.

#![expect(clippy::unwrap_used, reason = "a test fails where it meets what it did not expect")]

mod access;
mod addresses;
mod alone;
mod confinement;
mod guides;
mod hostile;
mod policies;
mod ring;
