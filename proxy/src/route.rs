//! Where an outbound connection goes: to a mesh peer with its expected identity, outside, or nowhere.
//!
//! An address inside the cluster's own ranges that discovery does not know yet is waited for, never
//! sent in plaintext. A Service's address is never dialled where an endpoint is in the mesh: behind it nobody could be
//! verified.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ringmail_identity::SpiffeId;
use ringmail_policy::{Origin, Outbound, OutsideReason, RefusedReason, Route, Workload};
use tokio::time::{Instant, timeout_at};

use crate::{
    config::{Config, OutboundOutside},
    discovery::Asker,
    outside::random,
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
        /// Where to dial: what the application dialled, or an endpoint of that Service.
        address: SocketAddr,
        /// Identities that the peer may have.
        identities: Arc<[SpiffeId]>,
        /// What discovery knows of it.
        workload: Arc<Workload>,
    },
    /// As it is, for this reason.
    Outside {
        /// Where to dial.
        address: SocketAddr,
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
    /// Discovery has not said who answers at the address.
    #[error("discovery has not said who answers at {destination}, waited {waited:?}{}", because(.trouble))]
    Unanswered {
        /// Where it wanted to go.
        destination: SocketAddr,
        /// How long discovery was waited for.
        waited: Duration,
        /// Why it does not answer.
        trouble: Option<String>,
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

fn because(trouble: &Option<String>) -> String {
    trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default()
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
            Self::Unanswered { .. } | Self::Unknown { .. } => Reason::UnknownDestination,
            Self::Unsupported { .. } => Reason::DestinationRuleUnsupported,
        }
    }
}

/// Decides, asking discovery and waiting for it up to the settings' `unknown_wait`.
///
/// # Errors
/// [`RouteError`], which names the destination.
pub async fn resolve(
    snapshots: &Snapshots,
    asker: &Asker,
    config: &Config,
    destination: SocketAddr,
) -> Result<(Next, Origin), RouteError> {
    let waited = config.unknown_wait;
    let deadline = Instant::now() + waited;
    let mut snapshots = snapshots.clone();
    loop {
        let known = snapshots.borrow_and_update().clone();
        let (address, route) = match &known {
            Some(known) => through_service(&known.outbound, config, destination, Outbound::route),
            None => (destination, Route::Unknown),
        };
        if let Some(decided) = decide(config, address, route) {
            return decided;
        }
        let is_open = known.as_ref().is_some_and(|known| known.outbound.is_open(address.ip()));
        if is_open {
            asker.ask(address.ip());
        }
        if matches!(timeout_at(deadline, snapshots.changed()).await, Ok(Ok(()))) {
            continue;
        }
        return match known {
            None => Err(RouteError::NoPolicy(waited)),
            Some(_) if !is_open => Err(RouteError::Unknown { destination, waited }),
            Some(known) => {
                let (address, route) =
                    through_service(&known.outbound, config, destination, Outbound::route_unanswered);
                let trouble = asker.trouble();
                decide(config, address, route).unwrap_or(Err(RouteError::Unanswered {
                    destination,
                    waited,
                    trouble,
                }))
            }
        };
    }
}

/// Where to dial, and how: a Service stands for one of its endpoints.
fn through_service(
    outbound: &Outbound,
    config: &Config,
    destination: SocketAddr,
    route: fn(&Outbound, SocketAddr) -> Route,
) -> (SocketAddr, Route) {
    match route(outbound, destination) {
        Route::Service { endpoints, .. } => {
            let endpoint = one_of(&endpoints).unwrap_or(destination);
            let decided = route(outbound, endpoint);
            let is_itself = config.pod_addresses.iter().any(|own| own.to_canonical() == endpoint.ip());
            (endpoint, if is_itself { to_itself(decided) } else { decided })
        }
        decided @ (Route::Mesh { .. } | Route::Outside { .. } | Route::Refused { .. } | Route::Unknown) => {
            (destination, decided)
        }
    }
}

/// What a pod sends to itself goes over its loopback, where no sidecar takes it in: there is nobody to speak TLS with.
fn to_itself(decided: Route) -> Route {
    match decided {
        Route::Mesh { workload, decided_by, .. } => {
            Route::Outside { reason: OutsideReason::Itself, workload: Some(workload), decided_by }
        }
        Route::Outside { .. } | Route::Refused { .. } | Route::Service { .. } | Route::Unknown => decided,
    }
}

fn one_of(endpoints: &[SocketAddr]) -> Option<SocketAddr> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small number")]
    let place = (endpoints.len() as f64 * random()) as usize;
    endpoints.get(place).or(endpoints.first()).copied()
}

/// Nothing while it is not known who answers.
fn decide(config: &Config, address: SocketAddr, route: Route) -> Option<Result<(Next, Origin), RouteError>> {
    match route {
        Route::Mesh { identities, workload, decided_by } => {
            Some(Ok((Next::Mesh { address, identities, workload }, decided_by)))
        }
        Route::Outside { reason, workload, decided_by } => {
            Some(outside(config, address, reason, workload).map(|next| (next, decided_by)))
        }
        Route::Refused { reason, decided_by, .. } => {
            Some(Err(RouteError::Unsupported { destination: address, reason, decided_by }))
        }
        // An endpoint is never a Service's own address.
        Route::Service { .. } | Route::Unknown => None,
    }
}

fn outside(
    config: &Config,
    address: SocketAddr,
    reason: OutsideReason,
    workload: Option<Arc<Workload>>,
) -> Result<Next, RouteError> {
    match config.outbound_outside {
        OutboundOutside::Refuse if reason == OutsideReason::Itself => {
            Ok(Next::Outside { address, reason, workload })
        }
        OutboundOutside::Passthrough => Ok(Next::Outside { address, reason, workload }),
        OutboundOutside::Refuse => Err(RouteError::OutsideRefused { destination: address, reason }),
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
        Route::Outside { .. } | Route::Refused { .. } | Route::Service { .. } | Route::Unknown => None,
    }
}
