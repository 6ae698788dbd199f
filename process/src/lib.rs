//! What each program does of itself, whatever its work is: its log is never a flood, and its memory is nobody else's.
//!
//! - [`pace`]: which lines are written, and how what is left out is told.
//! - [`log`]: the same for what is logged by `tracing`.
//! - [`causes`]: why it ends, each cause once.
//! - [`memory`]: no other process reads what this one holds, and no core dump keeps it.

#![forbid(unsafe_code)]

pub mod causes;
pub mod log;
pub mod memory;
pub mod pace;
