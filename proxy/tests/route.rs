//! Where connections of the application go, and what is said of it.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test")]

mod kit;

use kit::{Ca, context};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use proptest::{prelude::*, sample::select, test_runner::TestRunner};
use ringmail_evidence::shown;
use ringmail_policy::{Answer, Inbound, Outbound, OutsideReason, Pod, Resources, Service, Settings};
use ringmail_proxy::{
    config::Config,
    discovery::Asker,
    reason::Reason,
    route::{self, Next, RouteError},
    snapshot::Snapshot,
};
use tokio::sync::watch;

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

/// What discovery may have said of an address.
#[derive(Clone, Copy, Debug)]
enum Said {
    Nothing,
    Nobody,
    Unverifiable,
    WithSidecar,
    WithoutSidecar,
    /// A Service whose port 80 stands for the pods with these last bytes.
    Service(&'static [u8]),
}

const SAID: [Said; 8] = [
    Said::Nothing,
    Said::Nobody,
    Said::Unverifiable,
    Said::WithSidecar,
    Said::WithoutSidecar,
    Said::Service(&[1]),
    Said::Service(&[2, 3]),
    Said::Service(&[]),
];

/// A pod without a sidecar beside [`STRICT_PEER`], whose mesh has no word of a rule here.
const PODS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: with, namespace: ignite}
spec: {address: 10.77.0.2, labels: {app: with, security.istio.io/tlsMode: istio}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: without, namespace: ignite}
spec: {address: 10.77.0.3, labels: {app: without}}
";

/// Inside the cluster's ranges, and outside of them; the first is the pod's own.
fn address(inside: bool, last: u8) -> IpAddr {
    if inside { IpAddr::from([10, 77, 0, last]) } else { IpAddr::from([203, 0, 113, last]) }
}

/// What is known of the pods 1 to 3 of the cluster and of the address that is dialled.
fn known(pods: [Said; 3], dialled: (IpAddr, Said)) -> Snapshot {
    let resources = Resources::parse([("policy.yaml", PODS)]).unwrap();
    let settings = Settings::new("cluster.local".parse().unwrap());
    let compiled = Outbound::compile(&resources, &settings);
    let pod = |name: &str| {
        let mut all = compiled.destinations();
        Answer::Workload(Arc::clone(all.find(|known| known.workload().name == name).unwrap()))
    };
    let mut outbound = Outbound::on_demand(vec!["10.77.0.0/16".parse().unwrap()]);
    let pods = pods.into_iter().zip(1..).map(|(said, last)| (address(true, last), said));
    for (address, said) in pods.chain([dialled]) {
        let answer = match said {
            Said::Nothing => {
                outbound.forget(address);
                continue;
            }
            Said::Nobody => Answer::Nobody,
            Said::Unverifiable => Answer::Unverifiable,
            Said::WithSidecar => pod("with"),
            Said::WithoutSidecar => pod("without"),
            Said::Service(pods) => {
                let endpoints: Arc<[_]> =
                    pods.iter().map(|last| SocketAddr::new(self::address(true, *last), 10800)).collect();
                let ports = if pods.is_empty() { Default::default() } else { [(80, endpoints)].into() };
                Answer::Service(Arc::new(Service { ports, ..Service::default() }))
            }
        };
        outbound.insert(address, answer);
    }
    let inbound = Inbound::compile(&resources, &settings, &Pod::default());
    Snapshot { version: 1, inbound: Arc::new(inbound), outbound: Arc::new(outbound) }
}

/// What may come of dialling: where to, and how or why not.
fn may_come(
    pods: [Said; 3],
    to: SocketAddr,
    inside: bool,
    said: Said,
    refuse: bool,
) -> Vec<(String, &'static str)> {
    let outside = |reason: &'static str| {
        if refuse { ("nowhere".to_owned(), "outside_refused") } else { (to.to_string(), reason) }
    };
    let one = match said {
        Said::WithSidecar => (to.to_string(), "mesh"),
        Said::WithoutSidecar => outside("no_sidecar"),
        Said::Unverifiable => ("nowhere".to_owned(), "unknown_destination"),
        Said::Nobody | Said::Nothing if inside => ("nowhere".to_owned(), "unknown_destination"),
        Said::Nobody | Said::Nothing => outside("not_in_mesh"),
        Said::Service(endpoints) if to.port() == 80 && !endpoints.is_empty() => {
            let of = |last: &u8| {
                let endpoint = SocketAddr::new(address(true, *last), 10800);
                let said = pods[usize::from(*last) - 1];
                // The pod's own: no byte leaves it, whatever is refused.
                if *last == 1 && matches!(said, Said::WithSidecar) {
                    return vec![(endpoint.to_string(), "itself")];
                }
                may_come(pods, endpoint, true, said, refuse)
            };
            return endpoints.iter().flat_map(of).collect();
        }
        Said::Service(_) => outside("no_mesh_endpoint"),
    };
    vec![one]
}

/// Against an oracle that lists what may come of each case.
#[test]
fn a_connection_goes_where_a_slow_and_obvious_oracle_has_it_go() {
    let nightly = ringmail_evidence::nightly();
    let cases = if nightly { 100_000 } else { 1_000 };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let said = || select(SAID.to_vec());
    let dialled = (any::<bool>(), 1..5_u8, select(vec![80_u16, 10800]));
    let case = (prop::array::uniform3(said()), said(), dialled, any::<bool>());
    let agree =
        |(pods, elsewhere, (inside, last, port), refuse): ([Said; 3], Said, (bool, u8, u16), bool)| {
            let to = SocketAddr::new(address(inside, last), port);
            let said = if inside && last <= 3 { pods[usize::from(last) - 1] } else { elsewhere };
            let words = if refuse { "refuse" } else { "passthrough" };
            let settings = format!("pod_addresses: [10.77.0.1]\noutbound_outside: {words}\nunknown_wait: 1s");
            let config = Config::from_text("test.yaml", &settings).unwrap();
            let (_sender, snapshots) = watch::channel(Some(Arc::new(known(pods, (to.ip(), said)))));
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let resolved =
                runtime.unwrap().block_on(route::resolve(&snapshots, &Asker::nobody(), &config, to));
            let came = match resolved {
                Ok((Next::Mesh { address, .. }, _)) => (address.to_string(), "mesh"),
                Ok((Next::Outside { address, reason, .. }, _)) => (address.to_string(), reason.as_str()),
                Err(error) => ("nowhere".to_owned(), error.reason().as_str()),
            };
            let expected = may_come(pods, to, inside, said, refuse);
            prop_assert!(expected.contains(&came), "{came:?} is none of {expected:?}");
            Ok(())
        };
    TestRunner::new(config).run(&case, agree).unwrap();
    shown!("M2", "destinations, of these routed otherwise than by an oracle", format!("{cases}, 0"), "0");
}
