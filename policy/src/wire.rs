//! What was compiled, as messages of discovery, and back: a control plane compiles, and its proxies decide the
//! same as if they had compiled it themselves.
//!
//! A message that lies is refused with the field that does; nothing of it is applied.

mod authorization;
mod decision;
mod destination;
mod inbound;

/// Why a message does not say what is needed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: expected {expected}, got {got}")]
pub struct WireError {
    /// Which field, as the message's definition names it.
    pub field: &'static str,
    /// What would have been right.
    pub expected: &'static str,
    /// What was there.
    pub got: String,
}

impl WireError {
    fn new(field: &'static str, expected: &'static str, got: impl Into<String>) -> Self {
        Self { field, expected, got: got.into() }
    }
}

/// A port of a message.
fn port(field: &'static str, number: u32) -> Result<u16, WireError> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| WireError::new(field, "a port from 1 to 65535", number.to_string()))
}
