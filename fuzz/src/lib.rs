//! What meets foreign bytes, as functions that take any bytes and panic where a promise does not hold.
//!
//! Each target says what must hold whatever the bytes are: an answer that a slow and obvious second reading gives too, a
//! round trip, a bound. libFuzzer looks for bytes that break one (`src/main.rs`, `scripts/fuzz.sh`); the bytes in `corpus/`,
//! among them every one that ever broke something, are tried by the tests.
//!
//! The record layer is not here: its bytes are sealed, so that nothing but a generator which knows the keys gets anywhere.
//! It has one, which compares it with rustls (`proxy/src/tls/record/tests/differential.rs`).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what must hold and does not is a panic, which the fuzzer finds"
)]

mod ca;
mod control;
mod identity;
mod policy;
mod proxy;
mod wishes;

/// A target: any bytes.
pub type Target = fn(&[u8]);

/// All targets by name, which is also that of the folder of their bytes.
pub const TARGETS: [(&str, Target); 14] = [
    ("admission", control::admission),
    ("certificate", identity::certificate),
    ("csr", ca::csr),
    ("discovery", proxy::discovery),
    ("leaf", identity::leaf),
    ("original_destination", proxy::original_destination),
    ("peek", proxy::peek),
    ("policy", policy::policy),
    ("private_key", identity::private_key),
    ("settings", proxy::settings),
    ("spiffe_id", identity::spiffe_id),
    ("state_file", ca::state_file),
    ("token", ca::token),
    ("trust_bundle", identity::trust_bundle),
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
