//! Where a connection goes: DestinationRules, PeerAuthentication and what is known of the workload.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestRunner;
use ringmail_evidence::shown;
use ringmail_policy::{Outbound, Pod, Resources, Route, Settings};

use super::Day;

const PORTS: [u16; 3] = [1, 2, 15020];
/// The workload is `db` of the namespace `there`, its client `web` of `here`.
const HOSTS: [&str; 6] = [
    "db.there.svc.cluster.local",
    "db",
    "*.there.svc.cluster.local",
    "*.cluster.local",
    "*",
    "web.there.svc.cluster.local",
];
const MODES: [Option<&str>; 4] = [None, Some("DISABLE"), Some("ISTIO_MUTUAL"), Some("SIMPLE")];

#[derive(Clone, Debug)]
struct Rule {
    namespace: &'static str,
    name: String,
    created: Day,
    host: &'static str,
    has_policy: bool,
    mode: Option<&'static str>,
    ports: BTreeMap<u16, Option<&'static str>>,
    selector: Option<&'static str>,
    export_to: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct World {
    rules: Vec<Rule>,
    has_sidecar: bool,
    peer_authentication: Option<&'static str>,
}

fn tls(mode: Option<&str>) -> String {
    mode.map(|mode| format!("tls: {{mode: {mode}}}")).unwrap_or_default()
}

impl Rule {
    fn document(&self) -> String {
        let mut spec = format!("{{host: '{}'", self.host);
        if self.has_policy {
            let ports = self.ports.iter().map(|(port, mode)| {
                let mode = mode.map(|mode| format!(", {}", tls(Some(mode)))).unwrap_or_default();
                format!("{{port: {{number: {port}}}{mode}}}")
            });
            let ports = format!("portLevelSettings: [{}]", ports.collect::<Vec<_>>().join(", "));
            let parts: Vec<_> = [tls(self.mode), ports].into_iter().filter(|part| !part.is_empty()).collect();
            write!(spec, ", trafficPolicy: {{{}}}", parts.join(", ")).unwrap();
        }
        if let Some(app) = self.selector {
            write!(spec, ", workloadSelector: {{matchLabels: {{app: {app}}}}}").unwrap();
        }
        if !self.export_to.is_empty() {
            let names: Vec<_> = self.export_to.iter().map(|name| format!("'{name}'")).collect();
            write!(spec, ", exportTo: [{}]", names.join(", ")).unwrap();
        }
        document(
            "networking.istio.io/v1",
            "DestinationRule",
            self.namespace,
            &self.name,
            self.created,
            &format!("{spec}}}"),
        )
    }

    /// The name of the host in full.
    fn full_host(&self) -> String {
        match self.host {
            "db" => format!("db.{}.svc.cluster.local", self.namespace),
            host => host.to_owned(),
        }
    }

    fn is_of_the_workload(&self) -> bool {
        let host = self.full_host();
        host == "db.there.svc.cluster.local"
            || ["*.there.svc.cluster.local", "*.cluster.local", "*"].contains(&host.as_str())
    }

    /// A smaller number is more specific.
    fn rank(&self) -> usize {
        let order = ["db.there.svc.cluster.local", "*.there.svc.cluster.local", "*.cluster.local", "*"];
        order.iter().position(|host| *host == self.full_host()).unwrap()
    }

    fn is_shown_to_the_client(&self) -> bool {
        self.export_to.is_empty()
            || self.export_to.contains(&"*")
            || self.export_to.contains(&"here")
            || self.export_to.contains(&".") && self.namespace == "here"
    }

    fn older_than(&self, other: &Self) -> bool {
        match (self.created, other.created) {
            (Some(own), Some(others)) if own != others => own < others,
            (Some(_), Some(_)) => self.name < other.name,
            (own, _) => own.is_some(),
        }
    }

    fn says(&self, port: u16) -> Option<&'static str> {
        match self.ports.get(&port) {
            _ if !self.has_policy => None,
            Some(named) => *named,
            None => self.mode,
        }
    }
}

fn document(version: &str, kind: &str, namespace: &str, name: &str, created: Day, spec: &str) -> String {
    super::document(kind, namespace, name, created, spec).replacen("security.istio.io/v1", version, 1)
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let ports = prop::collection::btree_map(select(PORTS.to_vec()), select(MODES.to_vec()), 0..3);
    let place =
        (select(vec!["here", "there", "istio-system", "elsewhere"]), "[a-c]", prop::option::of(1..4_u8));
    let meant = (
        select(vec![None, None, Some("web"), Some("db")]),
        subsequence(vec![".", "*", "here", "there"], 0..2),
    );
    let told = (any::<bool>(), select(MODES.to_vec()), ports);
    let one = (place, select(HOSTS.to_vec()), told, meant);
    prop::collection::vec(one, 0..8).prop_map(|all| {
        let build = |(index, (place, host, told, meant)): (usize, _)| {
            let ((namespace, letter, created), (has_policy, mode, ports), (selector, export_to)) =
                (place, told, meant);
            let letter: String = letter;
            Rule {
                namespace,
                name: format!("{letter}{index}"),
                created,
                host,
                has_policy,
                mode,
                ports,
                selector,
                export_to,
            }
        };
        all.into_iter().enumerate().map(build).collect()
    })
}

fn world() -> impl Strategy<Value = World> {
    (rules(), any::<bool>(), select(vec![None, Some("DISABLE"), Some("STRICT")])).prop_map(
        |(rules, has_sidecar, peer_authentication)| World { rules, has_sidecar, peer_authentication },
    )
}

fn oldest<'r>(rules: &[&'r Rule]) -> Option<&'r Rule> {
    rules.iter().copied().find(|rule| !rules.iter().any(|other| other.older_than(rule)))
}

/// The one rule that the client goes by: of the nearest namespace that has any for the host, there of the most specific host, there
/// the oldest that selects the client, else the oldest that means everybody and says something.
fn the_rule(rules: &[Rule]) -> Option<&Rule> {
    for namespace in ["here", "there", "istio-system"] {
        let mut of_namespace = Vec::new();
        for rule in rules {
            if rule.namespace == namespace && rule.is_of_the_workload() && rule.is_shown_to_the_client() {
                of_namespace.push(rule);
            }
        }
        let Some(rank) = of_namespace.iter().map(|rule| rule.rank()).min() else { continue };
        of_namespace.retain(|rule| rule.rank() == rank);
        let selecting: Vec<_> = of_namespace
            .iter()
            .copied()
            .filter(|rule| rule.selector == Some("web") && namespace == "here")
            .collect();
        let everybody: Vec<_> = of_namespace.iter().copied().filter(|rule| rule.selector.is_none()).collect();
        let saying: Vec<_> = everybody.iter().copied().filter(|rule| rule.has_policy).collect();
        return oldest(&selecting).or(oldest(&saying)).or(oldest(&everybody));
    }
    None
}

fn oracle(world: &World, port: u16) -> &'static str {
    if world.has_sidecar && port == 15020 {
        return "not_captured";
    }
    match the_rule(&world.rules).and_then(|rule| rule.says(port)) {
        Some("DISABLE") => "destination_rule_disable",
        Some("ISTIO_MUTUAL") => "mesh",
        Some("SIMPLE") => "tls_origination",
        Some(_) | None if !world.has_sidecar => "no_sidecar",
        Some(_) | None if world.peer_authentication == Some("DISABLE") => "port_mode_disable",
        Some(_) | None => "mesh",
    }
}

fn routes(world: &World) -> Vec<&'static str> {
    let mut documents: Vec<_> = world.rules.iter().map(Rule::document).collect();
    let mode = if world.has_sidecar { "istio" } else { "disabled" };
    let spec = format!("{{address: 10.0.0.1, labels: {{app: db, security.istio.io/tlsMode: {mode}}}}}");
    documents.push(document("networking.istio.io/v1", "WorkloadEntry", "there", "db", None, &spec));
    if let Some(mode) = world.peer_authentication {
        let spec = format!("{{mtls: {{mode: {mode}}}}}");
        documents.push(super::document("PeerAuthentication", "there", "default", None, &spec));
    }
    let set = Resources::parse([("set.yaml", &*documents.concat())]).unwrap();
    let client = Pod {
        namespace: "here".to_owned(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        service_account: "default".to_owned(),
        addresses: Vec::new(),
    };
    let outbound = Outbound::compile_for(&set, &Settings::new("td".parse().unwrap()), &client);
    let word = |port: u16| match outbound.route(([10, 0, 0, 1], port).into()) {
        Route::Mesh { .. } => "mesh",
        Route::Outside { reason, .. } => reason.as_str(),
        Route::Refused { reason, .. } => reason.as_str(),
        Route::Service { .. } => "service",
        Route::Unknown => "unknown",
    };
    PORTS.iter().map(|&port| word(port)).collect()
}

#[test]
fn connections_go_where_the_oracle_says() {
    let nightly = ringmail_evidence::nightly();
    let cases = if nightly { 200_000 } else { 1_000 };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let agree = |world: World| {
        let expected: Vec<_> = PORTS.iter().map(|&port| oracle(&world, port)).collect();
        prop_assert_eq!(routes(&world), expected);
        Ok(())
    };
    TestRunner::new(config).run(&world(), agree).unwrap();
    shown!("M2", "sets of rules, of these decided otherwise than by an oracle", format!("{cases}, 0"), "0");
}
