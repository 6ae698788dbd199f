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
use prometheus::{IntCounter, IntGauge, Registry, TextEncoder};
use ringmail_process::log;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// From accept to the end of the only response.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 64;
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// What is missing of one part, in words; nothing while it can do its work.
pub type Missing = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// What the pages are made of: `/metrics` (also `/stats/prometheus`), `/healthz/ready` and `/healthz/live`.
pub struct Health {
    /// All series of the process.
    registry: Registry,
    log_left_out: IntCounter,
    ready: IntGauge,
    /// Every part that has to be ready.
    parts: Vec<Missing>,
}

impl Health {
    /// Pages about the series of `registry` and the readiness of `parts`.
    ///
    /// # Errors
    /// Where a series of the process itself is in the registry already.
    pub fn new(registry: Registry, parts: Vec<Missing>) -> Result<Self, prometheus::Error> {
        let log_left_out = IntCounter::new(
            "ringmail_control_log_left_out_total",
            "Lines of the log that were summed up beyond ten a second.",
        )?;
        let ready =
            IntGauge::new("ringmail_control_ready", "1 while pods are injected and proxies told, else 0.")?;
        registry.register(Box::new(log_left_out.clone()))?;
        registry.register(Box::new(ready.clone()))?;
        Ok(Self { registry, log_left_out, ready, parts })
    }

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

    fn missing(&self) -> Vec<String> {
        self.parts.iter().filter_map(|missing| missing()).collect()
    }

    fn page(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, text) = match path {
            _ if method != Method::GET => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
            "/metrics" | "/stats/prometheus" => {
                self.ready.set(i64::from(self.missing().is_empty()));
                self.log_left_out.inc_by(log::left_out().saturating_sub(self.log_left_out.get()));
                match TextEncoder::new().encode_to_string(&self.registry.gather()) {
                    Ok(text) => (StatusCode::OK, text),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
                }
            }
            "/healthz/ready" => {
                let missing = self.missing();
                if missing.is_empty() {
                    (StatusCode::OK, "ready\n".to_owned())
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n")
                }
            }
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn readiness_names_every_part_that_is_missing() {
        let missing = Arc::new(AtomicBool::new(true));
        let part = |name: &'static str| -> Missing {
            let missing = Arc::clone(&missing);
            Box::new(move || missing.load(Ordering::Relaxed).then(|| name.to_owned()))
        };
        let health =
            Health::new(Registry::new(), vec![part("no registration"), part("no pods yet")]).unwrap();
        let response = health.page(&Method::GET, "/healthz/ready");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            format!("{:?}", response.body()).contains("no registration\\nno pods yet"),
            "{:?}",
            response.body()
        );
        missing.store(false, Ordering::Relaxed);
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
