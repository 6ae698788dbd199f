//! What people and machines may ask a running proxy. Nothing here changes anything.
//!
//! - `state`: what there is to know, shared with the data plane and only read here.
//! - `endpoints`: which port answers which path, in one table.
//! - `ready`, `certs`, `connections`, `config_dump`: one file per answer; metrics and the application's probes have
//!   modules of their own.
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
mod app_probe_tests;
#[cfg(test)]
pub(crate) mod test_state;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    convert::Infallible,
    io, net,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{app_probe, metrics::Metrics};
use endpoints::{Answer, Port};
pub use ready::{NotReady, readiness};
pub use state::State;

/// Connections that one port serves at once, on all of its listeners together: two scrapes and some probes. Each
/// may hold a whole answer in memory.
pub(crate) const MAX_CONNECTIONS: usize = 8;

/// Questions to the application under way at once: each of its containers has a few. A stranger's further ones are
/// refused, and none takes the place of one that is under way: a probe that is cut would have the pod restarted.
pub(crate) const MAX_APP_PROBES: usize = 16;

/// Ports that serve them.
pub(crate) const PORTS: usize = 4;

/// A request's head is complete within this: a probe gives up sooner itself.
const HEAD_DEADLINE: Duration = Duration::from_secs(3);

/// A whole connection, its answer included. A scrape over a slow link takes less. A question to the application has the
/// probe's own deadline on top.
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
    app_probes: Semaphore,
}

/// Serves every endpoint until it is dropped.
///
/// # Errors
/// [`ServeError`] before anything is served; never afterwards.
pub async fn serve(state: Arc<State>, listeners: AdminListeners) -> Result<(), ServeError> {
    let metrics = Metrics::new(Arc::clone(&state))?;
    let served = Arc::new(Served { state, metrics, app_probes: Semaphore::new(MAX_APP_PROBES) });
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
struct Places(Mutex<VecDeque<Place>>);

#[derive(Debug)]
struct Place {
    connection: AbortHandle,
    /// Whether it waits for the application, within a bound of its own.
    asks: Arc<AtomicBool>,
}

impl Places {
    /// Gives a place to a new connection, and ends the oldest one where there is none.
    fn take(&self, place: Place) {
        // Handles only: after a panic in another holder they are still the ones there are.
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|place| !place.connection.is_finished());
        let idle = |place: &Place| !place.asks.load(Ordering::Relaxed);
        if open.iter().filter(|place| idle(place)).count() >= MAX_CONNECTIONS
            && let Some(oldest) = open.iter().position(idle)
            && let Some(oldest) = open.remove(oldest)
        {
            oldest.connection.abort();
        }
        open.push_back(place);
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
        let asks = Arc::<AtomicBool>::default();
        let serving = connection(stream, port, Arc::clone(&served), Arc::clone(&asks));
        places.take(Place { connection: connections.spawn(serving), asks });
    }
}

async fn connection(stream: TcpStream, port: Port, served: Arc<Served>, asks: Arc<AtomicBool>) {
    let longest = served.state.config.app_probes.longest();
    let service = service_fn(|request| {
        let (served, asks) = (Arc::clone(&served), Arc::clone(&asks));
        async move {
            let asked =
                if port == Port::Stats { ask_application(&request, &served, &asks).await } else { None };
            let response = asked.unwrap_or_else(|| respond(&request, port, &served));
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_DEADLINE + longest, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "admin connection ended"),
        Err(_elapsed) => debug!("admin connection cut at its deadline"),
    }
}

/// The answer to a probe of the application; nothing where the path is none.
async fn ask_application(
    request: &Request<Incoming>,
    served: &Served,
    asks: &AtomicBool,
) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path();
    let config = &served.state.config;
    let probe = config.app_probes.get(path)?;
    // A restart is what a fenced application needs, and a failed liveness probe is how the kubelet is told.
    if app_probe::is_liveness(path)
        && let Some(absence) = served.state.fence.closed()
    {
        let text = format!("the application is fenced, and to be restarted: {absence}\n");
        return Some(response(&Answer::text(StatusCode::SERVICE_UNAVAILABLE, text)));
    }
    let Some(own) = config.pod_addresses.first() else {
        let text = "pod_addresses is empty: there is nobody to ask\n".to_owned();
        return Some(response(&Answer::text(StatusCode::SERVICE_UNAVAILABLE, text)));
    };
    let Ok(_turn) = served.app_probes.try_acquire() else {
        let text = format!("{MAX_APP_PROBES} questions to the application are under way\n");
        return Some(response(&Answer::text(StatusCode::TOO_MANY_REQUESTS, text)));
    };
    asks.store(true, Ordering::Relaxed);
    let verdict = app_probe::ask(probe, *own, request.headers()).await;
    asks.store(false, Ordering::Relaxed);
    Some(response(&Answer::text(verdict.status, verdict.text)))
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
