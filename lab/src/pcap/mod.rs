//! What really passed between the pods: captured on the bridge, put back together, judged byte by byte.
//!
//! The claim of a mesh is about the wire, so it is checked on the wire and by a reader of its own: nothing here shares code
//! with the proxy. A byte that was not seen proves nothing, so a stream with a hole in it is never called clean.

mod capture;
mod hello;
mod ignite_bytes;
mod packet;
mod streams;
mod tls_records;

pub use capture::{Capture, Captured, Frame};
pub use hello::ServerChoice;
pub use ignite_bytes::{Finding, IgniteMark, find_ignite_bytes};
pub use streams::{Conversation, Direction, Stream, reassemble};
pub use tls_records::{Fault, Judgement, Offender, RecordCounts, judge};
