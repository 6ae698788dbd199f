//! One question to the application over its own address, and what came of it.

use std::{io, net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::table::{Grpc, Handler, HttpGet, Probe, Scheme};

/// Headers of the kubelet's request that go to the application: how it knows a probe.
const PASSED_ON: [header::HeaderName; 1] = [header::USER_AGENT];

/// gRPC's health protocol.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// `ServingStatus.SERVING`.
const SERVING: i32 = 1;

/// What the application answered: a status for the kubelet, and a line for whoever describes the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("grpc: {0}")]
    Grpc(tonic::Status),
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    #[error("expected a service that is serving, got status {0}")]
    NotServing(i32),
    #[error("request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("tls: {0}")]
    Tls(io::Error),
    #[error("session: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Asks the application at `own`, the pod's address. `headers` are those of the kubelet's request.
pub(crate) async fn ask(probe: &Probe, own: IpAddr, headers: &HeaderMap) -> Verdict {
    let asked = async {
        match &probe.handler {
            Handler::Grpc(grpc) => ask_grpc(grpc, own).await,
            Handler::HttpGet(get) => ask_http(get, own, headers).await,
            Handler::TcpSocket(socket) => connect(own, socket.port).await.map(|_stream| StatusCode::OK),
        }
    };
    match timeout(probe.timeout(), asked).await {
        Ok(Ok(status)) => Verdict { status, text: format!("the application answered {status}\n") },
        Ok(Err(error)) => failed(&error.to_string()),
        Err(_elapsed) => failed(&format!("no answer within {:?}", probe.timeout())),
    }
}

fn failed(why: &str) -> Verdict {
    Verdict {
        status: StatusCode::SERVICE_UNAVAILABLE,
        text: format!("the application did not answer: {why}\n"),
    }
}

async fn connect(own: IpAddr, port: u16) -> Result<TcpStream, AskError> {
    TcpStream::connect((own, port)).await.map_err(AskError::Connect)
}

async fn ask_http(get: &HttpGet, own: IpAddr, headers: &HeaderMap) -> Result<StatusCode, AskError> {
    let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    let host = match own {
        IpAddr::V4(own) => format!("{own}:{}", get.port),
        IpAddr::V6(own) => format!("[{own}]:{}", get.port),
    };
    let mut request = Request::get(path);
    // A probe's own headers win, `Host` among them.
    let is_own = |name: &str| get.http_headers.iter().any(|own| own.name.eq_ignore_ascii_case(name));
    if !is_own(header::HOST.as_str()) {
        request = request.header(header::HOST, host);
    }
    for name in PASSED_ON.iter().filter(|name| !is_own(name.as_str())) {
        for value in headers.get_all(name) {
            request = request.header(name, value);
        }
    }
    for own in &get.http_headers {
        request = request.header(&own.name, &own.value);
    }
    let request = request.header(header::CONNECTION, "close").body(Empty::<Bytes>::new())?;
    let stream = connect(own, get.port).await?;
    match get.scheme {
        Scheme::Http => exchange(stream, request).await,
        Scheme::Https => {
            let name = ServerName::IpAddress(own.into());
            let stream = TlsConnector::from(tls()?).connect(name, stream).await.map_err(AskError::Tls)?;
            exchange(stream, request).await
        }
    }
}

/// The status alone: what else the application says is between it and its own clients.
async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<StatusCode, AskError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    let answer = tokio::select! {
        answer = &mut answer => answer?,
        ended = &mut connection => {
            ended?;
            // An answer that came with the end is there already; without one this is the error that says so.
            answer.await?
        }
    };
    Ok(answer.status())
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn ask_grpc(grpc: &Grpc, own: IpAddr) -> Result<StatusCode, AskError> {
    let mut stream = Some(TokioIo::new(connect(own, grpc.port).await?));
    let once = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    let channel =
        tonic::transport::Endpoint::from_static("http://application").connect_with_connector(once).await?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let request = HealthCheckRequest { service: grpc.service.clone().unwrap_or_default() };
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = http::uri::PathAndQuery::from_static(HEALTH_CHECK);
    let answer = client.unary(tonic::Request::new(request), path, codec).await.map_err(AskError::Grpc)?;
    match answer.into_inner().status {
        SERVING => Ok(StatusCode::OK),
        other => Err(AskError::NotServing(other)),
    }
}

/// TLS as the kubelet speaks it to a probed port: whoever answers there is believed.
fn tls() -> Result<Arc<ClientConfig>, AskError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms.supported_schemes();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| AskError::Tls(io::Error::other(error)))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { algorithms }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Believes every certificate. Nothing secret is sent, and the answer decides about this pod's own health alone.
#[derive(Debug)]
struct Anybody {
    algorithms: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.clone()
    }
}

#[cfg(test)]
mod tests;
