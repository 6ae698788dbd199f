//! What people and machines may ask a running proxy. Nothing here changes anything.
//!
//! - `state`: what there is to know, shared with the data plane and only read here.
//! - `endpoints`: which port answers which path, in one table.
//! - `ready`, `certs`, `connections`, `config_dump`: one file per answer; metrics have a module of their own.
//!
//! Runs on the control thread. A port never serves more than a few connections at once, each ends within
//! a deadline, and when all places are taken the oldest one is cut: silence cannot lock out a probe.

mod certs;
mod config_dump;
mod connections;
mod endpoints;
mod ready;
mod state;

#[cfg(test)]
pub(crate) mod test_state;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    convert::Infallible,
    io, net,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::metrics::Metrics;
use endpoints::{Answer, Port};
pub use ready::{NotReady, readiness};
pub use state::State;

/// Connections that one port serves at once, on all of its listeners together: two scrapes and some probes. Each
/// may hold a whole answer in memory.
pub(crate) const MAX_CONNECTIONS: usize = 8;

/// Ports that serve them.
pub(crate) const PORTS: usize = 4;

/// A request's head is complete within this: a probe gives up sooner itself.
const HEAD_DEADLINE: Duration = Duration::from_secs(3);

/// A whole connection, its answer included. A scrape over a slow link takes less.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of a request's head. No endpoint takes arguments.
const MAX_HEAD: usize = 8 * 1024;

/// How long accepting rests when the system is out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Listeners that are bound already, by what they serve.
#[derive(Debug, Default)]
pub struct AdminListeners {
    /// Everything, on loopback only.
    pub admin: Vec<net::TcpListener>,
    /// Metrics and readiness.
    pub stats: Vec<net::TcpListener>,
    /// Readiness alone.
    pub health: Vec<net::TcpListener>,
    /// What Linkerd's admin port has.
    pub linkerd: Vec<net::TcpListener>,
}

/// Why the admin endpoints cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The runtime does not take a listener.
    #[error("admin listener: {0}")]
    Listener(#[from] io::Error),
    /// The table of metrics is not what Prometheus takes.
    #[error("table of metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What a request is answered from.
struct Served {
    state: Arc<State>,
    metrics: Metrics,
}

/// Serves every endpoint until it is dropped.
///
/// # Errors
/// [`ServeError`] before anything is served; never afterwards.
pub async fn serve(state: Arc<State>, listeners: AdminListeners) -> Result<(), ServeError> {
    let metrics = Metrics::new(Arc::clone(&state))?;
    let served = Arc::new(Served { state, metrics });
    let ports: [_; PORTS] = [
        (Port::Admin, listeners.admin),
        (Port::Stats, listeners.stats),
        (Port::Health, listeners.health),
        (Port::Linkerd, listeners.linkerd),
    ];
    let mut tasks = JoinSet::new();
    for (port, listeners) in ports {
        let places = Arc::<Places>::default();
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn(accept(listener, port, Arc::clone(&places), Arc::clone(&served)));
        }
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            warn!(%error, "an admin listener ended");
        }
    }
    Ok(())
}

/// The connections of one port, the oldest one first.
#[derive(Debug, Default)]
struct Places(Mutex<VecDeque<AbortHandle>>);

impl Places {
    /// Gives a place to a new connection, and ends the oldest one where there is none.
    fn take(&self, connection: AbortHandle) {
        // Handles only: after a panic in another holder they are still the ones there are.
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(connection);
    }
}

async fn accept(listener: TcpListener, port: Port, places: Arc<Places>, served: Arc<Served>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "admin connection not accepted");
                sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        places.take(connections.spawn(connection(stream, port, Arc::clone(&served))));
    }
}

async fn connection(stream: TcpStream, port: Port, served: Arc<Served>) {
    let service = service_fn(|request| {
        let response = respond(&request, port, &served);
        async { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_DEADLINE, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "admin connection ended"),
        Err(_elapsed) => debug!("admin connection cut at its deadline"),
    }
}

fn respond(request: &Request<Incoming>, port: Port, served: &Served) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let Some(endpoint) = port.endpoint(path) else {
        let text = format!("there is no {path:?} here; there is:\n{}", port.index());
        return response(&Answer::text(StatusCode::NOT_FOUND, text));
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = format!("{} does not work here: nothing can be changed; GET does\n", request.method());
        let mut refused = response(&Answer::text(StatusCode::METHOD_NOT_ALLOWED, text));
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    response(&(endpoint.answer)(served))
}

fn response(answer: &Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body.clone()));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
