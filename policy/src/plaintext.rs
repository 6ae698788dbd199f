//! Ports of one workload that DestinationRules have clients in the mesh dial in plaintext.
//!
//! The workload's own sidecar needs to know them: elsewhere, plaintext from a pod of the mesh is nobody's intention.
//! Which client it is does not count, since a source's address proves nothing: a port is in the clear for all of them
//! as soon as it is for some.

use std::collections::{BTreeMap, BTreeSet};

use crate::destination::{Client, TlsDecision, ToldTls};
use crate::destination_rule::{ClientTls, DestinationRule};
use crate::origin::Origin;
use crate::parse::Resources;
use crate::settings::{Pod, Settings};
use crate::workload::Workload;

/// The ports, and what says so of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PlaintextPorts {
    /// What says it of every port that `ports` does not name.
    pub(crate) whole: Option<Origin>,
    /// By the workload's own port; `None` takes the port out of the whole.
    pub(crate) ports: BTreeMap<u16, Option<Origin>>,
}

impl PlaintextPorts {
    /// What any client of `workload` may be told, wherever it is and whatever its labels are.
    pub(crate) fn compile(resources: &Resources, settings: &Settings, workload: &Workload) -> Self {
        let rules = resources.rules_that_name(workload);
        if !rules.iter().any(|rule| rule.asks_for(ClientTls::Disable)) {
            return Self::default();
        }
        let clients = clients(&rules);
        let naming =
            Resources { destination_rules: rules.into_iter().cloned().collect(), ..Resources::default() };
        let told: Vec<ToldTls> =
            clients.iter().map(|pod| Client::new(&naming, settings, pod.as_ref()).told(workload)).collect();
        let whole = told.iter().find_map(|told| disabled(told.whole.as_ref()));
        let named: BTreeSet<u16> = told.iter().flat_map(|told| told.ports.keys().copied()).collect();
        let any = |port| told.iter().find_map(|told| disabled(told.at(port)));
        let ports = named.into_iter().map(|port| (port, any(port)));
        Self { ports: ports.filter(|(_, said)| said.is_some() || whole.is_some()).collect(), whole }
    }

    /// What has clients dial `port` in plaintext, where anything does.
    pub(crate) fn at(&self, port: u16) -> Option<&Origin> {
        self.ports.get(&port).map_or(self.whole.as_ref(), Option::as_ref)
    }
}

fn disabled(decision: Option<&TlsDecision>) -> Option<Origin> {
    let TlsDecision { tls, decided_by } = decision?;
    (*tls == ClientTls::Disable).then(|| decided_by.clone())
}

/// One client of each kind that `rules` can tell apart, and one whom none of them knows.
///
/// One selector at a time is enough: of the rules for a host in a namespace the oldest that selects a client decides, so
/// a client that several select is told what one that only this one selects is told.
fn clients(rules: &[&DestinationRule]) -> Vec<Option<Pod>> {
    let kinds: BTreeSet<_> = rules.iter().flat_map(|rule| rule.kinds_of_clients()).collect();
    let pod = |(namespace, labels)| Some(Pod { namespace, labels, ..Pod::default() });
    std::iter::once(None).chain(kinds.into_iter().map(pod)).collect()
}
