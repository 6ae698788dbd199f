//! One workload as one client sees it: who answers there, how it serves its ports, and what the client is told
//! to speak.
//!
//! A DestinationRule that names the mode overrides the automatic choice. The automatic choice is mutual TLS
//! for a workload with a sidecar unless the sidecar does not capture the port, or the workload's PeerAuthentication
//! serves it in plaintext.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ringmail_identity::SpiffeId;

use crate::destination_rule::{self, ClientTls, DestinationRule};
use crate::mode::{Mode, PortModes};
use crate::origin::Origin;
use crate::outbound::{OutsideReason, RefusedReason, Route};
use crate::parse::Resources;
use crate::report::Report;
use crate::settings::{Pod, Settings};
use crate::workload::Workload;

/// What is known about one workload, as one client sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    pub(crate) workload: Arc<Workload>,
    pub(crate) identities: Arc<[SpiffeId]>,
    pub(crate) modes: PortModes,
    pub(crate) tls: ToldTls,
    pub(crate) entry: Origin,
}

/// What DestinationRules tell the client. `None` leaves the choice to what is known about the workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ToldTls {
    pub(crate) whole: Option<TlsDecision>,
    /// By the workload's own port.
    pub(crate) ports: BTreeMap<u16, Option<TlsDecision>>,
}

/// What a client is told to speak, and what tells it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TlsDecision {
    pub(crate) tls: ClientTls,
    pub(crate) decided_by: Origin,
}

impl Destination {
    /// Who answers there.
    pub fn workload(&self) -> &Arc<Workload> {
        &self.workload
    }

    /// What is done with a connection to the workload's port `port`.
    pub fn route(&self, port: u16) -> Route {
        // No application is there that a rule could mean: not even one for every host of the mesh.
        if self.workload.has_sidecars_own(port) {
            return self.outside(OutsideReason::NotCaptured, self.entry.clone());
        }
        match self.tls.at(port) {
            Some(TlsDecision { tls: ClientTls::Disable, decided_by }) => {
                self.outside(OutsideReason::DestinationRuleDisable, decided_by.clone())
            }
            // Also where nobody can answer it, as with a workload without a sidecar: what was asked for by name is
            // never exchanged for plaintext because of what the workload says of itself.
            Some(TlsDecision { tls: ClientTls::IstioMutual, decided_by }) => self.mesh(decided_by.clone()),
            // Neither half is safe: to stay automatic would send plaintext to a workload without a sidecar
            // where TLS was asked for, and to any other it would verify what was not asked for.
            Some(TlsDecision { tls: ClientTls::Mutual | ClientTls::Simple, decided_by }) => Route::Refused {
                reason: RefusedReason::TlsOrigination,
                workload: Arc::clone(&self.workload),
                decided_by: decided_by.clone(),
            },
            None => self.automatic(port),
        }
    }

    fn automatic(&self, port: u16) -> Route {
        let mode = self.modes.at(port);
        if !self.workload.in_mesh {
            self.outside(OutsideReason::NoSidecar, self.entry.clone())
        } else if self.workload.leaves_alone(port) {
            // Before the mode: it is the sidecar that serves in one.
            self.outside(OutsideReason::NotCaptured, self.entry.clone())
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

impl ToldTls {
    pub(crate) fn at(&self, port: u16) -> Option<&TlsDecision> {
        self.ports.get(&port).map_or(self.whole.as_ref(), Option::as_ref)
    }
}

/// Everything that policy says about connections of one client. It chooses each host's rule once, however many
/// workloads the host has.
#[derive(Debug)]
pub struct Client<'a> {
    resources: &'a Resources,
    settings: &'a Settings,
    pod: Option<&'a Pod>,
    chosen: HashMap<String, Option<Arc<DestinationRule>>>,
    /// Rules that name a host, and of these the ones that decide for one, by their place in the set.
    naming: HashSet<usize>,
    deciding: HashSet<usize>,
}

impl<'a> Client<'a> {
    /// What holds for `pod`: also DestinationRules of its namespace (they come first), those exported to it and
    /// those that select it. Without a pod: DestinationRules of the services' own namespaces and of the root
    /// namespace.
    pub fn new(resources: &'a Resources, settings: &'a Settings, pod: Option<&'a Pod>) -> Self {
        let (naming, deciding) = (HashSet::new(), HashSet::new());
        Self { resources, settings, pod, chosen: HashMap::new(), naming, deciding }
    }

    /// `workload` as the client sees it; `entry` says that it is there. Nothing for a workload whose identity has
    /// no valid form under one of the mesh's names: nobody can be verified there.
    pub fn destination(&mut self, workload: Arc<Workload>, entry: Origin) -> Option<Destination> {
        Some(Destination {
            identities: workload.identities(self.settings)?.into(),
            modes: PortModes::compile(
                &self.resources.peer_authentications,
                &self.settings.root_namespace,
                &workload.namespace,
                &workload.labels,
            ),
            tls: self.told(&workload),
            entry,
            workload,
        })
    }

    /// A port that belongs to a service is decided by the rule of that service; any other by the rule of the
    /// service that the workload is counted to.
    pub(crate) fn told(&mut self, workload: &Workload) -> ToldTls {
        let mut told = ToldTls::default();
        if let Some(rule) = self.rule(&workload.canonical_host(), &workload.namespace) {
            told.whole = rule.whole();
            told.ports = rule.ports().map(|port| (port, rule.at(port))).collect();
        }
        for service in workload.services.iter().rev() {
            let rule = self.rule(&service.host, &service.namespace);
            let decision = rule.and_then(|rule| rule.at(service.port));
            told.ports.insert(service.target_port, decision);
        }
        told
    }

    fn rule(&mut self, host: &str, namespace: &str) -> Option<Arc<DestinationRule>> {
        if let Some(chosen) = self.chosen.get(host) {
            return chosen.clone();
        }
        let rules = &self.resources.destination_rules;
        let root = &self.settings.root_namespace;
        let chosen = destination_rule::choose(rules, root, self.pod, (host, namespace));
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.names(host)) {
            self.naming.insert(index);
            if chosen.is_some_and(|chosen| std::ptr::eq(chosen, rule)) {
                self.deciding.insert(index);
            }
        }
        let chosen = chosen.cloned().map(Arc::new);
        self.chosen.insert(host.to_owned(), chosen.clone());
        chosen
    }

    /// Rules that were named by the workloads that were looked at, and decided for none.
    pub fn reports(&self) -> Vec<Report> {
        let rules = self.resources.destination_rules.iter().enumerate();
        let shadowed =
            rules.filter(|(index, _)| self.naming.contains(index) && !self.deciding.contains(index));
        let report = |rule: &DestinationRule| {
            rule.meta.report(
                "shadowed: for every known workload that its host names, another rule decides: one of a \
                 nearer namespace, a more specific host, an older one, or it is not meant for this client",
            )
        };
        shadowed.map(|(_, rule)| report(rule)).collect()
    }
}
