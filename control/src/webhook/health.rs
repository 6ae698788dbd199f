//! Metrics and readiness over plain HTTP, read-only.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::upkeep::State;

/// From accept to the end of the only response.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 64;
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// What the pages are made of: `/metrics` (also `/stats/prometheus`), `/healthz/ready` and `/healthz/live`.
#[derive(Clone, Debug)]
pub struct Health {
    /// All series of the process.
    pub registry: Registry,
    /// Whether the webhook can decide.
    pub state: watch::Receiver<State>,
}

impl Health {
    /// Serves for as long as it is polled.
    pub async fn run(self, listener: TcpListener) {
        let (health, permits) = (Arc::new(self), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(ACCEPT_BACK_OFF).await;
                continue;
            };
            // Over the limit the connection is closed at once: a scrape is repeated anyway.
            if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                let health = Arc::clone(&health);
                tokio::spawn(async move {
                    let _permit = permit;
                    let _ = timeout(CONNECTION_DEADLINE, health.connection(stream)).await;
                });
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        let service = service_fn(|request: Request<Incoming>| async move {
            Ok::<_, Infallible>(self.page(request.method(), request.uri().path()))
        });
        let mut settings = http1::Builder::new();
        settings.timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE).keep_alive(false);
        if let Err(error) = settings.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection to the metrics port failed");
        }
    }

    fn page(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, text) = match path {
            _ if method != Method::GET => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
            "/metrics" | "/stats/prometheus" => {
                match TextEncoder::new().encode_to_string(&self.registry.gather()) {
                    Ok(text) => (StatusCode::OK, text),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
                }
            }
            "/healthz/ready" => match &*self.state.borrow() {
                State::Ready(_) => (StatusCode::OK, "ready\n".to_owned()),
                State::Waiting(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/healthz/live" => (StatusCode::OK, "alive\n".to_owned()),
            _ => (StatusCode::NOT_FOUND, "no such page\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::Cluster;
    use crate::webhook::Metrics;

    #[test]
    fn readiness_follows_the_state_and_says_what_is_waited_for() {
        let (state, watched) = watch::channel(State::Waiting("no registration".to_owned()));
        let registry = Registry::new();
        Metrics::register(&registry).unwrap();
        let health = Health { registry, state: watched };
        assert_eq!(health.page(&Method::GET, "/healthz/ready").status(), StatusCode::SERVICE_UNAVAILABLE);
        state.send_replace(State::Ready(Cluster::default()));
        for (method, path, status) in [
            (Method::GET, "/healthz/ready", StatusCode::OK),
            (Method::GET, "/healthz/live", StatusCode::OK),
            (Method::GET, "/metrics", StatusCode::OK),
            (Method::GET, "/inject", StatusCode::NOT_FOUND),
            (Method::POST, "/metrics", StatusCode::METHOD_NOT_ALLOWED),
        ] {
            assert_eq!(health.page(&method, path).status(), status, "{method} {path}");
        }
    }
}
