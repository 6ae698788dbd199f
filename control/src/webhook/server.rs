//! Reviews for the API server, and answers for whoever else reaches the port: every size, number and time has a bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::{Api, Client};
use ringmail_ca::door::{Answers, ConnectionLimits, Deadlines, Door, Source, Visit};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::events::Events;
use super::metrics::{Metrics, Rejected};
use super::review::{Decided, Review, Verdict};
use super::upkeep::State;
use crate::inject::{self, InjectConfig, Namespace};

/// What the API server takes of an object is 3 MiB; the review around it is small.
const MAX_REVIEW_BYTES: usize = 3 * 1024 * 1024 + 64 * 1024;

/// Reviews at the same time: they are work for the processor, and each may hold many times its bytes. Others wait.
const MAX_REVIEWS: usize = 8;

/// Bodies that are read at the same time, apart from the reviews, so that one that does not come delays nobody.
const MAX_BODIES: usize = 64;

/// Requests at the same time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 64;

/// The API servers of a cluster hold a few each; whoever else comes must not take the last.
const MAX_CONNECTIONS: usize = 256;

/// An API server holds a few, also where all of a cluster come through one tunnel.
const MAX_CONNECTIONS_PER_SOURCE: usize = 64;

/// An API server gives an idle connection up after 90 s: it is to be the one that does. What is in flight at the end may
/// still be answered; with new reviews the API server goes to the other replica.
pub(super) const DEADLINES: Deadlines = Deadlines {
    handshake: Duration::from_secs(10),
    idle: Duration::from_secs(120),
    grace: Duration::from_secs(5),
};

const BODY_DEADLINE: Duration = Duration::from_secs(5);
/// Below the ten seconds after which the API server gives up, so that it hears why.
const REVIEW_DEADLINE: Duration = Duration::from_secs(8);

/// What answers reviews.
pub(super) struct Server {
    client: Client,
    injection: InjectConfig,
    state: watch::Receiver<State>,
    events: Events,
    metrics: Metrics,
    reviews: Semaphore,
    bodies: Semaphore,
}

impl Server {
    pub(super) fn new(
        client: Client,
        injection: InjectConfig,
        state: watch::Receiver<State>,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        let (reviews, bodies) = (Semaphore::new(MAX_REVIEWS), Semaphore::new(MAX_BODIES));
        Self { client, injection, state, events, metrics, reviews, bodies }
    }

    /// Serves until `shutdown` turns true.
    pub(super) async fn run(
        self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        deadlines: Deadlines,
        shutdown: watch::Receiver<bool>,
    ) {
        let limits = ConnectionLimits::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_SOURCE, Source::Address);
        let door = Door {
            limits: Arc::new(limits),
            deadlines,
            streams: MAX_STREAMS,
            metrics: self.metrics.door.clone(),
            answers: Arc::new(self),
        };
        Arc::new(door).run(listener, tls, shutdown).await;
    }

    async fn reviewed(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let Err((status, text)) = check(&request) {
            self.metrics.reject(Rejected::WrongRequest);
            return plain(status, text);
        }
        let begun = Instant::now();
        let body = match self.body(request.into_body()).await {
            Ok(body) => body,
            Err((status, text)) => return plain(status, text),
        };
        let Ok(Ok(_permit)) = timeout(REVIEW_DEADLINE, self.reviews.acquire()).await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many reviews at the same time");
        };
        let review = match Review::read(&body) {
            Ok(review) => review,
            Err(error) => {
                self.metrics.reject(Rejected::NotAReview);
                return plain(StatusCode::BAD_REQUEST, &error.to_string());
            }
        };
        drop(body);
        let left = REVIEW_DEADLINE.saturating_sub(begun.elapsed());
        let decided = timeout(left, self.decide(&review)).await.unwrap_or_else(|_| {
            Verdict::Unable("the API server did not name the namespace in time".to_owned()).into()
        });
        self.record(&review, &decided, begun.elapsed());
        let mut response = Response::new(Full::new(Bytes::from(decided.answer(&review.uid))));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, (StatusCode, &'static str)> {
        let reading = async {
            let permit = self.bodies.acquire().await;
            let body = Limited::new(body, MAX_REVIEW_BYTES).collect().await;
            drop(permit);
            body
        };
        match timeout(BODY_DEADLINE, reading).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                self.metrics.reject(Rejected::BodyTooLarge);
                Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is above 3 MiB"))
            }
            Ok(Err(_)) | Err(_) => {
                self.metrics.reject(Rejected::BodyTooSlow);
                Err((StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))
            }
        }
    }

    async fn decide(&self, review: &Review) -> Decided {
        let Some(pod) = &review.pod else { return Verdict::Allowed(Vec::new()).into() };
        let cluster = match &*self.state.borrow() {
            State::Ready(cluster) => *cluster,
            State::Waiting(reason) => return Verdict::Unable(reason.clone()).into(),
        };
        // Asked afresh each time: a pod that is created right after its namespace was labelled must not slip through.
        let namespaces: Api<NamespaceObject> = Api::all(self.client.clone());
        let namespace = match namespaces.get(&review.namespace).await {
            Ok(found) => Namespace {
                name: review.namespace.clone(),
                labels: found.metadata.labels.unwrap_or_default(),
                annotations: found.metadata.annotations.unwrap_or_default(),
            },
            Err(error) => {
                return Verdict::Unable(format!("namespace {:?}: {error}", review.namespace)).into();
            }
        };
        let request = inject::Request { pod, namespace: &namespace, workload: None, cluster };
        Decided {
            verdict: inject::inject(&request, &self.injection).into(),
            unread: inject::unread(&request),
        }
    }

    fn record(&self, review: &Review, decided: &Decided, took: Duration) {
        let verdict = &decided.verdict;
        self.metrics.reviewed(verdict.word(), took);
        let (namespace, dry_run) = (&review.namespace, review.dry_run);
        let pod = review.pod.as_ref();
        let name = pod.map(inject::workload_of).unwrap_or_default();
        let warnings = decided.warnings();
        self.metrics.warnings.inc_by(warnings.len() as u64);
        if let Some(pod) = pod.filter(|_| !dry_run) {
            self.events.publish(namespace, pod, &warnings);
        }
        match verdict {
            Verdict::Injected(_) => {
                tracing::info!(namespace, name, dry_run, warnings = warnings.len(), "injected");
            }
            Verdict::Refused(refusal) => tracing::info!(namespace, name, dry_run, %refusal, "refused"),
            Verdict::Unable(fault) => tracing::warn!(namespace, name, dry_run, %fault, "unable to decide"),
            Verdict::Allowed(_) => tracing::debug!(namespace, name, dry_run, "left as it is"),
        }
    }
}

impl Answers for Server {
    type Body = Full<Bytes>;

    async fn answer(&self, request: Request<Incoming>, visit: Visit) -> Response<Full<Bytes>> {
        let _busy = visit.busy;
        self.reviewed(request).await
    }
}

fn check(request: &Request<Incoming>) -> Result<(), (StatusCode, &'static str)> {
    if request.uri().path() != "/inject" {
        return Err((StatusCode::NOT_FOUND, "there is only /inject"));
    }
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "only POST"));
    }
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if header(CONTENT_TYPE).and_then(|kind| kind.split(';').next()).map(str::trim) != Some("application/json")
    {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "only application/json"));
    }
    let length = header(CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_REVIEW_BYTES) {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is above 3 MiB"));
    }
    Ok(())
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
