//! A proxy's connection to control or to the CA: TLS 1.3 under the mesh's roots, HTTP/2.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// One of the two servers, and how it is reached.
#[derive(Clone)]
pub(crate) struct Target {
    connector: TlsConnector,
    address: SocketAddr,
    name: ServerName<'static>,
    /// At least one.
    sources: Vec<IpAddr>,
}

impl Target {
    /// The server at `address`, verified as `name` under the roots in `pem`, from each of `sources` in turn.
    pub(crate) fn new(
        address: SocketAddr,
        name: String,
        pem: &str,
        sources: Vec<IpAddr>,
    ) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(root?)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let mut config =
            config.with_protocol_versions(&[&TLS13])?.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            address,
            name: ServerName::try_from(name)?,
            sources,
        })
    }

    /// A connection of its own for the proxy of this number.
    pub(crate) async fn connect(&self, proxy: usize) -> anyhow::Result<Channel> {
        let target = self.clone();
        let dial = tower::service_fn(move |_: Uri| {
            let target = target.clone();
            async move {
                let stream = target.dial(proxy).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(target.connector.connect(target.name.clone(), stream).await?))
            }
        });
        Ok(Endpoint::from_static("https://server").connect_with_connector(dial).await?)
    }

    async fn dial(&self, proxy: usize) -> io::Result<TcpStream> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(self.sources[proxy % self.sources.len()], 0))?;
        socket.connect(self.address).await
    }
}
