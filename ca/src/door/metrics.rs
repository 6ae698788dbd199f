//! What a door tells Prometheus, and the log.

use std::net::SocketAddr;

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::ConnectionEnd;

/// The series of one door.
#[derive(Clone, Debug)]
pub struct DoorMetrics {
    held: IntGauge,
    ends: IntCounterVec,
}

impl DoorMetrics {
    /// Registers both series under names that begin with `program`, every end at zero.
    ///
    /// # Errors
    /// Where a series of the same name is there already.
    pub fn register(registry: &Registry, program: &str) -> Result<Self, prometheus::Error> {
        let held = IntGauge::new(format!("{program}_connections"), "Connections held.")?;
        let opts = Opts::new(format!("{program}_connections_closed_total"), "Connections closed, by reason.");
        let ends = IntCounterVec::new(opts, &["reason"])?;
        for end in ConnectionEnd::ALL {
            ends.with_label_values(&[end.as_str()]).inc_by(0);
        }
        registry.register(Box::new(held.clone()))?;
        registry.register(Box::new(ends.clone()))?;
        Ok(Self { held, ends })
    }

    /// Counts a connection as held for as long as the answer lives.
    pub(super) fn connection(&self) -> Held {
        self.held.inc();
        Held(self.held.clone())
    }

    /// Counts the end of a connection, and says it: a client that keeps to the rules is nobody's business.
    pub(super) fn ended(&self, peer: SocketAddr, end: ConnectionEnd, error: &str) {
        self.ends.with_label_values(&[end.as_str()]).inc();
        match end {
            ConnectionEnd::Closed | ConnectionEnd::Idle => {
                tracing::debug!(%peer, reason = end.as_str(), error, "connection ended");
            }
            ConnectionEnd::LimitTotal
            | ConnectionEnd::LimitSource
            | ConnectionEnd::HandshakeTimeout
            | ConnectionEnd::NotTls
            | ConnectionEnd::TlsIncompatible
            | ConnectionEnd::HandshakeFailed
            | ConnectionEnd::Http => {
                tracing::info!(%peer, reason = end.as_str(), error, "connection refused");
            }
        }
    }
}

/// One connection that is counted as held.
pub(super) struct Held(IntGauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
