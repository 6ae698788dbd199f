//! The CA as a source, over the same protocol as for a workload. The CA alone decides under which names we serve.

use std::{io, path::Path, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use ringmail_ca::messages::{CREATE_CERTIFICATE_PATH, IstioCertificateRequest, IstioCertificateResponse};
use ringmail_identity::PrivateKey;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    Extensions, Request,
    metadata::{AsciiMetadataValue, MetadataMap},
    transport::{Channel, Endpoint},
};

use zeroize::Zeroizing;

use super::{Held, ServingError, pair};

/// From the first SYN to the answer. A CA that asks Kubernetes about the token may take seconds.
const DEADLINE: Duration = Duration::from_secs(10);
/// The life that is asked for: as long as a workload's.
const TTL: Duration = Duration::from_hours(24);
/// Bytes of an answer: a chain of ten certificates and sixteen roots stay well below.
const MAX_ANSWER: usize = 256 * 1024;

pub(super) async fn issue(address: &str, roots: &Path, token: &Path) -> Result<Held, ServingError> {
    let failed = |error: String| ServingError::Ca { ca: address.to_owned(), error };
    let file = |path: &Path| {
        std::fs::read(path)
            .map_err(|error| ServingError::File { path: path.to_owned(), error: error.to_string() })
    };
    let (roots, token) = (file(roots)?, Zeroizing::new(file(token)?));
    let key = PrivateKey::generate().map_err(|error| failed(error.to_string()))?;
    let csr = key.csr_pem(None).map_err(|error| failed(error.to_string()))?;
    let asked = timeout(DEADLINE, ask(address, &roots, &token, csr)).await;
    let answer = asked.map_err(|_| failed(format!("nothing within {DEADLINE:?}")))?.map_err(failed)?;
    match answer.cert_chain.split_last() {
        Some((_roots, chain)) if !chain.is_empty() => {
            pair(chain.join("\n").as_bytes(), key.to_pem().as_bytes())
        }
        Some(_) | None => {
            Err(failed(format!("{} certificates, expected two at least", answer.cert_chain.len())))
        }
    }
}

async fn ask(
    address: &str,
    roots: &[u8],
    token: &[u8],
    csr: String,
) -> Result<IstioCertificateResponse, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let token = std::str::from_utf8(token).map_err(|_| "the token is not text")?.trim();
    let mut bearer: AsciiMetadataValue =
        Zeroizing::new(format!("Bearer {token}")).parse().map_err(|_| "the token is no header")?;
    bearer.set_sensitive(true);
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", bearer);
    let channel = connect(address, roots).await?;
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
    client.ready().await.map_err(|error| text(&error))?;
    let validity_duration = i64::try_from(TTL.as_secs()).unwrap_or(i64::MAX);
    let message = IstioCertificateRequest { csr, validity_duration, ..IstioCertificateRequest::default() };
    let request = Request::from_parts(metadata, Extensions::default(), message);
    let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE_PATH);
    let answer = client.unary(request, path, tonic_prost::ProstCodec::default()).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| format!("{:?}: {}", status.code(), status.message()))
}

async fn connect(address: &str, roots: &[u8]) -> Result<Channel, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let (host, _) = address.rsplit_once(':').ok_or("expected host:port")?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|error| text(&error))?;
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots) {
        let root = root.map_err(|error| error.to_string())?;
        store.add(root).map_err(|error| text(&error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let mut config =
        config.map_err(|error| text(&error))?.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let target = address.to_owned();
    let endpoint = Endpoint::from(Uri::try_from(format!("https://{address}")).map_err(|error| text(&error))?);
    let dial = tower::service_fn(move |_: Uri| {
        let (connector, target, name) = (connector.clone(), target.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(target).await?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    endpoint.connect_with_connector(dial).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        cause.unwrap_or_else(|| error.to_string())
    })
}
