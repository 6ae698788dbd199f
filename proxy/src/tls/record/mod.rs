//! The record layer of TLS 1.3 (RFC 8446 section 5) for connections whose handshake rustls has done.
//!
//! What it saves is not ciphers but copies: many records per system call, sealed and opened where they lie.
//!
//! - `content`: what records carry, and the alerts that answer what they must not.
//! - `key`: one direction's key with its sequence number: one record sealed or opened in place.
//! - `open`: from records to plaintext, and everything a peer may say between them.
//! - `message`: the messages that may follow a handshake.
//! - `receive`: from what arrives, cut anywhere, to plaintext.
//! - `schedule`: where the next keys come from when a key is updated.
//! - `seal`: from plaintext to records, and the alerts and key updates between them.
//! - `stream`: all of it on a socket.

mod content;
mod key;
mod message;
mod open;
mod receive;
mod schedule;
mod seal;
mod stream;

pub use content::RecordError;
pub(super) use content::starts_a_record;
pub(super) use schedule::{Schedule, Side, TakeSecrets, TrafficSecrets, take_secrets};
pub(super) use seal::Sealer;
pub use stream::RecordStream;
pub(super) use stream::Secrets;

#[cfg(test)]
mod tests;
