//! What there is to know of a running proxy.

use std::sync::Arc;

use crate::{
    access_log::AccessLog,
    config::Config,
    credentials, discovery,
    fence::Fence,
    ledger::{Ledger, Page},
    limits, metrics,
    snapshot::Snapshots,
    tls::CredentialsRx,
};

/// Everything that admin and metrics read. They change none of it.
#[derive(Debug)]
pub struct State {
    /// The settings as they were at the start.
    pub config: Arc<Config>,
    /// One per worker.
    pub ledgers: Vec<Arc<Ledger>>,
    /// Policy and discovery in force.
    pub snapshots: Snapshots,
    /// The certificate in force.
    pub credentials: CredentialsRx,
    /// Whether the application may be reached.
    pub fence: Arc<Fence>,
    /// How getting credentials goes.
    pub identity_status: Arc<credentials::Status>,
    /// How reading policies goes.
    pub discovery_status: Arc<discovery::Status>,
    /// How often the limits were met.
    pub limits: Arc<limits::Counters>,
    /// For the number of lines that it dropped.
    pub access_log: AccessLog,
    /// How often the parent has started the data plane again; 0 where there is no parent.
    pub restarts: u64,
}

impl State {
    /// Every worker's connections and totals as one page.
    pub fn read_ledgers(&self) -> Page {
        metrics::merge(self.ledgers.iter().map(|ledger| ledger.read()))
    }
}
