//! The listener: TLS 1.3, HTTP/2, and a bound on everything a stranger can take.
//!
//! A connection costs nothing until it is within the limits in total and per source; then it has one
//! deadline for its handshake and one for being idle. Both are needed: HTTP/2 itself waits for its
//! preface for ever.

mod limits;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics::Metrics;
use crate::service::CertificateService;

pub use limits::ConnectionLimits;
pub(crate) use tls::ServingCertificate;
pub use tls::TlsSetupError;

/// Requests at once on one connection; an agent sends one.
const MAX_STREAMS: u32 = 32;
/// A token and the handful of headers gRPC needs.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Streams a client may open and reset before its connection ends.
const MAX_RESET_STREAMS: usize = 32;
/// After this pause a full descriptor table may have room again.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// Time for requests in progress once a connection is to end.
const GRACE: Duration = Duration::from_secs(2);

macro_rules! ends {
    ($($(#[doc = $doc:literal])+ $variant:ident = $label:literal,)*) => {
        /// How a connection ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ConnectionEnd { $($(#[doc = $doc])+ $variant,)* }

        impl ConnectionEnd {
            /// Every end, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What it means, for the reference page.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)* }
            }

            /// The label of the metric.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

ends! {
    /// The client closed it, or this process is ending.
    Closed = "closed",
    /// Too many connections in total.
    LimitTotal = "limit_total",
    /// Too many connections from one source.
    LimitSource = "limit_source",
    /// No complete handshake within the deadline.
    HandshakeTimeout = "handshake_timeout",
    /// The first bytes are not TLS.
    NotTls = "not_tls",
    /// A TLS client with no common version or parameters.
    TlsIncompatible = "tls_incompatible",
    /// The handshake failed or was cut otherwise.
    HandshakeFailed = "handshake_failed",
    /// No request in progress for the idle time.
    Idle = "idle",
    /// The client broke HTTP/2.
    Http = "http",
}

/// Deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From accept to a complete TLS handshake.
    pub handshake: Duration,
    /// Without a request in progress.
    pub idle: Duration,
}

/// The listener with what its connections share.
pub struct Server {
    pub(crate) certificate: Arc<ServingCertificate>,
    pub(crate) service: Arc<CertificateService>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) deadlines: Deadlines,
}

impl Server {
    /// Accepts until `shutdown` turns true, then lets connections end within their grace.
    pub async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), TlsSetupError> {
        let mut ending = shutdown.clone();
        let acceptor = TlsAcceptor::from(tls::server_config(Arc::clone(&self.certificate))?);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = ending.wait_for(|ending| *ending) => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut connections, &acceptor, stream, peer, &shutdown),
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        sleep(ACCEPT_BACK_OFF).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(GRACE * 2, all_ended).await.is_err() {
            tracing::warn!("connections were cut at the end of their grace");
        }
        Ok(())
    }

    fn admit(
        self: &Arc<Self>,
        connections: &mut JoinSet<()>,
        acceptor: &TlsAcceptor,
        stream: TcpStream,
        peer: SocketAddr,
        shutdown: &watch::Receiver<bool>,
    ) {
        let place = match self.limits.take(peer.ip()) {
            Ok(place) => place,
            Err(end) => return self.ended(peer, end, ""),
        };
        let (server, acceptor, shutdown) = (Arc::clone(self), acceptor.clone(), shutdown.clone());
        connections.spawn(async move {
            let _held = (place, server.metrics.connection());
            let (end, error) = server.connection(acceptor, stream, peer, shutdown).await;
            server.ended(peer, end, &error);
        });
    }

    fn ended(&self, peer: SocketAddr, end: ConnectionEnd, error: &str) {
        self.metrics.connection_end(end);
        tracing::debug!(%peer, reason = end.as_str(), error, "connection ended");
    }

    async fn connection(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        peer: SocketAddr,
        shutdown: watch::Receiver<bool>,
    ) -> (ConnectionEnd, String) {
        if let Err(error) = stream.set_nodelay(true) {
            return (ConnectionEnd::Closed, error.to_string());
        }
        match timeout(self.deadlines.handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.requests(stream, peer, shutdown).await,
            Ok(Err(error)) => (tls::handshake_end(&error), error.to_string()),
            Err(_) => (ConnectionEnd::HandshakeTimeout, String::new()),
        }
    }

    async fn requests(
        &self,
        stream: TlsStream<TcpStream>,
        peer: SocketAddr,
        mut shutdown: watch::Receiver<bool>,
    ) -> (ConnectionEnd, String) {
        let activity = Arc::new(Activity::default());
        let service = service_fn(|request| {
            let (service, busy) = (Arc::clone(&self.service), activity.busy());
            async move {
                let _busy = busy;
                Ok::<_, Infallible>(service.answer(request, peer).await)
            }
        });
        let mut connection = pin!(http2_settings().serve_connection(TokioIo::new(stream), service));
        let end = tokio::select! {
            result = connection.as_mut() => return http_end(result),
            () = activity.idle_for(self.deadlines.idle) => ConnectionEnd::Idle,
            _ = shutdown.wait_for(|ending| *ending) => ConnectionEnd::Closed,
        };
        connection.as_mut().graceful_shutdown();
        let _ = timeout(GRACE, connection).await;
        (end, String::new())
    }
}

fn http2_settings() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS);
    builder
}

fn http_end(result: hyper::Result<()>) -> (ConnectionEnd, String) {
    match result {
        Ok(()) => (ConnectionEnd::Closed, String::new()),
        Err(error) => (ConnectionEnd::Http, error.to_string()),
    }
}

/// Whether a connection has requests in progress.
#[derive(Default)]
struct Activity {
    in_progress: AtomicUsize,
    changed: Notify,
}

struct Busy(Arc<Activity>);

impl Activity {
    fn busy(self: &Arc<Self>) -> Busy {
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        Busy(Arc::clone(self))
    }

    /// Returns once there has been no request in progress for `limit`.
    async fn idle_for(&self, limit: Duration) {
        loop {
            let mut changed: Pin<&mut _> = pin!(self.changed.notified());
            if self.in_progress.load(Ordering::Relaxed) > 0 {
                changed.await;
            } else if timeout(limit, changed.as_mut()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}
