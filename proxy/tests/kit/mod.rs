//! A certificate authority and sidecar halves for tests that run in one process over loopback.

#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part of the kit")]

pub(crate) mod wire;

use std::{net::IpAddr, rc::Rc, sync::Arc};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use ringmail_identity::{PrivateKey, SpiffeId, Svid, TrustBundle, TrustDomain};
use ringmail_policy::{Inbound, Outbound, Pod, Resources, Settings};
use ringmail_proxy::{
    access_log::AccessLog,
    config::Config,
    fence::Fence,
    ledger::Ledger,
    limits::Limits,
    orig_dst::Own,
    registry::Registry,
    snapshot::Snapshot,
    tls::{Credentials, TlsSettings},
    worker::Context,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The trust domain of every test.
pub(crate) fn trust_domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

/// The variable that has every test run on the record layer of this name: that of the setting `record_layer`.
pub(crate) const RECORD_LAYER: &str = "RINGMAIL_RECORD_LAYER";

/// The defaults, on the record layer under test.
pub(crate) fn tls_settings() -> TlsSettings {
    let text = match std::env::var(RECORD_LAYER) {
        Ok(layer) => format!("record_layer: {layer}"),
        Err(_) => String::new(),
    };
    TlsSettings::new(&Config::from_text("test.yaml", &text).unwrap())
}

/// An issuer of test certificates.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    /// A self-signed root called `name`.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// This root in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The bundle that trusts this root alone.
    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::from_pem(trust_domain(), self.issuer.pem().as_bytes()).unwrap()
    }

    /// A leaf for `id`, valid now, and its key.
    pub(crate) fn leaf(&self, id: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A leaf for `id`, valid now, as credentials.
    pub(crate) fn svid(&self, id: &str) -> Svid {
        let (leaf, key) = self.leaf(id);
        let key = PrivateKey::from_pem(key.serialize_pem().as_bytes()).unwrap();
        Svid::new(vec![leaf.der().clone()], key).unwrap()
    }

    /// Credentials of the service account `name` in the namespace `ignite`, trusting `bundle`.
    pub(crate) fn credentials_trusting(&self, name: &str, bundle: TrustBundle) -> Arc<Credentials> {
        let id = SpiffeId::for_service_account(&trust_domain(), "ignite", name).unwrap();
        let svid = Arc::new(self.svid(id.as_str()));
        Arc::new(Credentials::new(svid, Arc::new(bundle), 1, &tls_settings()).unwrap())
    }

    /// Credentials of the service account `name` in the namespace `ignite`, trusting this root.
    pub(crate) fn credentials(&self, name: &str) -> Arc<Credentials> {
        self.credentials_trusting(name, self.bundle())
    }
}

/// Two ends of one TCP connection over loopback.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (connected, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (connected.unwrap(), accepted.unwrap().0)
}

/// More than any test opens.
const ENOUGH_CONNECTIONS: usize = 10_000;

/// A worker's context with `settings` (YAML) and `policy` (YAML documents).
pub(crate) fn context(credentials: &Arc<Credentials>, settings: &str, policy: &str) -> Handles {
    let config = Arc::new(Config::from_text("test.yaml", settings).unwrap());
    let (snapshots, snapshots_rx) = watch::channel(Some(snapshot(policy, 1)));
    let (credentials, credentials_rx) = watch::channel(Some(Arc::clone(credentials)));
    let (access_log, lines) = AccessLog::collecting();
    let ledger = Arc::new(Ledger::new(access_log));
    let context = Rc::new(Context {
        own: Own::new(&config),
        ledgers: [Arc::clone(&ledger)].into(),
        ledger,
        limits: Limits::new(&config, ENOUGH_CONNECTIONS),
        config,
        snapshots: snapshots_rx,
        asker: ringmail_proxy::discovery::Asker::nobody(),
        credentials: credentials_rx,
        fence: Fence::off(),
        registry: Rc::new(Registry::default()),
    });
    Handles { context, snapshots, credentials, lines }
}

/// A context with the senders that change what it decides by.
pub(crate) struct Handles {
    pub(crate) context: Rc<Context>,
    pub(crate) snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub(crate) credentials: watch::Sender<Option<Arc<Credentials>>>,
    pub(crate) lines: ringmail_proxy::access_log::Lines,
}

/// Policies compiled for the pod `ignite/n1` at 10.77.0.1.
pub(crate) fn snapshot(policy: &str, version: u64) -> Arc<Snapshot> {
    let resources = Resources::parse([("policy.yaml", policy)]).unwrap();
    let settings = Settings::new(trust_domain());
    let pod = Pod {
        namespace: "ignite".to_owned(),
        labels: [("app".to_owned(), "ignite".to_owned())].into(),
        service_account: "n1".to_owned(),
        addresses: vec![IpAddr::from([10, 77, 0, 1])],
    };
    Arc::new(Snapshot {
        version,
        inbound: Arc::new(Inbound::compile(&resources, &settings, &pod)),
        outbound: Arc::new(Outbound::compile_for(&resources, &settings, &pod)),
    })
}
