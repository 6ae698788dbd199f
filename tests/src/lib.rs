//! End-to-end scenarios: real Ignite rings, real rules, real sidecars, in network namespaces.
//!
//! Each file under `tests/` is a family of scenarios, and each scenario asks
//! every node for its own view. What they share is here: a world of pods with or without a mesh, and
//! what the sidecars say of themselves. Everything needs root, Java 17 and Maven, and fails without.
//!
//! `RINGMAIL_NIGHTLY=1` runs each scenario on both Ignite versions, `RINGMAIL_IGNITE=2.16.0` on that one.

pub mod calls;
pub mod intruder;
pub mod kube;
pub mod roots;
pub mod said;
pub mod streams;
pub mod world;

pub use world::{Shape, World, nightly, versions};
