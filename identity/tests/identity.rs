//! The rules of identity, from outside: what is accepted, what is refused and why.
//!
//! A new hostile certificate is a row in `hostile_certificates`; a new shape of leaf that must be
//! accepted goes to `accepted_certificates`.
#![expect(clippy::unwrap_used, reason = "tests: a panic is the report")]

mod accepted_certificates;
mod authority;
mod credentials;
mod hostile_certificates;
mod private_keys;
mod spiffe_ids;
mod trust_bundles;
