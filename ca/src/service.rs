//! One request for a certificate: attest, check, sign, and one line about it.
//!
//! The order is the defence: the caller's token is judged from the headers before a byte of the body
//! is read, the body is bounded before it is decoded, and the CSR is checked before anything is
//! signed. Every way out passes [`CertificateService::decide_and_say`], which writes the audit line and
//! counts, so no decision is silent.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Request, Response};
use ringmail_identity::SpiffeId;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::attest::{AttestError, Attestors, Caller};
use crate::audit::{self, Issued, Reason};
use crate::authority::Authority;
use crate::csr::{self, CsrError};
use crate::issue::{self, IssueError, Lifetimes, ServeNames, Subject};
use crate::messages::{CREATE_CERTIFICATE_PATH, IstioCertificateRequest, IstioCertificateResponse};
use crate::metrics::Metrics;

/// Largest request message decoded. The longest CSR and the metadata agents send fit several times.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Requests in progress at once: those of a thousand proxies that come back together, each of which may
/// wait for a word of the API server. It bounds what is held for them.
pub const MAX_REQUESTS: usize = 1024;
const IMPERSONATION_KEY: &str = "ImpersonatedIdentity";

/// Why a request gets no certificate.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Attest(#[from] AttestError),
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error("request not complete after {0:?}")]
    Deadline(Duration),
    #[error("metadata names {IMPERSONATION_KEY}: expected a request for the caller's own identity")]
    Impersonation,
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("not a request message: {0}")]
    Malformed(String),
    #[error("more than {MAX_REQUESTS} requests at once")]
    Overloaded,
    #[error("message is larger than {MAX_MESSAGE_BYTES} bytes")]
    TooLarge,
    #[error("{0:?} is not served: expected POST {CREATE_CERTIFICATE_PATH}")]
    UnknownMethod(String),
}

impl Refusal {
    fn reason(&self) -> Reason {
        match self {
            Self::Attest(error) => error.reason(),
            Self::Csr(error) => error.reason(),
            Self::Deadline(_) => Reason::DeadlineExceeded,
            Self::Impersonation => Reason::Impersonation,
            Self::Issue(error) => error.reason(),
            Self::Malformed(_) => Reason::MalformedRequest,
            Self::Overloaded => Reason::Overloaded,
            Self::TooLarge => Reason::RequestTooLarge,
            Self::UnknownMethod(_) => Reason::UnknownMethod,
        }
    }

    fn status(&self) -> Status {
        Status::new(self.reason().code(), self.to_string())
    }
}

/// What was granted to a request.
struct Granted {
    response: IstioCertificateResponse,
    serial: String,
    ttl: Duration,
    key: String,
    names: Option<String>,
}

/// What a certificate is made from, beside the request.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The lifetimes that are given.
    pub lifetimes: Lifetimes,
    /// DNS names of the servers among the callers.
    pub serve_names: ServeNames,
}

/// The certificate service.
pub struct CertificateService {
    authority: watch::Receiver<Arc<Authority>>,
    attestors: Arc<Attestors>,
    terms: Terms,
    metrics: Arc<Metrics>,
    permits: Semaphore,
    request_timeout: Duration,
}

impl CertificateService {
    /// A service that signs with the newest value of `authority`.
    pub fn new(
        authority: watch::Receiver<Arc<Authority>>,
        attestors: Arc<Attestors>,
        terms: Terms,
        metrics: Arc<Metrics>,
        request_timeout: Duration,
    ) -> Self {
        let permits = Semaphore::new(MAX_REQUESTS);
        Self { authority, attestors, terms, metrics, permits, request_timeout }
    }

    /// Decides one HTTP/2 request that came from `address`.
    pub(crate) async fn decide_and_say<B>(&self, request: Request<B>, address: SocketAddr) -> Response<Body>
    where
        B: hyper::body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let began = Instant::now();
        let mut caller = None;
        let decided = timeout(self.request_timeout, self.decide(request, &mut caller)).await;
        let refusal = match (decided, &caller) {
            (Ok(Ok((response, granted))), Some(caller)) => {
                let Granted { serial, ttl, key, names, .. } = granted;
                audit::issued(address, caller, &Issued { serial: &serial, ttl, key, names });
                self.metrics.issued(began.elapsed());
                return response;
            }
            (Ok(Ok(_)), None) => Refusal::Attest(AttestError::Unknown),
            (Ok(Err(refusal)), _) => refusal,
            (Err(_), _) => Refusal::Deadline(self.request_timeout),
        };
        let reason = refusal.reason();
        audit::refused(address, caller.as_ref(), reason, &refusal.to_string());
        self.metrics.refused(reason, began.elapsed());
        refusal.status().into_http()
    }

    async fn decide<B>(
        &self,
        request: Request<B>,
        caller: &mut Option<Caller>,
    ) -> Result<(Response<Body>, Granted), Refusal>
    where
        B: hyper::body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let _permit = self.permits.try_acquire().map_err(|_| Refusal::Overloaded)?;
        if request.method() != Method::POST || request.uri().path() != CREATE_CERTIFICATE_PATH {
            return Err(Refusal::UnknownMethod(request.uri().path().to_owned()));
        }
        let caller = caller.insert(self.attestors.attest(request.headers()).await?);
        let verdict = Mutex::new(None);
        let handler = tower::service_fn(|message: tonic::Request<IstioCertificateRequest>| {
            let granted = self.grant(&caller.identity, message.get_ref());
            let answer = match &granted {
                Ok(granted) => Ok(tonic::Response::new(granted.response.clone())),
                Err(refusal) => Err(refusal.status()),
            };
            *verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(granted);
            ready(answer)
        });
        let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let response = grpc.unary(handler, request).await;
        match verdict.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(granted) => Ok((response, granted?)),
            None => Err(framing_fault(&response)),
        }
    }

    fn grant(&self, identity: &SpiffeId, request: &IstioCertificateRequest) -> Result<Granted, Refusal> {
        if request.metadata.as_ref().is_some_and(|m| m.fields.contains_key(IMPERSONATION_KEY)) {
            return Err(Refusal::Impersonation);
        }
        let ttl = self.terms.lifetimes.asked(request.validity_duration)?;
        let key = csr::requested_key(&request.csr)?;
        let authority = Arc::clone(&self.authority.borrow());
        let now = SystemTime::now();
        let dns_names = self.terms.serve_names.of(identity);
        let leaf = issue::workload_leaf(&authority, &key, &Subject { identity, dns_names }, ttl, now)?;
        Ok(Granted {
            response: IstioCertificateResponse {
                cert_chain: authority.response_chain(&leaf.certificate),
                #[cfg(feature = "next-schema")]
                more: "said by the next version".to_owned(),
            },
            serial: leaf.serial,
            ttl: leaf.not_after.duration_since(now).unwrap_or_default(),
            key: key.algorithm().to_string(),
            names: (!dns_names.is_empty()).then(|| dns_names.join(",")),
        })
    }
}

/// The message never reached the service: the framing layer refused it and says why in its answer.
fn framing_fault(response: &Response<Body>) -> Refusal {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::OutOfRange => Refusal::TooLarge,
        Some(status) => Refusal::Malformed(status.message().to_owned()),
        None => Refusal::Malformed("no message".to_owned()),
    }
}
