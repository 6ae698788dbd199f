//! What Prometheus reads.
mod table;
pub use table::{Kind, Metric, TABLE};
