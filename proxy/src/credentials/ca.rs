//! The CA as a source: `istio.v1.auth.IstioCertificateService/CreateCertificate` over TLS 1.3.
//!
//! The CA's server is no workload: it is verified by DNS name under the mounted roots, as istiod is.
//! Roots and token are read afresh for each attempt, so that a rotation of either needs no restart.
//! Each attempt has a connection of its own: it is used once in half a certificate's life, and dialling
//! by ourselves gives each failure its own reason.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use ringmail_identity::PrivateKey;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};
use zeroize::Zeroizing;

use super::{
    schedule::random,
    source::{IssueError, Issued, RootsError, Source, TokenError},
};
use crate::{config::Config, watched_file::read_bounded};

/// A dropped SYN is tried again by the kernel after 1 s and 3 s: one more chance, then it counts as away.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// What each of several addresses gets at least, so that one which does not answer is not the only one tried: a
/// connect within a cluster takes milliseconds.
const ADDRESS_SHARE_MIN: Duration = Duration::from_secs(1);
/// From the first SYN to the answer. A CA that signs takes milliseconds; one that asks Kubernetes about
/// the token may take seconds.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an answer: a chain of ten RSA-4096 certificates and sixteen such roots stay well below.
const MAX_ANSWER: usize = 256 * 1024;
/// Bytes of the file of roots: sixteen roots are about 40 KiB.
pub(crate) const MAX_ROOTS_FILE: usize = 1024 * 1024;
/// Bytes of a token: Kubernetes' own have about 1 KiB.
const MAX_TOKEN: usize = 16 * 1024;
/// Characters of the CA's words that are repeated in a log line.
const MAX_MESSAGE: usize = 300;

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const H2: &[u8] = b"h2";

/// `istio.v1.auth.IstioCertificateRequest`. Field 2 is unused, and field 4 (`metadata`) tells node
/// proxies' impersonation, which a sidecar has no need of.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CertificateRequest {
    /// PKCS#10 in PEM.
    #[prost(string, tag = "1")]
    pub(crate) csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    pub(crate) validity_duration: i64,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CertificateResponse {
    /// PEM: the leaf, then intermediates, and last the root or roots, which may stand in one entry.
    #[prost(string, repeated, tag = "1")]
    pub(crate) cert_chain: Vec<String>,
}

/// Where the CA is and what it is asked with.
#[derive(Clone, Debug)]
pub(crate) struct Ca {
    /// `host:port`.
    pub(crate) authority: String,
    /// The DNS name (or IP address) its certificate must carry.
    pub(crate) server_name: ServerName<'static>,
    /// PEM of the roots it is verified under.
    pub(crate) root_file: PathBuf,
    /// The bearer token.
    pub(crate) token_file: PathBuf,
    /// The life that is asked for.
    pub(crate) ttl: Duration,
    /// The cluster's name, for a CA that serves several.
    pub(crate) cluster: String,
}

impl Source for Ca {
    async fn issue(&self) -> Result<Issued, IssueError> {
        let deadline = Instant::now() + ATTEMPT_DEADLINE;
        let token = self.token()?;
        let tls = self.tls()?;
        let key = PrivateKey::generate()?;
        let csr = key.csr_pem(None)?;
        let stream = self.dial().await?;
        let too_late = |_| IssueError::Deadline { ca: self.authority.clone(), after: ATTEMPT_DEADLINE };
        let answer = timeout_at(deadline, async {
            let stream = self.handshake(tls, stream).await?;
            self.ask(stream, csr, token).await
        });
        let chain = answer.await.map_err(too_late)??.cert_chain;
        self.issued(&chain, &key)
    }
}

impl Ca {
    /// The CA that the settings name.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            authority: config.ca_address.authority().map(ToString::to_string).unwrap_or_default(),
            server_name: config.ca_server_name.clone(),
            root_file: config.ca_root_file.clone(),
            token_file: config.token_file.clone(),
            ttl: config.certificate_ttl,
            cluster: config.cluster.clone(),
        }
    }

    fn token(&self) -> Result<AsciiMetadataValue, IssueError> {
        let content = read_bounded(&self.token_file, MAX_TOKEN)
            .map_err(|error| IssueError::Token(TokenError::File(error)))?;
        let refused = |read| IssueError::Token(TokenError::Content { path: self.token_file.clone(), read });
        let token = content.trim_ascii();
        if token.is_empty() {
            return Err(refused("nothing"));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(refused("other characters"));
        }
        let header = Zeroizing::new([b"Bearer ", token].concat());
        let mut value =
            AsciiMetadataValue::try_from(header.as_slice()).map_err(|_| refused("other characters"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, IssueError> {
        let pem = read_bounded(&self.root_file, MAX_ROOTS_FILE)
            .map_err(|error| IssueError::Roots(RootsError::File(error)))?;
        let refused =
            |cause: String| IssueError::Roots(RootsError::Content { path: self.root_file.clone(), cause });
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&pem) {
            let root = root.map_err(|error| refused(error.to_string()))?;
            roots.add(root).map_err(|error| refused(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(refused("no certificate".to_owned()));
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.tls_error(io::Error::other(error)))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(Arc::new(config))
    }

    async fn dial(&self) -> Result<TcpStream, IssueError> {
        let unreachable = |cause| IssueError::Unreachable { ca: self.authority.clone(), cause };
        let deadline = Instant::now() + CONNECT_DEADLINE;
        let addresses: Vec<SocketAddr> = match timeout_at(deadline, lookup_host(&self.authority)).await {
            Ok(found) => found.map_err(unreachable)?.collect(),
            Err(_) => return Err(unreachable(no_answer("no answer of the resolver", CONNECT_DEADLINE))),
        };
        let stream = dial_any(&addresses, deadline, random()).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(stream)
    }

    async fn handshake(
        &self,
        config: Arc<ClientConfig>,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, IssueError> {
        let name = self.server_name.clone();
        TlsConnector::from(config).connect(name, stream).await.map_err(|cause| self.tls_error(cause))
    }

    async fn ask(
        &self,
        stream: TlsStream<TcpStream>,
        csr: String,
        token: AsciiMetadataValue,
    ) -> Result<CertificateResponse, IssueError> {
        let broken = |cause| IssueError::Transport { ca: self.authority.clone(), cause };
        let channel = self.channel(stream).await.map_err(broken)?;
        let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
        client.ready().await.map_err(broken)?;
        let validity_duration = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        let mut request = Request::new(CertificateRequest { csr, validity_duration });
        request.metadata_mut().insert("authorization", token);
        if let Ok(cluster) = AsciiMetadataValue::try_from(&self.cluster) {
            request.metadata_mut().insert("clusterid", cluster);
        }
        let codec = tonic_prost::ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static(METHOD);
        match client.unary(request, path, codec).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(self.refused(&status)),
        }
    }

    /// A gRPC channel over the one stream that is already there.
    async fn channel(&self, stream: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
        let origin =
            http::Uri::builder().scheme("https").authority(self.authority.as_str()).path_and_query("/");
        let mut endpoint = Endpoint::from_static("http://ca");
        if let Ok(origin) = origin.build() {
            endpoint = endpoint.origin(origin);
        }
        let mut stream = Some(TokioIo::new(stream));
        let once = tower::service_fn(move |_: http::Uri| {
            let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        endpoint.connect_with_connector(once).await
    }

    fn issued(&self, chain: &[String], key: &PrivateKey) -> Result<Issued, IssueError> {
        let (roots, certificates) = match chain.split_last() {
            Some((roots, certificates)) if !certificates.is_empty() => (roots, certificates),
            Some(_) | None => {
                return Err(IssueError::Answer { ca: self.authority.clone(), count: chain.len() });
            }
        };
        Ok(Issued {
            chain: certificates.join("\n").into_bytes(),
            key: Zeroizing::new(key.to_pem().as_bytes().to_vec()),
            roots: roots.clone().into_bytes(),
        })
    }

    fn tls_error(&self, cause: io::Error) -> IssueError {
        IssueError::Tls {
            ca: self.authority.clone(),
            server_name: self.server_name.to_str().into_owned(),
            cause,
        }
    }

    fn refused(&self, status: &tonic::Status) -> IssueError {
        let message = status.message().chars().filter(|char| !char.is_control()).take(MAX_MESSAGE).collect();
        IssueError::Refused { ca: self.authority.clone(), code: status.code(), message }
    }
}

/// Connects to the first of `addresses` that answers. Each has its share of what is left, and `random` (in 0..1)
/// says which is first: one that swallows what is sent to it must not stand before the others for ever.
async fn dial_any(addresses: &[SocketAddr], deadline: Instant, random: f64) -> io::Result<TcpStream> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small number")]
    let first = (addresses.len() as f64 * random) as usize;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let order = addresses.iter().cycle().skip(first).take(addresses.len());
    for (left, address) in (1..=addresses.len()).rev().zip(order) {
        let now = Instant::now();
        if now >= deadline {
            break;
        }
        let share = (deadline - now) / u32::try_from(left).unwrap_or(u32::MAX);
        let share = share.max(ADDRESS_SHARE_MIN);
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => no_answer(&format!("no answer of {address}"), share),
        };
    }
    Err(last)
}

fn no_answer(what: &str, within: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {:.1} s", within.as_secs_f64()))
}

#[cfg(test)]
mod tests;
