//! Real Apache Ignite: fetched from Maven Central, one JVM per node, asked for its own view.
//!
//! A node starts with Ignite's defaults; its address list, its name and the size of its data region are all that is set. What it
//! says about the ring is its own view, never another node's and never one line of a log: in a split ring every half agrees
//! with itself.

mod event;
mod fetch;
mod jvm;
mod keystores;
mod load;
mod measure;
mod node;
mod ring;

pub use event::{Event, EventKind, now_ms};
pub use fetch::{IgniteVersion, Installation};
pub use keystores::KeyStores;
pub use load::{Atomicity, BigValue, LoadShape, Progress, ThinLoad, Verified};
pub use measure::{Keys, Measured, Measurement, Operation, Recovery};
pub use node::{IgniteNode, Moved, NodeSettings, View};
pub use ring::{Formation, Ring};

/// Discovery: the ring itself.
pub const DISCOVERY_PORT: u16 = 47500;
/// Communication: one connection per pair of nodes, on which the server speaks first.
pub const COMMUNICATION_PORT: u16 = 47100;
/// Thin clients, JDBC and ODBC.
pub const THIN_PORT: u16 = 10800;
/// The binary REST protocol and memcached.
pub const BINARY_REST_PORT: u16 = 11211;
/// REST over HTTP.
pub const HTTP_REST_PORT: u16 = 8080;

/// The five ports of a node.
pub const PORTS: [u16; 5] = [DISCOVERY_PORT, COMMUNICATION_PORT, THIN_PORT, BINARY_REST_PORT, HTTP_REST_PORT];
