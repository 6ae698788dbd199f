//! Sets that grow and shrink by one object at a time, as a control plane sees them: each object is read by itself, so
//! that a fault in one cannot touch the others, and what changed says whom it concerns.

use std::collections::BTreeMap;

use ringmail_identity::TrustDomain;

use crate::destination_rule::DestinationRule;
use crate::mode;
use crate::origin::Origin;
use crate::parse::Resources;
use crate::resource::selects;
use crate::settings::{Pod, Settings};
use crate::workload::Workload;

/// What of a client a DestinationRule can ask: all clients of a class are told the same about every workload.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientClass {
    /// Nothing where no rule tells the namespace's clients from others.
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
}

impl ClientClass {
    /// A client of the class.
    pub fn pod(&self) -> Option<Pod> {
        let namespace = self.namespace.clone()?;
        Some(Pod { namespace, labels: self.labels.clone(), ..Pod::default() })
    }
}

impl Resources {
    /// All of `parts` as one set. No resource may stand in two of them.
    pub fn merge<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut set = Self::default();
        for part in parts {
            set.authorization_policies.extend_from_slice(&part.authorization_policies);
            set.destination_rules.extend_from_slice(&part.destination_rules);
            set.peer_authentications.extend_from_slice(&part.peer_authentications);
            set.workload_entries.extend_from_slice(&part.workload_entries);
            set.reports.extend_from_slice(&part.reports);
        }
        set.sort();
        set
    }

    /// Whether a PeerAuthentication of the set has a say in how a pod of `namespace` with `labels` is served.
    pub fn sets_modes_of(
        &self,
        settings: &Settings,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let root = &settings.root_namespace;
        self.peer_authentications.iter().any(|policy| mode::concerns(policy, root, namespace, labels))
    }

    /// Whether an AuthorizationPolicy of the set decides about connections to such a pod.
    pub fn authorizes_for(
        &self,
        settings: &Settings,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        self.authorization_policies.iter().any(|policy| {
            let own =
                *policy.meta.namespace == *namespace || *policy.meta.namespace == *settings.root_namespace;
            own && selects(&policy.selector, labels)
        })
    }

    /// Whether a DestinationRule of the set may tell clients something about `workload`.
    pub fn names(&self, workload: &Workload) -> bool {
        !self.rules_that_name(workload).is_empty()
    }

    /// The DestinationRules that name one of the workload's hosts, oldest first.
    pub(crate) fn rules_that_name(&self, workload: &Workload) -> Vec<&DestinationRule> {
        let canonical = workload.canonical_host();
        let hosts = || workload.services.iter().map(|service| &service.host).chain([&canonical]);
        self.destination_rules.iter().filter(|rule| hosts().any(|host| rule.names(host))).collect()
    }

    /// The class of clients that `pod` belongs to, as long as the set's DestinationRules are what they are.
    pub fn client_class(&self, pod: &Pod) -> ClientClass {
        if !self.destination_rules.iter().any(|rule| rule.means_clients_of(&pod.namespace)) {
            return ClientClass::default();
        }
        let own = self.destination_rules.iter().filter(|rule| *rule.meta.namespace == *pod.namespace);
        let asked = own.flat_map(|rule| rule.client_labels());
        let labels = asked.filter_map(|key| Some((key.clone(), pod.labels.get(key)?.clone()))).collect();
        ClientClass { namespace: Some(pod.namespace.clone()), labels }
    }

    /// The workloads of the set's WorkloadEntries, each with what says that it is there; nothing for one whose
    /// identity has no valid form under `trust_domain`.
    pub fn workloads(&self, trust_domain: &TrustDomain) -> Vec<Option<(Workload, Origin)>> {
        let entries = self.workload_entries.iter();
        entries.map(|entry| Some((entry.workload(trust_domain)?, entry.meta.origin("")))).collect()
    }
}
