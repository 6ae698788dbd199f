//! A CA behind TLS and gRPC on the simulated network, that does as it is told.

use std::{
    convert::Infallible,
    fs,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

use super::world::{PORT, now};
use crate::{
    control_plane::H2,
    credentials::ca::{CertificateRequest, CertificateResponse},
};

pub(super) const OWN: &str = "spiffe://cluster.local/ns/ignite/sa/node";
pub(super) const SERVER: &str = "ringmail-ca.ringmail-system.svc";
/// As the CA dates back.
const BACK: Duration = Duration::from_secs(120);

/// What a replica does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Does {
    Answers,
    SaysBusy,
    Stalls,
}

/// What one replica does now. A clone is of the same replica.
#[derive(Clone)]
pub(super) struct Conduct(Arc<AtomicU8>);

impl Conduct {
    pub(super) fn answering() -> Self {
        Self(Arc::new(AtomicU8::new(Does::Answers as u8)))
    }

    pub(super) fn is(&self, does: Does) {
        self.0.store(does as u8, Ordering::Relaxed);
    }

    fn does(&self, what: Does) -> bool {
        self.0.load(Ordering::Relaxed) == what as u8
    }
}

/// The key of both replicas.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
    tls: Arc<ServerConfig>,
    ttl: Duration,
}

impl Authority {
    pub(super) fn new(ttl: Duration) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "simulated");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let tls = Arc::new(tls(&issuer));
        Self { issuer, root, tls, ttl }
    }

    /// What a proxy mounts.
    pub(super) fn files(&self) -> tempfile::TempDir {
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("root.pem"), &self.root).unwrap();
        fs::write(files.path().join("token"), "good\n").unwrap();
        files
    }

    fn issue(&self, csr: &str) -> CertificateResponse {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(OWN.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (now() - BACK).into();
        params.not_after = (now() + self.ttl).into();
        request.params = params;
        let leaf = request.signed_by(&self.issuer).unwrap().pem();
        CertificateResponse { cert_chain: vec![leaf, self.root.clone()] }
    }
}

fn tls(issuer: &Issuer<'_, KeyPair>) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([SERVER.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
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

/// One replica.
pub(super) async fn serve(authority: Arc<Authority>, conduct: Conduct) -> turmoil::Result {
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (authority, conduct) = (Arc::clone(&authority), conduct.clone());
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::clone(&authority.tls));
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let replica = Replica { authority: Arc::clone(&authority), conduct: conduct.clone() };
                async move {
                    let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
                    Ok::<_, Infallible>(grpc.unary(replica, request.map(tonic::body::Body::new)).await)
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // Whoever asked may be gone.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

struct Replica {
    authority: Arc<Authority>,
    conduct: Conduct,
}

impl tonic::server::UnaryService<CertificateRequest> for Replica {
    type Response = CertificateResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CertificateResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let (authority, conduct) = (Arc::clone(&self.authority), self.conduct.clone());
        Box::pin(async move {
            if conduct.does(Does::Stalls) {
                std::future::pending::<()>().await;
            }
            if conduct.does(Does::SaysBusy) {
                return Err(Status::resource_exhausted("busy"));
            }
            Ok(Response::new(authority.issue(&request.into_inner().csr)))
        })
    }
}
