//! Where an outbound connection goes: to a mesh peer with its expected identity, outside, or nowhere.
//!
//! An address inside the cluster's own ranges that discovery does not know yet is waited for, never
//! sent in plaintext.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ringmail_identity::SpiffeId;
use ringmail_policy::{Origin, OutsideReason, RefusedReason, Route, Workload};
use tokio::time::{Instant, timeout_at};

use crate::{
    config::{Config, OutboundOutside},
    reason::Reason,
    snapshot::{Snapshot, Snapshots},
};

/// How long a fresher word from discovery is waited for when a peer's identity is not the expected
/// one: an address that was reused a moment ago is told within a second.
const REASK_WAIT: Duration = Duration::from_secs(1);

/// What to do with the connection.
#[derive(Clone, Debug)]
pub enum Next {
    /// Mutual TLS, with one of these identities at the other end.
    Mesh {
        /// Identities that the peer may have.
        identities: Arc<[SpiffeId]>,
        /// What discovery knows of it.
        workload: Arc<Workload>,
    },
    /// As it is, for this reason.
    Outside {
        /// Why it is not protected.
        reason: OutsideReason,
        /// What discovery knows of it.
        workload: Option<Arc<Workload>>,
    },
}

/// Why a connection goes nowhere.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The peer is not who discovery said.
    #[error("peer of {destination}: expected {}, got {got}", list(.expected))]
    Identity {
        /// Where it was dialled.
        destination: SocketAddr,
        /// Who was expected.
        expected: Arc<[SpiffeId]>,
        /// Who was there.
        got: SpiffeId,
    },
    /// There is no first set of policies yet.
    #[error("no policies yet, waited {0:?}")]
    NoPolicy(Duration),
    /// The settings refuse what is outside the mesh.
    #[error("{destination} is outside the mesh ({}), and outbound_outside is refuse", .reason.as_str())]
    OutsideRefused {
        /// Where it wanted to go.
        destination: SocketAddr,
        /// Why it is outside.
        reason: OutsideReason,
    },
    /// A resource asks for what is not supported.
    #[error("{destination}: {decided_by} asks for {}, which is not supported", .reason.as_str())]
    Unsupported {
        /// Where it wanted to go.
        destination: SocketAddr,
        /// What is asked for.
        reason: RefusedReason,
        /// What asks for it.
        decided_by: Origin,
    },
    /// Discovery does not know the address.
    #[error("{destination} is inside mesh_ranges and discovery does not know it, waited {waited:?}")]
    Unknown {
        /// Where it wanted to go.
        destination: SocketAddr,
        /// How long discovery was waited for.
        waited: Duration,
    },
}

fn list(identities: &[SpiffeId]) -> String {
    identities.iter().map(SpiffeId::as_str).collect::<Vec<_>>().join(" or ")
}

impl RouteError {
    /// The reason for the record.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Identity { .. } => Reason::IdentityMismatch,
            Self::NoPolicy(_) => Reason::NoPolicy,
            Self::OutsideRefused { .. } => Reason::OutsideRefused,
            Self::Unknown { .. } => Reason::UnknownDestination,
            Self::Unsupported { .. } => Reason::DestinationRuleUnsupported,
        }
    }
}

/// Decides, waiting for discovery up to the settings' `unknown_wait`.
///
/// # Errors
/// [`RouteError`], which names the destination.
pub async fn resolve(
    snapshots: &Snapshots,
    config: &Config,
    destination: SocketAddr,
) -> Result<(Next, Origin), RouteError> {
    let waited = config.unknown_wait;
    let deadline = Instant::now() + waited;
    let mut snapshots = snapshots.clone();
    loop {
        let known = snapshots.borrow_and_update().clone();
        match known.as_deref().map(|snapshot| snapshot.outbound.route(destination)) {
            Some(Route::Mesh { identities, workload, decided_by }) => {
                return Ok((Next::Mesh { identities, workload }, decided_by));
            }
            Some(Route::Outside { reason, workload, decided_by }) => {
                return outside(config, destination, reason, workload).map(|next| (next, decided_by));
            }
            Some(Route::Refused { reason, decided_by, .. }) => {
                return Err(RouteError::Unsupported { destination, reason, decided_by });
            }
            Some(Route::Unknown) | None => {}
        }
        if !matches!(timeout_at(deadline, snapshots.changed()).await, Ok(Ok(()))) {
            return Err(match known {
                Some(_) => RouteError::Unknown { destination, waited },
                None => RouteError::NoPolicy(waited),
            });
        }
    }
}

fn outside(
    config: &Config,
    destination: SocketAddr,
    reason: OutsideReason,
    workload: Option<Arc<Workload>>,
) -> Result<Next, RouteError> {
    match config.outbound_outside {
        OutboundOutside::Passthrough => Ok(Next::Outside { reason, workload }),
        OutboundOutside::Refuse => Err(RouteError::OutsideRefused { destination, reason }),
    }
}

/// Checks who answered against who was expected; discovery is asked once more before a refusal.
///
/// # Errors
/// [`RouteError::Identity`], which names both.
pub async fn confirm(
    snapshots: &Snapshots,
    destination: SocketAddr,
    expected: Arc<[SpiffeId]>,
    got: &SpiffeId,
) -> Result<(), RouteError> {
    if expected.contains(got) {
        return Ok(());
    }
    let mut snapshots = snapshots.clone();
    snapshots.mark_unchanged();
    let mut latest = expected;
    let deadline = Instant::now() + REASK_WAIT;
    loop {
        if let Some(fresh) =
            snapshots.borrow_and_update().as_deref().and_then(|now| identities(now, destination))
        {
            if fresh.contains(got) {
                return Ok(());
            }
            latest = fresh;
        }
        if !matches!(timeout_at(deadline, snapshots.changed()).await, Ok(Ok(()))) {
            return Err(RouteError::Identity { destination, expected: latest, got: got.clone() });
        }
    }
}

fn identities(snapshot: &Snapshot, destination: SocketAddr) -> Option<Arc<[SpiffeId]>> {
    match snapshot.outbound.route(destination) {
        Route::Mesh { identities, .. } => Some(identities),
        Route::Outside { .. } | Route::Refused { .. } | Route::Unknown => None,
    }
}
