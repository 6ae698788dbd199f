//! The listener: TLS 1.3, HTTP/2, and a bound on everything that a stranger can take.

mod limits;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ringmail_ca::attest::{AttestError, Attestors};
use ringmail_xds::{
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    service::{self, Responses},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, body::Body};

use super::{
    Discovery, Settings,
    hub::Link,
    metrics::Refused,
    serving::Serving,
    stream::{BoundTo, Stream},
    world::ObjectKey,
};
use limits::ConnectionLimits;

/// From accept to a complete TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that has gone without a word is noticed within twice this time.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// A connection is there for its stream: nothing comes of one that opens none.
const IDLE: Duration = Duration::from_secs(60);
/// Streams of one connection; a proxy opens one after the other. Each asks the API server about a token.
const MAX_STREAMS: u32 = 2;
/// A token and the handful of headers that gRPC needs.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Streams a client may open and reset before its connection ends.
const MAX_RESET_STREAMS: usize = 32;
/// What waits in a connection for a client that does not read.
const MAX_SEND_BUFFER: usize = 64 * 1024;
/// Bytes of a request. A client that comes back says what it holds: some 100 bytes for each of 16 384 resources.
const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// After this pause a full descriptor table may have room again.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// Time for streams to end once the server does.
const GRACE: Duration = Duration::from_secs(2);

/// The listener with what its connections share.
pub(crate) struct Server {
    discovery: Arc<Discovery>,
    attestors: Attestors,
    serving: Arc<Serving>,
    limits: Arc<ConnectionLimits>,
}

impl Server {
    pub(crate) fn new(
        discovery: Arc<Discovery>,
        attestors: Attestors,
        serving: Arc<Serving>,
        settings: &Settings,
    ) -> Arc<Self> {
        // Connections that are being replaced stand beside their successors.
        let limits = ConnectionLimits::new(2 * settings.max_streams, settings.max_connections_per_source);
        Arc::new(Self { discovery, attestors, serving, limits: Arc::new(limits) })
    }

    /// Accepts until `shutdown` turns true.
    pub(crate) async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), rustls::Error> {
        let mut ending = shutdown.clone();
        let acceptor = TlsAcceptor::from(self.serving.server_config()?);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = ended(&mut ending) => break,
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
        let _ = timeout(GRACE * 2, all_ended).await;
        Ok(())
    }

    fn admit(
        self: &Arc<Self>,
        connections: &mut JoinSet<()>,
        acceptor: &TlsAcceptor,
        stream: TcpStream,
        (peer, shutdown): (SocketAddr, &watch::Receiver<bool>),
    ) {
        let Some(place) = self.limits.take(peer.ip()) else {
            return tracing::debug!(%peer, "too many connections");
        };
        let (server, acceptor, shutdown) = (Arc::clone(self), acceptor.clone(), shutdown.clone());
        connections.spawn(async move {
            let _held = (place, server.discovery.metrics.connection());
            if let Err(error) = server.connection(acceptor, stream, shutdown).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }

    async fn connection(
        self: &Arc<Self>,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), ConnectionError> {
        stream.set_nodelay(true)?;
        let stream =
            timeout(HANDSHAKE, acceptor.accept(stream)).await.map_err(|_| ConnectionError::Deadline)??;
        let (busy, mut idle) = mpsc::channel::<()>(1);
        let service = service_fn(|request: Request<Incoming>| {
            let (server, busy) = (Arc::clone(self), busy.clone());
            async move { Ok::<_, Infallible>(server.answer(request, busy).await) }
        });
        let mut connection = pin!(http2_settings().serve_connection(TokioIo::new(stream), service));
        let first = sleep(IDLE);
        tokio::pin!(first);
        let mut used = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => return Ok(result?),
                Some(()) = idle.recv() => used = true,
                () = first.as_mut(), if !used => break,
                () = ended(&mut shutdown) => break,
            }
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(GRACE, connection).await;
        Ok(())
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>, busy: mpsc::Sender<()>) -> Response<Body> {
        if request.uri().path() != service::PATH {
            self.discovery.metrics.refused_stream(Refused::Method);
            return Status::unimplemented(format!("expected {}", service::PATH)).into_http();
        }
        match self.admit_stream(&request).await {
            Ok((pod, place)) => {
                let _ = busy.try_send(());
                let handler =
                    Handler { discovery: Arc::clone(&self.discovery), admitted: Some((pod, place)) };
                service::serve(handler, request, MAX_REQUEST).await
            }
            Err((status, reason)) => {
                self.discovery.metrics.refused_stream(reason);
                tracing::debug!(%status, "stream refused");
                status.into_http()
            }
        }
    }

    /// Whose stream it is, and its place.
    async fn admit_stream(&self, request: &Request<Incoming>) -> Result<(BoundTo, Place), (Status, Refused)> {
        if let Some(missing) = self.discovery.sync.missing() {
            return Err((Status::unavailable(missing), Refused::NotReady));
        }
        let pod = self.bound_to(request).await.map_err(|error| {
            let status = Status::new(error.reason().code(), error.to_string());
            let away = status.code() == Code::Unavailable;
            (status, if away { Refused::NotReady } else { Refused::Token })
        })?;
        let link = self.discovery.hub.join(&pod.key);
        let link = link.map_err(|full| (Status::resource_exhausted(full.to_string()), Refused::Full))?;
        Ok((pod, Place { discovery: Arc::clone(&self.discovery), link, taken: false }))
    }

    /// The pod that the request's token is bound to.
    async fn bound_to(&self, request: &Request<Incoming>) -> Result<BoundTo, AttestError> {
        let caller = self.attestors.attest(request.headers()).await?;
        let pod = caller.pod.ok_or(AttestError::NotBound)?;
        let namespace = caller.identity.namespace().unwrap_or_default();
        Ok(BoundTo { key: ObjectKey::new(namespace, &pod.name), uid: pod.uid })
    }
}

/// Returns when the process is to end.
async fn ended(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|ending| *ending).await;
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("no handshake within {HANDSHAKE:?}")]
    Deadline,
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

fn http2_settings() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS);
    builder
}

/// A stream's place among the streams, until the stream itself gives it back.
struct Place {
    discovery: Arc<Discovery>,
    link: Arc<Link>,
    taken: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.taken {
            self.discovery.hub.leave(&self.link, std::iter::empty());
        }
    }
}

/// Makes a stream of the one request.
struct Handler {
    discovery: Arc<Discovery>,
    admitted: Option<(BoundTo, Place)>,
}

type Answering = Pin<Box<dyn Future<Output = Result<tonic::Response<Responses>, Status>> + Send>>;

impl tonic::codegen::Service<tonic::Request<Streaming<DeltaDiscoveryRequest>>> for Handler {
    type Response = tonic::Response<Responses>;
    type Error = Status;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Streaming<DeltaDiscoveryRequest>>) -> Answering {
        let admitted = self.admitted.take();
        let discovery = Arc::clone(&self.discovery);
        Box::pin(async move {
            let (pod, mut place) = admitted.ok_or_else(|| Status::internal("called twice"))?;
            let (answers, queue) = mpsc::channel::<Result<DeltaDiscoveryResponse, Status>>(1);
            place.taken = true;
            let link = Arc::clone(&place.link);
            let counted = discovery.metrics.stream();
            let stream = Stream::new(discovery, pod, link);
            tokio::spawn(async move {
                let _counted = counted;
                stream.run(request.into_inner(), answers).await;
            });
            Ok(tonic::Response::new(Box::pin(ReceiverStream::new(queue)) as Responses))
        })
    }
}
