//! Metrics and readiness over plain HTTP, read-only.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{Discovery, serving::Serving};

/// From accept to the end of the only response.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 64;
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

struct Health {
    discovery: Arc<Discovery>,
    serving: Arc<Serving>,
    registry: Registry,
}

/// Serves for as long as it is polled.
pub(crate) async fn run(
    listener: TcpListener,
    discovery: Arc<Discovery>,
    serving: Arc<Serving>,
    registry: Registry,
) {
    let health = Arc::new(Health { discovery, serving, registry });
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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

impl Health {
    async fn connection(&self, stream: TcpStream) {
        let service = service_fn(|request: Request<Incoming>| async move {
            Ok::<_, Infallible>(self.page(request.method(), request.uri().path()))
        });
        let mut settings = http1::Builder::new();
        settings.timer(TokioTimer::new()).header_read_timeout(CONNECTION_DEADLINE).keep_alive(false);
        if let Err(error) = settings.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection to the metrics port failed");
        }
    }

    fn page(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, text) = match path {
            _ if method != Method::GET => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
            "/metrics" | "/stats/prometheus" => self.metrics(),
            "/healthz/ready" => match self.missing() {
                Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
                None => (StatusCode::OK, "ready\n".to_owned()),
            },
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

    fn metrics(&self) -> (StatusCode, String) {
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn missing(&self) -> Option<String> {
        self.discovery.sync.missing().or_else(|| self.serving.missing(SystemTime::now()))
    }
}
