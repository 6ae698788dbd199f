//! The door of a server of the control plane: TLS, HTTP/2, and a bound on everything that a stranger can take.
//!
//! The CA, discovery and the webhook have one each. A connection costs nothing until it is within the limits in
//! total and per source; then it has one deadline for its handshake and one for being idle. Both are needed:
//! HTTP/2 itself waits for its preface for ever. Each connection ends for one [`ConnectionEnd`], which is the
//! word of the log and the label of the metric.

mod activity;
mod end;
mod limits;
mod metrics;

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use activity::Activity;
pub use activity::Busy;
pub use end::ConnectionEnd;
pub use limits::{ConnectionLimits, Source};
pub use metrics::DoorMetrics;

/// A token and the handful of headers that gRPC or an API server need.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Streams that a client may open and reset before its connection ends.
const MAX_RESET_STREAMS: usize = 32;
/// What waits in a stream for a client that does not read.
const MAX_SEND_BUFFER: usize = 64 * 1024;
/// A client that has gone without a word is noticed within twice this time.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// After this pause a full descriptor table may have room again.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Who answers the requests.
pub trait Answers: Send + Sync + 'static {
    /// Of an answer.
    type Body: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// The answer to a request. The connection counts as in use for as long as `visit` lives.
    fn answer(
        &self,
        request: Request<Incoming>,
        visit: Visit,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Who asks, and that somebody is being answered.
pub struct Visit {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// Keeps the connection from being idle.
    pub busy: Busy,
}

/// Deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From accept to a complete TLS handshake.
    pub handshake: Duration,
    /// Without a request in progress.
    pub idle: Duration,
    /// For requests in progress, once the connection is to end.
    pub grace: Duration,
}

/// A listener's conditions, and who answers behind it.
pub struct Door<A> {
    /// Who answers.
    pub answers: Arc<A>,
    /// How many connections.
    pub limits: Arc<ConnectionLimits>,
    /// How long each.
    pub deadlines: Deadlines,
    /// Requests at once on one connection.
    pub streams: u32,
    /// What is counted.
    pub metrics: DoorMetrics,
}

impl<A: Answers> Door<A> {
    /// Accepts until `shutdown` turns true, then lets connections end within their grace.
    pub async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        shutdown: watch::Receiver<bool>,
    ) {
        let mut ending = shutdown.clone();
        let acceptor = TlsAcceptor::from(tls);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = told(&mut ending) => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut connections, &acceptor, stream, (peer, &shutdown)),
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
        if timeout(self.deadlines.grace * 2, all_ended).await.is_err() {
            tracing::warn!("connections were cut at the end of their grace");
        }
    }

    fn admit(
        self: &Arc<Self>,
        connections: &mut JoinSet<()>,
        acceptor: &TlsAcceptor,
        stream: TcpStream,
        (peer, shutdown): (SocketAddr, &watch::Receiver<bool>),
    ) {
        let place = match self.limits.take(peer.ip()) {
            Ok(place) => place,
            Err(end) => return self.metrics.ended(peer, end, ""),
        };
        let (door, acceptor, shutdown) = (Arc::clone(self), acceptor.clone(), shutdown.clone());
        connections.spawn(async move {
            let _held = (place, door.metrics.connection());
            let (end, error) = door.connection(acceptor, stream, peer, shutdown).await;
            door.metrics.ended(peer, end, &error);
        });
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
            Ok(Err(error)) => (end::of_handshake(&error), error.to_string()),
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
            let (answers, visit) = (Arc::clone(&self.answers), Visit { peer, busy: activity.busy() });
            async move { Ok::<_, Infallible>(answers.answer(request, visit).await) }
        });
        let is_http1 = stream.get_ref().1.alpn_protocol() == Some(b"http/1.1");
        let stream = TokioIo::new(stream);
        let over = async {
            tokio::select! {
                () = activity.idle_for(self.deadlines.idle) => ConnectionEnd::Idle,
                () = told(&mut shutdown) => ConnectionEnd::Closed,
            }
        };
        // The two kinds of connection have no trait in common.
        macro_rules! until_over {
            ($connection:expr) => {{
                let mut connection = pin!($connection);
                let end = tokio::select! {
                    result = connection.as_mut() => return end::of_http(result),
                    end = over => end,
                };
                connection.as_mut().graceful_shutdown();
                let _ = timeout(self.deadlines.grace, connection).await;
                end
            }};
        }
        let end = if is_http1 {
            until_over!(self.http1().serve_connection(stream, service))
        } else {
            until_over!(self.http2().serve_connection(stream, service))
        };
        (end, String::new())
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.deadlines.idle);
        builder
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .max_concurrent_streams(self.streams)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
            .max_local_error_reset_streams(MAX_RESET_STREAMS);
        builder
    }
}

/// Returns when the process is to end.
async fn told(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|ending| *ending).await;
}

#[cfg(test)]
mod tests;
