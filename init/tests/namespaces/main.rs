//! The rules in real namespaces, with both backends and both families. Needs root.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod capture;
mod guard;
mod invalid;
mod lab;
mod lifecycle;
mod own_dials;
mod refusals;
mod remembered;
