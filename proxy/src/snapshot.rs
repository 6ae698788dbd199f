//! What discovery tells the data plane: one versioned set of compiled policies, swapped whole.
//!
//! A connection is judged under one snapshot; a half-applied change cannot be seen. Before the first
//! complete snapshot there is none, and inbound is closed.

use std::sync::Arc;

use ringmail_policy::{Inbound, Outbound};
use tokio::sync::watch;

/// Everything that policy and discovery decide for this pod, compiled.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with every snapshot that was applied.
    pub version: u64,
    /// Modes and authorization of this pod's own ports; the same one while nothing of it has changed.
    pub inbound: Arc<Inbound>,
    /// The mesh as seen from this pod.
    pub outbound: Arc<Outbound>,
}

/// The receiving end of discovery: `None` until the first complete snapshot.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;
