//! A connection to a server of the control plane: the CA, or discovery.
//!
//! Such a server is no workload: it is verified by DNS name under the mounted roots, as istiod is.
//! Roots and token are read afresh for each connection, so that a rotation of either needs no restart.
//! Dialling by ourselves gives each failure its own reason.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    metadata::{AsciiMetadataValue, MetadataMap},
    transport::{Channel, Endpoint},
};
use zeroize::Zeroizing;

use crate::{
    config::Config,
    outside::{TcpStream, lookup_host, random},
    watched_file::{FileError, read_bounded},
};

/// A dropped SYN is tried again by the kernel after 1 s and 3 s: one more chance, then it counts as away.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// What each of several addresses gets at least, so that one which does not answer is not the only one tried: a
/// connect within a cluster takes milliseconds.
const ADDRESS_SHARE_MIN: Duration = Duration::from_secs(1);
/// Bytes of the file of roots: sixteen roots are about 40 KiB.
pub(crate) const MAX_ROOTS_FILE: usize = 1024 * 1024;
/// Bytes of a token: Kubernetes' own have about 1 KiB.
const MAX_TOKEN: usize = 16 * 1024;

pub(crate) const H2: &[u8] = b"h2";

/// What a server does for the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Ca,
    Discovery,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ca => "ca",
            Self::Discovery => "discovery",
        })
    }
}

/// Where a server is, and what it is asked with.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) role: Role,
    /// `host:port`.
    pub(crate) authority: String,
    /// The DNS name (or IP address) its certificate must carry.
    pub(crate) server_name: ServerName<'static>,
    /// PEM of the roots it is verified under.
    pub(crate) root_file: PathBuf,
    /// The bearer token.
    pub(crate) token_file: PathBuf,
    /// The cluster's name, for a server of several.
    pub(crate) cluster: String,
}

/// Why there is no session with a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// The roots under which the server is verified are not there.
    #[error("roots of the {role}: {cause}")]
    Roots {
        /// Whose.
        role: Role,
        /// Why.
        cause: RootsError,
    },
    /// The TLS handshake failed.
    #[error("tls with {server} as {server_name}: {cause}")]
    Tls {
        /// What it does, and its address.
        server: String,
        /// The name its certificate must carry.
        server_name: String,
        /// What rustls said.
        cause: io::Error,
    },
    /// The bearer token cannot be read.
    #[error("bearer token: {0}")]
    Token(#[from] TokenError),
    /// The session broke.
    #[error("session with {server}: {cause}")]
    Transport {
        /// What it does, and its address.
        server: String,
        /// What broke.
        cause: tonic::transport::Error,
    },
    /// No connection.
    #[error("{server} cannot be reached: {cause}")]
    Unreachable {
        /// What it does, and its address.
        server: String,
        /// What the system said.
        cause: io::Error,
    },
}

/// Why there are no roots to verify a server under.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not what it should be.
    #[error("{path}: {cause}, expected root certificates in pem", path = path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// Why there is no bearer token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is empty or holds what no header can carry. Its content is never shown.
    #[error("{path}: {read}, expected one token of visible ascii", path = path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What was read, in words.
        read: &'static str,
    },
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.authority)
    }
}

impl Server {
    /// The CA that the settings name.
    pub(crate) fn ca(config: &Config) -> Self {
        Self::of(Role::Ca, &config.ca_address, &config.ca_server_name, config)
    }

    /// The server of discovery that the settings name.
    pub(crate) fn discovery(config: &Config) -> Self {
        Self::of(Role::Discovery, &config.discovery_address, &config.discovery_server_name, config)
    }

    fn of(role: Role, address: &Uri, server_name: &ServerName<'static>, config: &Config) -> Self {
        Self {
            role,
            authority: address.authority().map(ToString::to_string).unwrap_or_default(),
            server_name: server_name.clone(),
            root_file: config.ca_root_file.clone(),
            token_file: config.token_file.clone(),
            cluster: config.cluster.clone(),
        }
    }

    /// The metadata that says who asks.
    pub(crate) fn metadata(&self) -> Result<MetadataMap, ServerError> {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", self.token()?);
        if let Ok(cluster) = AsciiMetadataValue::try_from(&self.cluster) {
            metadata.insert("clusterid", cluster);
        }
        Ok(metadata)
    }

    /// A channel over one connection of its own.
    pub(crate) async fn connect(&self) -> Result<Channel, ServerError> {
        let tls = self.tls()?;
        let stream = self.dial().await?;
        let stream = self.handshake(tls, stream).await?;
        self.channel(stream).await.map_err(|cause| self.broken(cause))
    }

    /// What it means that the session broke.
    pub(crate) fn broken(&self, cause: tonic::transport::Error) -> ServerError {
        ServerError::Transport { server: self.to_string(), cause }
    }

    fn token(&self) -> Result<AsciiMetadataValue, ServerError> {
        let content = read_bounded(&self.token_file, MAX_TOKEN)
            .map_err(|error| ServerError::Token(TokenError::File(error)))?;
        let refused = |read| ServerError::Token(TokenError::Content { path: self.token_file.clone(), read });
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

    fn tls(&self) -> Result<Arc<ClientConfig>, ServerError> {
        let pem = read_bounded(&self.root_file, MAX_ROOTS_FILE)
            .map_err(|error| ServerError::Roots { role: self.role, cause: RootsError::File(error) })?;
        let refused = |cause: String| ServerError::Roots {
            role: self.role,
            cause: RootsError::Content { path: self.root_file.clone(), cause },
        };
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

    async fn dial(&self) -> Result<TcpStream, ServerError> {
        let unreachable = |cause| ServerError::Unreachable { server: self.to_string(), cause };
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
    ) -> Result<TlsStream<TcpStream>, ServerError> {
        let name = self.server_name.clone();
        TlsConnector::from(config).connect(name, stream).await.map_err(|cause| self.tls_error(cause))
    }

    /// A gRPC channel over the one stream that is already there.
    async fn channel(&self, stream: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
        let origin = Uri::builder().scheme("https").authority(self.authority.as_str()).path_and_query("/");
        let mut endpoint = Endpoint::from_static("http://control-plane");
        if let Ok(origin) = origin.build() {
            endpoint = endpoint.origin(origin);
        }
        let mut stream = Some(TokioIo::new(stream));
        let once = tower::service_fn(move |_: Uri| {
            let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        endpoint.connect_with_connector(once).await
    }

    fn tls_error(&self, cause: io::Error) -> ServerError {
        ServerError::Tls {
            server: self.to_string(),
            server_name: self.server_name.to_str().into_owned(),
            cause,
        }
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
