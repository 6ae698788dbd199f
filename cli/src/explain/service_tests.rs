//! The answers about Services that are dialled otherwise than by an address of their own.

use serde_json::json;

use super::explanation::{Explanation, Outcome};
use super::*;
use crate::cluster::Supposed;
use crate::cluster::fixture::{Fixture, policy};

const NODE_PORT: &str = "10.200.0.1:30080";

fn tried(fixture: &Fixture, from: &str, to: &str) -> Result<Explanation> {
    of_mesh(&fixture.mesh(&Supposed::default()), &from.parse().unwrap(), &to.parse().unwrap())
}

/// The Service `ignite` also at a port of each node.
fn with_node_port(mut fixture: Fixture) -> Fixture {
    let spec = &mut fixture.services[0]["spec"];
    spec["type"] = json!("NodePort");
    spec["ports"][0]["nodePort"] = json!(30080);
    fixture
}

fn strict() -> serde_json::Value {
    policy("PeerAuthentication", "default", json!({"mtls": {"mode": "STRICT"}}))
}

#[test]
fn a_node_port_carries_plaintext_whoever_dials_it_and_shows_the_node_to_each_endpoint() {
    let fixture = with_node_port(Fixture::new());
    for from in ["ignite/ignite-0", "ignite/bare", "192.0.2.1"] {
        let said = tried(&fixture, from, NODE_PORT).unwrap();
        assert_eq!((said.outcome, said.endpoints.len()), (Outcome::Plaintext, 3), "{from}: {said:#?}");
        let step = said.steps.last().unwrap();
        assert_eq!(step.decided_by, "Service ignite/ignite, its nodePort 30080 on Node node1");
        assert!(
            step.decision
                .starts_with("kube-proxy of the node chooses one of 3 endpoints, which sees the node")
        );
    }
    let strict = with_node_port(Fixture::with([strict()]));
    let said = tried(&strict, "ignite/ignite-0", NODE_PORT).unwrap();
    let last = said.endpoints[0].steps.last().unwrap();
    assert_eq!((said.outcome, &*last.decided_by), (Outcome::Refused, "PeerAuthentication ignite/default"));
}

#[test]
fn a_policy_about_sources_sees_the_node_unless_the_traffic_policy_is_local() {
    let from = json!({"rules": [{"from": [{"source": {"ipBlocks": ["192.0.2.0/24"]}}]}]});
    let mut fixture = with_node_port(Fixture::with([policy("AuthorizationPolicy", "outside", from)]));
    let outcome = |fixture: &Fixture, from: &str| tried(fixture, from, NODE_PORT).unwrap().outcome;
    assert_eq!(outcome(&fixture, "192.0.2.1"), Outcome::Refused);
    fixture.services[0]["spec"]["externalTrafficPolicy"] = json!("Local");
    assert_eq!(outcome(&fixture, "192.0.2.1"), Outcome::Plaintext);
    // A member that is seen as what it is does not get through in plaintext.
    let open = with_node_port(Fixture::new());
    assert_eq!(outcome(&open, "ignite/ignite-0"), Outcome::Plaintext);
    let mut open = open;
    open.services[0]["spec"]["externalTrafficPolicy"] = json!("Local");
    assert_eq!(outcome(&open, "ignite/ignite-0"), Outcome::Refused);
}

#[test]
fn a_load_balancers_address_leads_to_the_services_own_port() {
    let mut fixture = Fixture::new();
    fixture.services[0]["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}});
    let said = tried(&fixture, "192.0.2.1", "198.51.100.7:10800").unwrap();
    assert_eq!((said.outcome, said.endpoints.len()), (Outcome::Plaintext, 3));
    assert_eq!(
        said.steps.last().unwrap().decided_by,
        "Service ignite/ignite, its address 198.51.100.7 for outside"
    );
}

#[test]
fn a_port_of_a_node_that_is_no_services_is_the_nodes_own() {
    let said = tried(&with_node_port(Fixture::new()), "ignite/ignite-0", "10.200.0.1:30081").unwrap();
    let last = said.steps.last().unwrap();
    assert_eq!(last.decided_by, "Node node1 itself: no Service has the nodePort 30081");
    assert_eq!(said.outcome, Outcome::Plaintext);
}

#[test]
fn a_node_port_is_not_guessed_where_nodes_may_not_be_listed() {
    let mut fixture = with_node_port(Fixture::new());
    fixture.nodes.clear();
    let error = format!("{:#}", tried(&fixture, "ignite/ignite-0", NODE_PORT).unwrap_err());
    assert_eq!(
        error,
        "--to: 10.200.0.1:30080: 30080 is the nodePort of Service ignite/ignite; expected to list nodes to know \
         whether 10.200.0.1 is one of them, and none was read"
    );
}

#[test]
fn a_headless_service_without_ports_stands_for_its_ready_pods() {
    let mut fixture = Fixture::new();
    let headless = &mut fixture.services[1]["spec"];
    headless.as_object_mut().unwrap().remove("ports");
    let slice = &mut fixture.slices[1];
    slice["ports"] = json!([]);
    slice["endpoints"][2]["conditions"]["ready"] = json!(false);
    let to = "ignite-headless.ignite:47500";
    let said = tried(&fixture, "ignite/ignite-0", to).unwrap();
    let endpoints: Vec<_> = said.endpoints.iter().map(|leg| leg.to.socket().to_string()).collect();
    assert_eq!(endpoints, ["10.0.0.0:47500", "10.0.0.1:47500"]);
    assert_eq!(said.outcome, Outcome::MutualTls);
    fixture.services[1]["spec"]["publishNotReadyAddresses"] = json!(true);
    assert_eq!(tried(&fixture, "ignite/ignite-0", to).unwrap().endpoints.len(), 3);
    fixture.slices[1]["endpoints"] = json!([]);
    let error = format!("{:#}", tried(&fixture, "ignite/ignite-0", to).unwrap_err());
    assert!(error.contains("ignite/ignite-headless is headless and has no ready endpoints"), "{error}");
}

#[test]
fn an_external_name_says_what_it_stands_for() {
    let mut fixture = Fixture::new();
    fixture.services[0]["spec"] = json!({"type": "ExternalName", "externalName": "db.example.org"});
    let error = format!("{:#}", tried(&fixture, "ignite/ignite-0", "ignite.ignite:10800").unwrap_err());
    assert!(error.contains("is an ExternalName: it stands for \"db.example.org\""), "{error}");
}
