//! Everything that policy says about connections from a pod: who answers at an address, and what is spoken
//! to it.
//!
//! An address inside the cluster about which nothing is known is `Unknown`, never plaintext. What is known is
//! either everything at once, from files, or what was asked for so far.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use ringmail_identity::SpiffeId;

use crate::destination::{Client, Destination};
use crate::origin::Origin;
use crate::parse::Resources;
use crate::report::Report;
use crate::service::Service;
use crate::settings::{Pod, Settings};
use crate::workload::{self, Workload};

/// The compiled decisions for connections from one pod. A change of any resource makes a new one; a clone shares
/// what did not change.
#[derive(Clone, Debug)]
pub struct Outbound {
    known: HashMap<IpAddr, Answer>,
    /// Whether an address without an answer was never asked for.
    on_demand: bool,
    mesh_ranges: Vec<IpNet>,
    reports: Vec<Report>,
}

/// What is known about one address.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Nobody that the mesh knows of.
    Nobody,
    /// A Service's own address.
    Service(Arc<Service>),
    /// A workload whose identity has no valid form: nobody can be verified there.
    Unverifiable,
    /// A workload.
    Workload(Arc<Destination>),
}

/// What is done with a connection to an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Route {
    /// Mutual TLS, and the peer must present one of the identities.
    Mesh {
        /// The workload's identity under the trust domain and each of its aliases.
        identities: Arc<[SpiffeId]>,
        /// Who answers there.
        workload: Arc<Workload>,
        /// What says so.
        decided_by: Origin,
    },
    /// The application's bytes as they are.
    Outside {
        /// Why not mutual TLS.
        reason: OutsideReason,
        /// Who answers there, where that is known.
        workload: Option<Arc<Workload>>,
        /// What says so.
        decided_by: Origin,
    },
    /// A resource asks for what is not supported: nothing is sent at all.
    Refused {
        /// What is not supported.
        reason: RefusedReason,
        /// Who answers there.
        workload: Arc<Workload>,
        /// What asks for it.
        decided_by: Origin,
    },
    /// A Service with endpoints in the mesh: one of them is dialled, and never the Service's own address, behind
    /// which nobody can be verified.
    Service {
        /// The Service.
        service: Arc<Service>,
        /// Its endpoints for the port, at least one.
        endpoints: Arc<[SocketAddr]>,
    },
    /// An address about which nothing is known yet.
    Unknown,
}

/// Why a connection leaves the mesh.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OutsideReason {
    /// A DestinationRule says DISABLE.
    DestinationRuleDisable,
    /// The pod dials itself.
    Itself,
    /// The address is a Service's, and none of its endpoints is in the mesh.
    NoMeshEndpoint,
    /// The workload has no sidecar.
    NoSidecar,
    /// The workload's sidecar leaves the port alone.
    NotCaptured,
    /// The address is outside the cluster's ranges and no workload is known there.
    NotInMesh,
    /// The destination's PeerAuthentication says DISABLE for the port.
    PortModeDisable,
}

impl OutsideReason {
    /// Every reason with what it tells an operator, in alphabetical order.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::DestinationRuleDisable, "a DestinationRule turns TLS off for the destination"),
        (Self::Itself, "the endpoint of the Service is the pod itself: no byte leaves it"),
        (Self::NoMeshEndpoint, "the address is a Service's, and none of its endpoints is in the mesh"),
        (
            Self::NoSidecar,
            "the destination has no sidecar: its pod or WorkloadEntry lacks the label security.istio.io/tlsMode: istio",
        ),
        (
            Self::NotCaptured,
            "the destination's sidecar leaves the port alone: it is the sidecar's own, or its pod excludes it",
        ),
        (Self::NotInMesh, "the address is outside the cluster's ranges, and no workload is known there"),
        (Self::PortModeDisable, "the destination's PeerAuthentication serves the port in plaintext"),
    ];

    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DestinationRuleDisable => "destination_rule_disable",
            Self::Itself => "itself",
            Self::NoMeshEndpoint => "no_mesh_endpoint",
            Self::NoSidecar => "no_sidecar",
            Self::NotCaptured => "not_captured",
            Self::NotInMesh => "not_in_mesh",
            Self::PortModeDisable => "port_mode_disable",
        }
    }
}

/// Why a connection is refused before anything is dialled.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RefusedReason {
    /// A DestinationRule asks for TLS with an application's own certificates (SIMPLE or MUTUAL).
    TlsOrigination,
}

impl RefusedReason {
    /// Every reason with what it tells an operator.
    pub const ALL: [(Self, &'static str); 1] =
        [(Self::TlsOrigination, "a DestinationRule asks for SIMPLE or MUTUAL TLS, which is not supported")];

    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsOrigination => "tls_origination",
        }
    }
}

impl Outbound {
    /// Compiles what holds for a client about which nothing is known; see [`Client::new`].
    pub fn compile(resources: &Resources, settings: &Settings) -> Self {
        Self::of(resources, settings, None)
    }

    /// Compiles what holds for `client`; see [`Client::new`].
    pub fn compile_for(resources: &Resources, settings: &Settings, client: &Pod) -> Self {
        Self::of(resources, settings, Some(client))
    }

    /// Nothing known yet: addresses are asked for, and [`insert`](Self::insert)ed as answers come.
    pub fn on_demand(mesh_ranges: Vec<IpNet>) -> Self {
        Self { known: HashMap::new(), on_demand: true, mesh_ranges, reports: Vec::new() }
    }

    fn of(resources: &Resources, settings: &Settings, pod: Option<&Pod>) -> Self {
        let (entries, mut reports) = workload::by_address(&resources.workload_entries);
        let mut client = Client::new(resources, settings, pod);
        let mut known = HashMap::new();
        for (address, entry) in entries {
            let workload = entry.workload(&settings.trust_domain).map(Arc::new);
            let destination =
                workload.and_then(|workload| client.destination(workload, entry.meta.origin("")));
            if destination.is_none() {
                reports.push(entry.meta.report("unreachable: its identity has no valid form"));
            }
            let answer = destination.map_or(Answer::Unverifiable, |known| Answer::Workload(Arc::new(known)));
            known.insert(address, answer);
        }
        reports.extend(client.reports());
        Self { known, on_demand: false, mesh_ranges: settings.mesh_ranges.clone(), reports }
    }

    /// Takes what is now known about `address`.
    pub fn insert(&mut self, address: IpAddr, answer: Answer) {
        self.known.insert(address.to_canonical(), answer);
    }

    /// Forgets what is known about `address`: it would have to be asked for again.
    pub fn forget(&mut self, address: IpAddr) {
        self.known.remove(&address.to_canonical());
    }

    /// Takes other ranges of the cluster.
    pub fn set_mesh_ranges(&mut self, mesh_ranges: Vec<IpNet>) {
        self.mesh_ranges = mesh_ranges;
    }

    /// What is done with a connection to `destination`, the address and port the application dialled.
    pub fn route(&self, destination: SocketAddr) -> Route {
        let address = destination.ip().to_canonical();
        match self.known.get(&address) {
            Some(Answer::Workload(known)) => known.route(destination.port()),
            Some(Answer::Service(service)) => Self::serve(service, destination.port()),
            Some(Answer::Unverifiable) => Route::Unknown,
            None if self.on_demand => Route::Unknown,
            Some(Answer::Nobody) | None if self.in_ranges(address) => Route::Unknown,
            Some(Answer::Nobody) | None => Route::Outside {
                reason: OutsideReason::NotInMesh,
                workload: None,
                decided_by: Origin::default("no workload is known at the address"),
            },
        }
    }

    /// What is done with a connection to `destination` once its answer was waited for in vain.
    pub fn route_unanswered(&self, destination: SocketAddr) -> Route {
        let address = destination.ip().to_canonical();
        match self.known.contains_key(&address) || self.in_ranges(address) {
            true => self.route(destination),
            false => Route::Outside {
                reason: OutsideReason::NotInMesh,
                workload: None,
                decided_by: Origin::default("outside the cluster's ranges, and discovery has not answered"),
            },
        }
    }

    fn serve(service: &Arc<Service>, port: u16) -> Route {
        match service.endpoints(port) {
            Some(endpoints) => Route::Service { service: Arc::clone(service), endpoints },
            None => Route::Outside {
                reason: OutsideReason::NoMeshEndpoint,
                workload: None,
                decided_by: Origin::default("no endpoint of the Service is in the mesh"),
            },
        }
    }

    fn in_ranges(&self, address: IpAddr) -> bool {
        self.mesh_ranges.iter().any(|range| range.contains(&address))
    }

    /// Whether `address` has no answer yet and is to be asked for.
    pub fn is_open(&self, address: IpAddr) -> bool {
        self.on_demand && !self.known.contains_key(&address.to_canonical())
    }

    /// The workload at `address`, where one is known.
    pub fn workload(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        match self.known.get(&address.to_canonical())? {
            Answer::Workload(destination) => Some(&destination.workload),
            Answer::Nobody | Answer::Service(_) | Answer::Unverifiable => None,
        }
    }

    /// Whether the workload at `address` has a sidecar, so that plaintext from there is nobody's intention.
    pub fn in_mesh(&self, address: IpAddr) -> bool {
        self.workload(address).is_some_and(|workload| workload.in_mesh)
    }

    /// Every known workload as the client sees it, in no order; one with several addresses as often.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.known.values().filter_map(|answer| match answer {
            Answer::Workload(destination) => Some(destination),
            Answer::Nobody | Answer::Service(_) | Answer::Unverifiable => None,
        })
    }

    /// Every known workload, in no order; one with several addresses as often.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.destinations().map(|destination| &destination.workload)
    }

    /// Which entries and rules are shadowed or have no effect.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }
}
