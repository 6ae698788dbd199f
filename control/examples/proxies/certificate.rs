//! A proxy's certificate, over the protocol that proxies speak with the CA.

use std::time::{Duration, Instant};

use anyhow::ensure;
use http::uri::PathAndQuery;
use ringmail_ca::messages::{CREATE_CERTIFICATE_PATH, IstioCertificateRequest, IstioCertificateResponse};
use ringmail_identity::PrivateKey;
use tonic::{Request, client::Grpc};
use tonic_prost::ProstCodec;

use crate::connection::Target;

/// The life that is asked for: a workload's.
const TTL_SECONDS: i64 = 24 * 3600;

/// Asks for one on a connection of its own, as a proxy does. Answers how long it took, its key aside.
pub(crate) async fn obtain(ca: Target, proxy: usize, token: String) -> anyhow::Result<Duration> {
    let csr = PrivateKey::generate()?.csr_pem(None)?;
    let began = Instant::now();
    let mut client = Grpc::new(ca.connect(proxy).await?);
    client.ready().await?;
    let message =
        IstioCertificateRequest { csr, validity_duration: TTL_SECONDS, ..IstioCertificateRequest::default() };
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    let path = PathAndQuery::from_static(CREATE_CERTIFICATE_PATH);
    let answer: tonic::Response<IstioCertificateResponse> =
        client.unary(request, path, ProstCodec::default()).await?;
    let chain = answer.into_inner().cert_chain;
    ensure!(chain.len() >= 2, "{} certificates: expected a leaf and its root at least", chain.len());
    Ok(began.elapsed())
}
