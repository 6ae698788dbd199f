//! The CA as a source: `istio.v1.auth.IstioCertificateService/CreateCertificate` over TLS 1.3.
//!
//! Each attempt has a connection of its own: it is used once in half a certificate's life.

use std::time::Duration;

use ringmail_identity::PrivateKey;
use tokio::time::{Instant, timeout_at};
use tonic::{Extensions, Request, metadata::MetadataMap, transport::Channel};
use zeroize::Zeroizing;

use super::source::{IssueError, Issued, Source};
use crate::{config::Config, control_plane::Server};

/// From the first SYN to the answer. A CA that signs takes milliseconds; one that asks Kubernetes about
/// the token may take seconds.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an answer: a chain of ten RSA-4096 certificates and sixteen such roots stay well below.
const MAX_ANSWER: usize = 256 * 1024;
/// Characters of the CA's words that are repeated in a log line.
const MAX_MESSAGE: usize = 300;

/// By how much a CA of this protocol dates certificates back: istiod and ringmail-ca do so alike.
pub(super) const DATED_BACK: Duration = Duration::from_secs(120);

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

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
    /// What a later version asks besides.
    #[cfg(feature = "next-schema")]
    #[prost(string, tag = "100")]
    pub(crate) more: String,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CertificateResponse {
    /// PEM: the leaf, then intermediates, and last the root or roots, which may stand in one entry.
    #[prost(string, repeated, tag = "1")]
    pub(crate) cert_chain: Vec<String>,
}

/// The CA, and what it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ca {
    pub(crate) server: Server,
    /// The life that is asked for.
    pub(crate) ttl: Duration,
}

impl Source for Ca {
    async fn issue(&self) -> Result<Issued, IssueError> {
        let deadline = Instant::now() + ATTEMPT_DEADLINE;
        let metadata = self.server.metadata()?;
        let key = PrivateKey::generate()?;
        let csr = key.csr_pem(None)?;
        let too_late =
            |_| IssueError::Deadline { ca: self.server.authority.clone(), after: ATTEMPT_DEADLINE };
        let answer = timeout_at(deadline, async {
            let channel = self.server.connect().await?;
            self.ask(channel, csr, metadata).await
        });
        let chain = answer.await.map_err(too_late)??.cert_chain;
        self.issued(&chain, &key)
    }
}

impl Ca {
    /// The CA that the settings name.
    pub(crate) fn new(config: &Config) -> Self {
        Self { server: Server::ca(config), ttl: config.certificate_ttl }
    }

    async fn ask(
        &self,
        channel: Channel,
        csr: String,
        metadata: MetadataMap,
    ) -> Result<CertificateResponse, IssueError> {
        let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
        client.ready().await.map_err(|cause| self.server.broken(cause))?;
        let validity_duration = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        let message = CertificateRequest {
            csr,
            validity_duration,
            #[cfg(feature = "next-schema")]
            more: "asked by the next version".to_owned(),
        };
        let request = Request::from_parts(metadata, Extensions::default(), message);
        let codec = tonic_prost::ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static(METHOD);
        match client.unary(request, path, codec).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(self.refused(&status)),
        }
    }

    fn issued(&self, chain: &[String], key: &PrivateKey) -> Result<Issued, IssueError> {
        let (roots, certificates) = match chain.split_last() {
            Some((roots, certificates)) if !certificates.is_empty() => (roots, certificates),
            Some(_) | None => {
                return Err(IssueError::Answer { ca: self.server.authority.clone(), count: chain.len() });
            }
        };
        Ok(Issued {
            chain: certificates.join("\n").into_bytes(),
            key: Zeroizing::new(key.to_pem().as_bytes().to_vec()),
            roots: roots.clone().into_bytes(),
        })
    }

    fn refused(&self, status: &tonic::Status) -> IssueError {
        let message = status.message().chars().filter(|char| !char.is_control()).take(MAX_MESSAGE).collect();
        IssueError::Refused { ca: self.server.authority.clone(), code: status.code(), message }
    }
}

#[cfg(test)]
mod tests;
