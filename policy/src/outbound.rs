//! Everything that policy says about connections from a pod: who answers at an address, and what is spoken
//! to it.
//!
//! A DestinationRule that names the mode overrides the automatic choice. The automatic choice is mutual TLS
//! for a workload with a sidecar unless its own PeerAuthentication serves the port in plaintext. An address
//! inside the cluster about which nothing is known is `Unknown`, never plaintext.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use ringmail_identity::SpiffeId;

use crate::destination_rule::{self, ClientTls, DestinationRule};
use crate::mode::{Mode, PortModes};
use crate::origin::Origin;
use crate::parse::Resources;
use crate::report::Report;
use crate::settings::{Pod, Settings};
use crate::workload::{self, Workload, WorkloadEntry};

/// The compiled decisions for connections from one pod. A change of any resource makes a new one.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Nothing for an entry whose identity has no valid form: nobody can be verified there.
    destinations: HashMap<IpAddr, Option<Destination>>,
    mesh_ranges: Vec<IpNet>,
    reports: Vec<Report>,
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
    /// An address of the cluster about which nothing is known yet.
    Unknown,
}

/// Why a connection leaves the mesh.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OutsideReason {
    /// A DestinationRule says DISABLE.
    DestinationRuleDisable,
    /// The workload has no sidecar.
    NoSidecar,
    /// The address is outside the cluster's ranges and no workload is known there.
    NotInMesh,
    /// The destination's PeerAuthentication says DISABLE for the port.
    PortModeDisable,
}

impl OutsideReason {
    /// Every reason with what it tells an operator, in alphabetical order.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::DestinationRuleDisable, "a DestinationRule turns TLS off for the destination"),
        (Self::NoSidecar, "the destination's WorkloadEntry lacks the label security.istio.io/tlsMode: istio"),
        (Self::NotInMesh, "the address is outside the cluster's ranges and has no WorkloadEntry"),
        (Self::PortModeDisable, "the destination's PeerAuthentication serves the port in plaintext"),
    ];

    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DestinationRuleDisable => "destination_rule_disable",
            Self::NoSidecar => "no_sidecar",
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

/// What is known about one address.
#[derive(Clone, Debug)]
struct Destination {
    workload: Arc<Workload>,
    identities: Arc<[SpiffeId]>,
    modes: PortModes,
    rule: Option<Arc<DestinationRule>>,
    entry: Origin,
}

impl Outbound {
    /// Compiles what holds for a client about which nothing is known: DestinationRules of the services' own
    /// namespaces and of the root namespace.
    pub fn compile(resources: &Resources, settings: &Settings) -> Self {
        Compiler::new(resources, settings, None).compile()
    }

    /// Compiles what holds for `client`: also DestinationRules of its namespace (they come first), those
    /// exported to it and those that select it.
    pub fn compile_for(resources: &Resources, settings: &Settings, client: &Pod) -> Self {
        Compiler::new(resources, settings, Some(client)).compile()
    }

    /// What is done with a connection to `destination`, the address and port the application dialled.
    pub fn route(&self, destination: SocketAddr) -> Route {
        let address = destination.ip().to_canonical();
        match self.destinations.get(&address) {
            Some(Some(known)) => known.route(destination.port()),
            Some(None) => Route::Unknown,
            None if self.mesh_ranges.iter().any(|range| range.contains(&address)) => Route::Unknown,
            None => Route::Outside {
                reason: OutsideReason::NotInMesh,
                workload: None,
                decided_by: Origin::Default("no WorkloadEntry has the address"),
            },
        }
    }

    /// The workload at `address`, where one is known.
    pub fn workload(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        let destination = self.destinations.get(&address.to_canonical())?.as_ref()?;
        Some(&destination.workload)
    }

    /// Every known workload, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.destinations.values().flatten().map(|destination| &destination.workload)
    }

    /// Which entries and rules are shadowed or have no effect.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }
}

impl Destination {
    fn route(&self, port: u16) -> Route {
        let told = self.rule.as_ref().and_then(|rule| {
            let (tls, detail) = rule.tls(port)?;
            Some((tls, rule.meta.origin(&detail)))
        });
        match told {
            Some((ClientTls::Disable, origin)) => self.outside(OutsideReason::DestinationRuleDisable, origin),
            Some((ClientTls::IstioMutual, origin)) => self.mesh(origin),
            // Neither half is safe: to stay automatic would send plaintext to a workload without a sidecar
            // where TLS was asked for, and to any other it would verify what was not asked for.
            Some((ClientTls::Mutual | ClientTls::Simple, origin)) => Route::Refused {
                reason: RefusedReason::TlsOrigination,
                workload: Arc::clone(&self.workload),
                decided_by: origin,
            },
            None => self.automatic(port),
        }
    }

    fn automatic(&self, port: u16) -> Route {
        let mode = self.modes.at(port);
        if !self.workload.in_mesh {
            self.outside(OutsideReason::NoSidecar, self.entry.clone())
        } else if mode.mode == Mode::Disable {
            self.outside(OutsideReason::PortModeDisable, mode.decided_by.clone())
        } else {
            self.mesh(self.entry.clone())
        }
    }

    fn mesh(&self, decided_by: Origin) -> Route {
        Route::Mesh {
            identities: Arc::clone(&self.identities),
            workload: Arc::clone(&self.workload),
            decided_by,
        }
    }

    fn outside(&self, reason: OutsideReason, decided_by: Origin) -> Route {
        Route::Outside { reason, workload: Some(Arc::clone(&self.workload)), decided_by }
    }
}

/// Choosing each host's rule once, however many workloads the host has.
struct Compiler<'a> {
    resources: &'a Resources,
    settings: &'a Settings,
    client: Option<&'a Pod>,
    chosen: HashMap<String, Option<Arc<DestinationRule>>>,
    /// Rules that name a host, and of these the ones that decide for one, by their place in the set.
    naming: HashSet<usize>,
    deciding: HashSet<usize>,
}

impl<'a> Compiler<'a> {
    fn new(resources: &'a Resources, settings: &'a Settings, client: Option<&'a Pod>) -> Self {
        let (naming, deciding) = (HashSet::new(), HashSet::new());
        Self { resources, settings, client, chosen: HashMap::new(), naming, deciding }
    }

    fn compile(mut self) -> Outbound {
        let (entries, mut reports) = workload::by_address(&self.resources.workload_entries);
        let mut destinations = HashMap::new();
        for (address, entry) in entries {
            let destination = self.destination(entry);
            if destination.is_none() {
                reports.push(entry.meta.report("unreachable: its identity has no valid form"));
            }
            destinations.insert(address, destination);
        }
        for (index, rule) in self.resources.destination_rules.iter().enumerate() {
            if self.naming.contains(&index) && !self.deciding.contains(&index) {
                reports.push(rule.meta.report(
                    "shadowed: for every known workload that its host names, another rule decides: one of a \
                     nearer namespace, a more specific host, an older one, or it is not meant for this client",
                ));
            }
        }
        Outbound { destinations, mesh_ranges: self.settings.mesh_ranges.clone(), reports }
    }

    fn destination(&mut self, entry: &WorkloadEntry) -> Option<Destination> {
        let workload = Arc::new(entry.workload(&self.settings.trust_domain)?);
        let identities = self.settings.trust_domains().map(|domain| entry.identity(domain));
        Some(Destination {
            identities: identities.collect::<Option<Vec<_>>>()?.into(),
            modes: PortModes::compile(
                &self.resources.peer_authentications,
                &self.settings.root_namespace,
                &workload.namespace,
                &workload.labels,
            ),
            rule: self.rule(&workload),
            entry: entry.meta.origin(""),
            workload,
        })
    }

    fn rule(&mut self, workload: &Workload) -> Option<Arc<DestinationRule>> {
        let host = &workload.service_host;
        if let Some(chosen) = self.chosen.get(host) {
            return chosen.clone();
        }
        let rules = &self.resources.destination_rules;
        let root = &self.settings.root_namespace;
        let chosen = destination_rule::choose(rules, root, self.client, (host, &workload.namespace));
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.names(host)) {
            self.naming.insert(index);
            if chosen.is_some_and(|chosen| std::ptr::eq(chosen, rule)) {
                self.deciding.insert(index);
            }
        }
        let chosen = chosen.cloned().map(Arc::new);
        self.chosen.insert(host.clone(), chosen.clone());
        chosen
    }
}
