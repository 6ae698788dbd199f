//! An authority and a clock for the tests of this module.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use ringmail_identity::{SpiffeId, TrustDomain};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};
use time::OffsetDateTime;
use tokio::{sync::watch, time::Instant};
use zeroize::Zeroizing;

use super::{
    publisher::{Clock, Publisher},
    source::Issued,
    status::Status,
};
use crate::{control_plane::H2, tls::CredentialsRx};

pub(super) const OWN: &str = "spiffe://cluster.local/ns/ignite/sa/node";
/// As the CA dates back.
const BACK: Duration = Duration::from_secs(120);

pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: String,
}

impl TestCa {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), root }
    }

    pub(super) fn issue(&self, id: &str, now: SystemTime, life: Duration) -> Issued {
        let key = KeyPair::generate().unwrap();
        let leaf =
            profile(CertificateParams::default(), id, now, life).signed_by(&key, &self.issuer).unwrap();
        Issued {
            chain: leaf.pem().into_bytes(),
            key: Zeroizing::new(key.serialize_pem().into_bytes()),
            roots: self.root.clone().into_bytes(),
        }
    }

    /// Takes the public key of a request and nothing else.
    pub(super) fn sign(&self, csr: &str, id: &str, life: Duration) -> Certificate {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        request.params = profile(CertificateParams::default(), id, SystemTime::now(), life);
        request.signed_by(&self.issuer).unwrap()
    }

    /// What a server of this DNS name speaks TLS and HTTP/2 with. It asks nobody for a certificate.
    pub(crate) fn server(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        config.alpn_protocols = vec![H2.to_vec()];
        config
    }
}

fn profile(mut params: CertificateParams, id: &str, now: SystemTime, life: Duration) -> CertificateParams {
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = OffsetDateTime::from(now - BACK);
    params.not_after = OffsetDateTime::from(now + life);
    params
}

/// A wall clock that goes with tokio's and can be put forward and back.
#[derive(Clone)]
pub(super) struct TestClock {
    base: SystemTime,
    start: Instant,
    step: Arc<AtomicI64>,
}

impl TestClock {
    pub(super) fn new() -> Self {
        // Certificates have whole seconds.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        Self { base, start: Instant::now(), step: Arc::default() }
    }

    pub(super) fn now(&self) -> SystemTime {
        let steady = self.base + self.start.elapsed();
        let step = self.step.load(Ordering::Relaxed);
        let by = Duration::from_secs(step.unsigned_abs());
        if step < 0 { steady - by } else { steady + by }
    }

    /// Puts the wall clock off by so many seconds.
    pub(super) fn step(&self, seconds: i64) {
        self.step.store(seconds, Ordering::Relaxed);
    }

    pub(super) fn clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

/// A publisher for [`OWN`], what it publishes to, and its books.
pub(super) fn publisher() -> (Publisher, CredentialsRx, Arc<Status>) {
    let (sender, receiver) = watch::channel(None);
    let status = Arc::new(Status::default());
    let own: SpiffeId = OWN.parse().unwrap();
    let trust_domain: TrustDomain = "cluster.local".parse().unwrap();
    (Publisher::new(own, trust_domain, sender, Arc::clone(&status)), receiver, status)
}
