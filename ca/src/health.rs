//! Metrics and readiness over plain HTTP, read-only.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::attest::{Attestor, Attestors};
use crate::authority::Authority;
use crate::metrics::{Expiries, Metrics};
use crate::serve::ServingCertificate;

/// From accept to the end of the only response.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 64;
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// What the pages are made of.
pub(crate) struct Health {
    metrics: Arc<Metrics>,
    /// What a start waits for.
    waiting: Mutex<String>,
    serving: OnceLock<Serving>,
}

/// What there is once the CA serves.
pub(crate) struct Serving {
    pub(crate) authority: watch::Receiver<Arc<Authority>>,
    pub(crate) certificate: Arc<ServingCertificate>,
    pub(crate) attestors: Arc<Attestors>,
}

impl Health {
    /// Of a CA that starts.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, waiting: Mutex::new("starting".to_owned()), serving: OnceLock::new() }
    }

    /// The start waits for `what`; says whether that is news.
    pub(crate) fn waits_for(&self, what: &str) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *waiting != what;
        what.clone_into(&mut waiting);
        news
    }

    /// The CA serves from now on.
    pub(crate) fn serves(&self, serving: Serving) {
        let _ = self.serving.set(serving);
    }

    /// Serves until `shutdown` turns true.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, mut shutdown: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                _ = shutdown.wait_for(|ending| *ending) => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                sleep(ACCEPT_BACK_OFF).await;
                continue;
            };
            // Over the limit the connection is closed at once: a scrape is repeated anyway.
            if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                let health = Arc::clone(&self);
                tokio::spawn(async move {
                    let _permit = permit;
                    let _ = timeout(CONNECTION_DEADLINE, health.connection(stream)).await;
                });
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        let service = service_fn(|request: Request<Incoming>| async move {
            Ok::<_, Infallible>(self.page(request.method(), request.uri().path(), SystemTime::now()))
        });
        let mut settings = http1::Builder::new();
        settings.timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE).keep_alive(false);
        if let Err(error) = settings.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection to the metrics port failed");
        }
    }

    fn page(&self, method: &Method, path: &str, now: SystemTime) -> Response<Full<Bytes>> {
        let (status, text) = match path {
            _ if method != Method::GET => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
            "/metrics" | "/stats/prometheus" => self.metrics_page(now),
            "/healthz/ready" => self.readiness(now),
            "/healthz/live" => (StatusCode::OK, "alive\n".to_owned()),
            _ => (StatusCode::NOT_FOUND, "no such page\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
        response
    }

    fn metrics_page(&self, now: SystemTime) -> (StatusCode, String) {
        let expiries = self.serving.get().map(|serving| {
            let authority = Arc::clone(&serving.authority.borrow());
            Expiries {
                root: authority.root_not_after(),
                signer: authority.not_after(),
                serving: serving.certificate.not_after(),
            }
        });
        self.metrics.ready(self.fault(now).is_none());
        match self.metrics.render(expiries, now) {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn readiness(&self, now: SystemTime) -> (StatusCode, String) {
        match self.fault(now) {
            Some(fault) => (StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")),
            None => (StatusCode::OK, "ready\n".to_owned()),
        }
    }

    /// Why no certificate can be issued.
    fn fault(&self, now: SystemTime) -> Option<String> {
        let Some(serving) = self.serving.get() else {
            return Some(self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone());
        };
        if now >= serving.authority.borrow().not_after() {
            return Some("the signing certificate has expired".to_owned());
        }
        if now >= serving.certificate.not_after() {
            return Some("the serving certificate has expired".to_owned());
        }
        serving.attestors.sources().find_map(Attestor::fault)
    }
}
