//! Where connections of the application go, and what is said of it.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test")]

mod kit;

use kit::{Ca, context};
use std::{net::SocketAddr, sync::Arc};

use ringmail_policy::{Answer, Outbound, OutsideReason, Service};
use ringmail_proxy::{
    reason::Reason,
    route::{self, Next, RouteError},
    snapshot::Snapshot,
};

/// A peer with a sidecar, in a mesh that takes mutual TLS alone and has its clients told so.
const STRICT_PEER: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: n2, namespace: ignite}
spec: {address: 10.77.0.2, labels: {app: n2, security.istio.io/tlsMode: istio}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: istio-system}
spec: {host: '*', trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
";

async fn resolved(settings: &str, port: u16) -> Result<(Next, String), RouteError> {
    let handles = context(&Ca::new("root").credentials("n1"), settings, STRICT_PEER);
    let context = &handles.context;
    let destination = ([10, 77, 0, 2], port).into();
    let decided = route::resolve(&context.snapshots, &context.asker, &context.config, destination).await;
    decided.map(|(next, decided_by)| (next, decided_by.to_string()))
}

#[tokio::test]
async fn a_peers_own_ports_are_dialled_in_plaintext_and_its_applications_are_not() {
    let (next, decided_by) = resolved("{}", 15020).await.unwrap();
    let Next::Outside { address, reason, workload } = next else { panic!("not in plaintext: {next:?}") };
    assert_eq!((address.to_string().as_str(), reason), ("10.77.0.2:15020", OutsideReason::NotCaptured));
    assert_eq!((workload.unwrap().name.as_str(), decided_by.as_str()), ("n2", "WorkloadEntry ignite/n2"));
    let (next, _) = resolved("{}", 47500).await.unwrap();
    assert!(matches!(next, Next::Mesh { .. }), "{next:?}");
}

/// Whoever wants nothing sent in plaintext is obeyed, and told why.
#[tokio::test]
async fn where_outside_is_refused_so_is_a_port_that_is_not_captured() {
    let refused = resolved("outbound_outside: refuse", 15020).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::OutsideRefused);
    assert!(refused.to_string().contains("(not_captured)"), "{refused}");
}

/// Behind a pod's own Service stands the pod itself: its sidecar would offer TLS to an application that knows none.
#[tokio::test]
async fn a_pod_that_dials_its_own_service_reaches_itself_without_tls_and_others_with_it() {
    for (own, expected) in [("10.77.0.2", Some(OutsideReason::Itself)), ("10.77.0.1", None)] {
        let settings = format!("pod_addresses: [{own}]\noutbound_outside: refuse");
        let handles = context(&Ca::new("root").credentials("n1"), &settings, STRICT_PEER);
        let context = &handles.context;
        let known = handles.snapshots.borrow().clone().unwrap();
        let mut outbound = Outbound::clone(&known.outbound);
        let endpoints: Arc<[SocketAddr]> = [SocketAddr::from(([10, 77, 0, 2], 10800))].into();
        let service = Service { ports: [(80, endpoints)].into(), ..Service::default() };
        outbound.insert([10, 96, 0, 9].into(), Answer::Service(Arc::new(service)));
        handles.snapshots.send_replace(Some(Arc::new(Snapshot {
            version: 2,
            inbound: Arc::clone(&known.inbound),
            outbound: Arc::new(outbound),
        })));
        let destination = ([10, 96, 0, 9], 80).into();
        let (next, _) =
            route::resolve(&context.snapshots, &context.asker, &context.config, destination).await.unwrap();
        let (address, reason) = match next {
            Next::Outside { address, reason, .. } => (address, Some(reason)),
            Next::Mesh { address, .. } => (address, None),
        };
        assert_eq!((address.to_string().as_str(), reason), ("10.77.0.2:10800", expected));
    }
}
