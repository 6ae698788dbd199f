//! The precedence of PeerAuthentication.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::select;

use super::{Day, compile, document};

const PORTS: [u16; 3] = [1, 2, 3];

#[derive(Clone, Debug)]
struct Policy {
    namespace: &'static str,
    name: String,
    created: Day,
    /// The label app that is asked for.
    selector: Option<&'static str>,
    mode: Option<&'static str>,
    ports: Vec<(u16, Option<&'static str>)>,
}

impl Policy {
    fn document(&self) -> String {
        let mut spec = format!("{{mtls: {{mode: {}}}", self.mode.unwrap_or("UNSET"));
        if let Some(app) = self.selector {
            write!(spec, ", selector: {{matchLabels: {{app: {app}}}}}").unwrap();
            let ports: Vec<_> = self
                .ports
                .iter()
                .map(|(port, mode)| format!("{port}: {{mode: {}}}", mode.unwrap_or("UNSET")))
                .collect();
            write!(spec, ", portLevelMtls: {{{}}}", ports.join(", ")).unwrap();
        }
        document("PeerAuthentication", self.namespace, &self.name, self.created, &format!("{spec}}}"))
    }

    fn older_than(&self, other: &Self) -> bool {
        match (self.created, other.created) {
            (Some(own), Some(others)) if own != others => own < others,
            (Some(_), Some(_)) => self.name < other.name,
            (own, _) => own.is_some(),
        }
    }
}

fn policies(created: impl Strategy<Value = Day> + Clone + 'static) -> impl Strategy<Value = Vec<Policy>> {
    let mode = || select(vec![None, Some("DISABLE"), Some("PERMISSIVE"), Some("STRICT")]);
    let ports = move || prop::collection::btree_map(select(PORTS.to_vec()), mode(), 0..3);
    let selector = || select(vec![None, Some("db"), Some("web")]);
    let one = (select(vec!["istio-system", "here", "there"]), "[a-c]", created, selector(), mode(), ports());
    prop::collection::vec(one, 0..10).prop_map(|all| {
        let build = |(index, (namespace, letter, created, selector, mode, ports))| Policy {
            namespace,
            name: format!("{letter}{index}"),
            created,
            selector,
            mode,
            ports: BTreeMap::into_iter(ports).collect(),
        };
        all.into_iter().enumerate().map(build).collect()
    })
}

/// The oldest of the policies that satisfy `scope`: the one that none of the others is older than.
fn oldest(policies: &[Policy], scope: impl Fn(&Policy) -> bool) -> Option<&Policy> {
    let candidates: Vec<_> = policies.iter().filter(|policy| scope(policy)).collect();
    candidates.iter().copied().find(|policy| !candidates.iter().any(|other| other.older_than(policy)))
}

fn oracle(policies: &[Policy], port: u16) -> &'static str {
    let mesh = oldest(policies, |policy| policy.namespace == "istio-system" && policy.selector.is_none());
    let namespace = oldest(policies, |policy| policy.namespace == "here" && policy.selector.is_none());
    let workload = oldest(policies, |policy| policy.namespace == "here" && policy.selector == Some("db"));
    let port = workload.and_then(|policy| policy.ports.iter().find(|(own, _)| *own == port)?.1);
    let mode = |policy: Option<&Policy>| policy.and_then(|policy| policy.mode);
    port.or(mode(workload)).or(mode(namespace)).or(mode(mesh)).unwrap_or("PERMISSIVE")
}

fn modes(policies: &[Policy]) -> Vec<&'static str> {
    let documents: Vec<_> = policies.iter().map(Policy::document).collect();
    let inbound = compile(&documents);
    PORTS.iter().map(|&port| inbound.mode(port).mode.as_str()).collect()
}

proptest! {
    #[test]
    fn modes_are_those_of_the_oracle(policies in policies(prop::option::of(1..4_u8))) {
        let expected: Vec<_> = PORTS.iter().map(|&port| oracle(&policies, port)).collect();
        prop_assert_eq!(modes(&policies), expected);
    }

    #[test]
    fn the_order_of_documents_with_timestamps_says_nothing(
        (policies, shuffled) in policies((1..4_u8).prop_map(Some))
            .prop_flat_map(|policies| (Just(policies.clone()), Just(policies).prop_shuffle())),
    ) {
        prop_assert_eq!(modes(&policies), modes(&shuffled));
    }

    #[test]
    fn a_shadowed_policy_changes_nothing_and_is_reported(
        policies in policies(prop::option::of(1..4_u8)),
        at in any::<prop::sample::Index>(),
        mode in select(vec!["DISABLE", "PERMISSIVE", "STRICT"]),
    ) {
        prop_assume!(!policies.is_empty());
        let mut shadowed = policies[at.index(policies.len())].clone();
        shadowed.name = "zz".to_owned();
        shadowed.created = shadowed.created.map(|_| 28);
        shadowed.mode = Some(mode);
        shadowed.ports = PORTS.iter().map(|&port| (port, Some(mode))).collect();
        let before = modes(&policies);
        let mut all = policies.clone();
        all.push(shadowed.clone());
        // A younger timestamp is still older than none at all.
        prop_assume!(policies.iter().all(|policy| policy.created.is_some()) || shadowed.created.is_none());
        prop_assert_eq!(&modes(&all), &before);

        let documents: Vec<_> = all.iter().map(Policy::document).collect();
        let concerns = shadowed.namespace != "there"
            && (shadowed.namespace == "istio-system" || shadowed.selector != Some("web"));
        let inbound = compile(&documents);
        prop_assert_eq!(inbound.reports().iter().any(|report| report.name == "zz"), concerns);
    }
}
