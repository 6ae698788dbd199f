//! Exactly one record per connection, also when its task is dropped.
//!
//! A [`Record`] is opened at accept, learns what the story finds out, and is closed with a
//! [`Reason`]. Closing writes the access log line and folds the counts into the worker's
//! [`Ledger`]; a record that is dropped unclosed closes itself as
//! [`Reason::Aborted`], so nothing can end in silence.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use ringmail_identity::{SpiffeId, Svid, VerifiedPeer};
use ringmail_policy::{OutsideReason, Workload};

use crate::{
    ledger::Ledger,
    reason::Reason,
    sync::atomic::{AtomicU64, Ordering},
};

/// Which way a connection crosses the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the network to this pod's application.
    Inbound,
    /// From this pod's application to the network.
    Outbound,
}

impl Direction {
    /// The word in logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// How the leg on the network side is protected, or why it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Mutual TLS 1.3 with a verified SPIFFE identity.
    MutualTls,
    /// Plaintext: the port's mode is DISABLE.
    ModeDisable,
    /// Plaintext on a PERMISSIVE port: from a client outside the mesh, or from one that a DestinationRule has send it.
    Permissive,
    /// Plaintext: the destination is outside the mesh, for this reason.
    Outside(OutsideReason),
    /// Never decided: the connection ended before.
    Undecided,
}

impl Protection {
    /// The word in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::ModeDisable => "plaintext_mode_disable",
            Self::Permissive => "plaintext_permissive",
            Self::Outside(reason) => reason.as_str(),
            Self::Undecided => "undecided",
        }
    }
}

/// Bytes that crossed, written by the one task of the connection and read by scrapes.
#[derive(Debug, Default)]
pub struct ByteCounts {
    from_downstream: AtomicU64,
    to_downstream: AtomicU64,
}

impl ByteCounts {
    /// Counts bytes read from downstream and written upstream. One writer only: a plain load and store.
    pub fn add_from_downstream(&self, bytes: u64) {
        self.from_downstream.store(self.from_downstream.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }

    /// Counts bytes read from upstream and written downstream. One writer only: a plain load and store.
    pub fn add_to_downstream(&self, bytes: u64) {
        self.to_downstream.store(self.to_downstream.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }

    /// Bytes that went from downstream to upstream (Istio's `received`).
    pub fn from_downstream(&self) -> u64 {
        self.from_downstream.load(Ordering::Relaxed)
    }

    /// Bytes that went from upstream to downstream (Istio's `sent`).
    pub fn to_downstream(&self) -> u64 {
        self.to_downstream.load(Ordering::Relaxed)
    }
}

/// What a live connection shows to `/connections` and to scrapes. Each fact is set once, when known.
#[derive(Debug)]
pub struct Live {
    /// Unique in this process.
    pub id: u64,
    /// Which way it crosses the sidecar.
    pub direction: Direction,
    /// The connecting socket's address.
    pub source: SocketAddr,
    /// When it was accepted.
    pub accepted_at: SystemTime,
    started: Instant,
    /// Where the client wanted to go.
    pub destination: OnceLock<SocketAddr>,
    /// How the network leg is protected.
    pub protection: OnceLock<Protection>,
    /// The verified identity at the other end of the network leg.
    pub peer_identity: OnceLock<SpiffeId>,
    /// The serial number (hex) of the peer's leaf.
    pub peer_serial: OnceLock<String>,
    /// The identity this side presented.
    pub own_identity: OnceLock<SpiffeId>,
    /// The serial number (hex) of the own leaf that was presented.
    pub own_serial: OnceLock<String>,
    /// The workload at the other end, where discovery knows it.
    pub peer_workload: OnceLock<Arc<Workload>>,
    /// The resource that decided mode, route or authorization.
    pub decided_by: OnceLock<Arc<str>>,
    /// How long the handshake took.
    pub handshake: OnceLock<Duration>,
    /// Whether bytes may flow: everything is decided and dialled.
    pub established: OnceLock<()>,
    /// Bytes so far.
    pub bytes: ByteCounts,
}

impl Live {
    /// Time since accept.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The protection, or undecided.
    pub fn protection(&self) -> Protection {
        self.protection.get().copied().unwrap_or(Protection::Undecided)
    }
}

/// The record of one connection; see the module.
#[derive(Debug)]
pub struct Record {
    live: Arc<Live>,
    ledger: Arc<Ledger>,
    closed: bool,
}

impl Record {
    /// Opens the record of a connection that was just accepted.
    pub fn open(ledger: &Arc<Ledger>, direction: Direction, source: SocketAddr) -> Self {
        let live = Arc::new(Live {
            id: ledger.next_id(),
            direction,
            source,
            accepted_at: SystemTime::now(),
            started: Instant::now(),
            destination: OnceLock::new(),
            protection: OnceLock::new(),
            peer_identity: OnceLock::new(),
            peer_serial: OnceLock::new(),
            own_identity: OnceLock::new(),
            own_serial: OnceLock::new(),
            peer_workload: OnceLock::new(),
            decided_by: OnceLock::new(),
            handshake: OnceLock::new(),
            established: OnceLock::new(),
            bytes: ByteCounts::default(),
        });
        ledger.opened(&live);
        Self { live, ledger: Arc::clone(ledger), closed: false }
    }

    /// What is known so far.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The original destination.
    pub fn destination(&self, destination: SocketAddr) {
        let _ = self.live.destination.set(destination);
    }

    /// How the network leg is protected. The first word stands.
    pub fn protection(&self, protection: Protection) {
        let _ = self.live.protection.set(protection);
    }

    /// The certificate that this side presents.
    pub fn presents(&self, svid: &Svid) {
        let _ = self.live.own_identity.set(svid.id().clone());
        let _ = self.live.own_serial.set(svid.serial().to_owned());
    }

    /// The handshake is complete: who is at the other end, and how long it took.
    pub fn secured(&self, peer: &VerifiedPeer, took: Duration) {
        self.protection(Protection::MutualTls);
        let _ = self.live.peer_identity.set(peer.id.clone());
        let _ = self.live.peer_serial.set(peer.serial.clone());
        let _ = self.live.handshake.set(took);
    }

    /// Who decided.
    pub fn decided_by(&self, origin: &dyn fmt::Display) {
        let _ = self.live.decided_by.set(origin.to_string().into());
    }

    /// The workload at the other end.
    pub fn peer_workload(&self, workload: &Arc<Workload>) {
        let _ = self.live.peer_workload.set(Arc::clone(workload));
    }

    /// Everything is decided and dialled: bytes flow from here on, and the connection counts as opened.
    pub fn established(&self) {
        self.ledger.established(&self.live);
    }

    /// Ends the record. `error` is the cause in words, where there is more to say than the reason.
    pub fn close(mut self, reason: Reason, error: Option<String>) {
        self.finish(reason, error);
    }

    fn finish(&mut self, reason: Reason, error: Option<String>) {
        self.closed = true;
        self.ledger.closed(&self.live, reason, error.as_deref());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.closed {
            self.finish(Reason::Aborted, None);
        }
    }
}
