//! A proxy's state for tests of admin and metrics: the pod `ignite/ignite-0` with one peer, `ignite-1`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use ringmail_identity::{PrivateKey, Svid, TrustBundle};
use ringmail_policy::{Inbound, Outbound, Pod, Resources, Settings, Workload};
use tokio::sync::watch;

use super::State;
use crate::{
    access_log::AccessLog,
    config::Config,
    fence::Fence,
    ledger::Ledger,
    record::{Direction, Protection, Record},
    snapshot::Snapshot,
    tls::{Credentials, TlsSettings},
};

/// The identity of the pod and of its peer.
pub(crate) const ID: &str = "spiffe://cluster.local/ns/ignite/sa/default";
/// Where the pod's application listens.
pub(crate) const OWN: &str = "10.244.0.7:47500";
/// Where the peer's application listens.
pub(crate) const PEER: &str = "10.244.0.8:47500";

const SETTINGS: &str = "
namespace: ignite
pod_name: ignite-0
workload: ignite
labels: {app: ignite}
pod_addresses: [10.244.0.7]
";

const WORKLOADS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ignite-0, namespace: ignite}
spec:
  address: 10.244.0.7
  labels: {service.istio.io/canonical-name: ignite-headless, security.istio.io/tlsMode: istio}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ignite-1, namespace: ignite}
spec:
  address: 10.244.0.8
  labels:
    app: ignite
    service.istio.io/workload-name: ignite
    security.istio.io/tlsMode: istio
    linkerd.io/control-plane-ns: linkerd
";

/// The state with the senders of what it watches.
pub(crate) struct TestState {
    pub(crate) state: Arc<State>,
    pub(crate) snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub(crate) credentials: watch::Sender<Option<Arc<Credentials>>>,
}

impl TestState {
    /// Nothing is known yet: no credentials, no policies, no connections.
    pub(crate) fn empty() -> Self {
        Self::of(SETTINGS, Fence::off())
    }

    /// The same with settings and a fence of one's own.
    pub(crate) fn of(settings: &str, fence: Arc<Fence>) -> Self {
        let (snapshots, snapshots_rx) = watch::channel(None);
        let (credentials, credentials_rx) = watch::channel(None);
        let (access_log, _) = AccessLog::collecting();
        let ledger = || Arc::new(Ledger::new(access_log.clone()));
        let state = Arc::new(State {
            config: Arc::new(Config::from_text("proxy.yaml", settings).unwrap()),
            ledgers: vec![ledger(), ledger()],
            snapshots: snapshots_rx,
            credentials: credentials_rx,
            fence,
            identity_status: Arc::default(),
            discovery_status: Arc::default(),
            limits: Arc::default(),
            access_log,
            restarts: 2,
        });
        Self { state, snapshots, credentials }
    }

    /// Credentials and workloads are there, with these further policies.
    pub(crate) fn ready(policies: &str) -> Self {
        let this = Self::empty();
        this.credentials.send_replace(Some(credentials()));
        this.snapshots.send_replace(Some(snapshot(policies)));
        this
    }

    /// An accepted connection of the given worker; `destination` is where it wants to go.
    pub(crate) fn open(&self, worker: usize, direction: Direction, destination: &str) -> Record {
        let source = SocketAddr::from(([10, 244, 0, 9], 40_000));
        let record = Record::open(&self.state.ledgers[worker], direction, source);
        record.destination(destination.parse().unwrap());
        record
    }

    /// An established connection with mutual TLS, and the peer's workload as the test's discovery knows it.
    pub(crate) fn mesh(&self, worker: usize, direction: Direction) -> Record {
        let destination = if direction == Direction::Inbound { OWN } else { PEER };
        let record = self.open(worker, direction, destination);
        record.protection(Protection::MutualTls);
        record.peer_workload(&self.peer());
        let live = record.live();
        live.peer_identity.set(ID.parse().unwrap()).unwrap();
        live.own_identity.set(ID.parse().unwrap()).unwrap();
        live.handshake.set(Duration::from_micros(800)).unwrap();
        record.established();
        record
    }

    fn peer(&self) -> Arc<Workload> {
        let snapshot = self.state.snapshots.borrow().clone().unwrap();
        Arc::clone(snapshot.outbound.workload([10, 244, 0, 8].into()).unwrap())
    }
}

fn snapshot(policies: &str) -> Arc<Snapshot> {
    let resources = Resources::parse([("workloads.yaml", WORKLOADS), ("policies.yaml", policies)]).unwrap();
    let settings = Settings::new("cluster.local".parse().unwrap());
    let pod = Pod { namespace: "ignite".to_owned(), ..Pod::default() };
    Arc::new(Snapshot {
        version: 7,
        inbound: Arc::new(Inbound::compile(&resources, &settings, &pod)),
        outbound: Arc::new(Outbound::compile_for(&resources, &settings, &pod)),
    })
}

fn credentials() -> Arc<Credentials> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "test root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let bundle = TrustBundle::from_pem("cluster.local".parse().unwrap(), root.pem().as_bytes()).unwrap();

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    // With the high bit, which DER cannot write without a zero byte before it.
    params.serial_number = Some(vec![0x80, 0x0a, 0x1b].into());
    params.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = params.signed_by(&key, &root).unwrap();
    let key = PrivateKey::from_pem(key.serialize_pem().as_bytes()).unwrap();
    let svid = Svid::new(vec![leaf.der().clone()], key).unwrap();
    Arc::new(Credentials::new(Arc::new(svid), Arc::new(bundle), 3, &TlsSettings::default()).unwrap())
}
