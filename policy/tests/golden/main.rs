//! Decisions on small sets of resources, each citing the sentence of Istio's documentation it comes from.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod about;
mod authorization;
mod conditions;
mod faults;
mod left_alone;
mod limits;
mod merge;
mod modes;
mod outbound;
mod plaintext;
mod reports;
mod versions;
mod wire;
mod workloads;

use std::collections::BTreeMap;

use ringmail_identity::SpiffeId;
use ringmail_policy::{Inbound, ParseError, Pod, Report, Request, Resources, Settings};

/// The port that questions are about when they are not about ports.
const THIN: u16 = 10800;

/// One resource from `namespace/name` and a spec in flow style.
fn resource(api: &str, kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn peer_authentication(name: &str, spec: &str) -> String {
    resource("security.istio.io/v1", "PeerAuthentication", name, spec)
}

fn authorization(name: &str, spec: &str) -> String {
    resource("security.istio.io/v1", "AuthorizationPolicy", name, spec)
}

fn destination_rule(name: &str, spec: &str) -> String {
    resource("networking.istio.io/v1", "DestinationRule", name, spec)
}

fn workload_entry(name: &str, spec: &str) -> String {
    resource("networking.istio.io/v1", "WorkloadEntry", name, spec)
}

/// The same resource with a creation time on 2024-01-`day`.
fn created(day: u8, resource: &str) -> String {
    resource.replace("metadata: {", &format!("metadata: {{creationTimestamp: '2024-01-{day:02}T00:00:00Z', "))
}

fn set(documents: &[String]) -> Resources {
    Resources::parse([("set.yaml", &*documents.concat())]).unwrap()
}

fn faults(text: &str) -> Vec<ParseError> {
    Resources::parse([("bad.yaml", text)]).unwrap_err()
}

fn settings() -> Settings {
    let mut settings = Settings::new("cluster.local".parse().unwrap());
    settings.mesh_ranges = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()];
    settings
}

/// A pod of Ignite: namespace and label app are both `ignite`.
fn pod() -> Pod {
    Pod {
        namespace: "ignite".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "ignite".to_owned())]),
        service_account: "default".to_owned(),
        addresses: vec!["10.0.0.2".parse().unwrap()],
    }
}

fn inbound(documents: &[String]) -> Inbound {
    Inbound::compile(&set(documents), &settings(), &pod())
}

/// The same after a journey from the control plane to a proxy.
fn arrived(inbound: &Inbound) -> Inbound {
    let (modes, policies) = inbound.to_wire();
    Inbound::from_wire(&modes, &policies).unwrap()
}

/// Mode and origin of a port.
fn mode(documents: &[String], port: u16) -> (&'static str, String) {
    let inbound = inbound(documents);
    let decision = inbound.mode(port);
    assert_eq!(arrived(&inbound).mode(port), decision);
    (decision.mode.as_str(), decision.decided_by.to_string())
}

fn id(principal: &str) -> SpiffeId {
    format!("spiffe://{principal}").parse().unwrap()
}

/// Verdict and origin for a peer (a principal, or none) that connects to a port of the pod.
fn ask(inbound: &Inbound, peer: Option<&str>, port: u16) -> (bool, String) {
    let identity = peer.map(id);
    let request = Request {
        identity: identity.as_ref(),
        source: "10.0.1.9".parse().unwrap(),
        destination: ([10, 0, 0, 2], port).into(),
    };
    let verdict = inbound.authorize(&request);
    assert_eq!(arrived(inbound).authorize(&request), verdict);
    (verdict.allowed, verdict.decided_by.to_string())
}

fn allows(documents: &[String], peer: Option<&str>, port: u16) -> bool {
    ask(&inbound(documents), peer, port).0
}

/// Whether some report is about `name` and says `text`.
fn reported(reports: &[Report], name: &str, text: &str) -> bool {
    reports.iter().any(|report| report.name == name && report.text.contains(text))
}
