//! Who is served behind the door: the pods that the API server vouches for, each with its stream.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use hyper::body::Incoming;
use ringmail_ca::{
    attest::{AttestError, Attestors},
    door::{Answers, Busy, ConnectionLimits, Door, Source, Visit},
};
use ringmail_xds::{
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    service::{self, Responses},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
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

/// Streams of one connection; a proxy opens one after the other. Each asks the API server about a token.
const MAX_STREAMS: u32 = 2;
/// Bytes of a request. A client that comes back says what it holds: some 100 bytes for each of 16 384 resources.
const MAX_REQUEST: usize = 4 * 1024 * 1024;

/// Serves on `listener` until `shutdown` turns true.
pub(crate) async fn run(
    server: Server,
    listener: TcpListener,
    settings: &Settings,
    shutdown: watch::Receiver<bool>,
) -> Result<(), rustls::Error> {
    let tls = server.serving.server_config()?;
    // Connections that are being replaced stand beside their successors.
    let (total, per_source) = (2 * settings.max_streams, settings.max_connections_per_source);
    let door = Door {
        limits: Arc::new(ConnectionLimits::new(total, per_source, Source::Address)),
        deadlines: settings.deadlines,
        streams: MAX_STREAMS,
        metrics: server.discovery.metrics.door(),
        answers: Arc::new(server),
    };
    Arc::new(door).run(listener, tls, shutdown).await;
    Ok(())
}

/// What connections share.
pub(crate) struct Server {
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) attestors: Attestors,
    pub(crate) serving: Arc<Serving>,
}

impl Answers for Server {
    type Body = Body;

    async fn answer(&self, request: Request<Incoming>, visit: Visit) -> Response<Body> {
        if request.uri().path() != service::PATH {
            let status = Status::unimplemented(format!("expected {}", service::PATH));
            return self.refuse(visit.peer, &status, Refused::Method);
        }
        match self.admit_stream(&request).await {
            Ok((pod, place)) => {
                let admitted = Some((pod, place, visit.busy));
                let handler = Handler { discovery: Arc::clone(&self.discovery), admitted };
                service::serve(handler, request, MAX_REQUEST).await
            }
            Err((status, reason)) => self.refuse(visit.peer, &status, reason),
        }
    }
}

impl Server {
    fn refuse(&self, peer: SocketAddr, status: &Status, reason: Refused) -> Response<Body> {
        self.discovery.metrics.refused_stream(reason);
        tracing::info!(%peer, reason = reason.as_str(), error = status.message(), "stream refused");
        status.clone().into_http()
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
    admitted: Option<(BoundTo, Place, Busy)>,
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
            let (pod, mut place, busy) = admitted.ok_or_else(|| Status::internal("called twice"))?;
            let (answers, queue) = mpsc::channel::<Result<DeltaDiscoveryResponse, Status>>(1);
            place.taken = true;
            let link = Arc::clone(&place.link);
            let counted = discovery.metrics.stream();
            let stream = Stream::new(discovery, pod, link);
            tokio::spawn(async move {
                let _held = (counted, busy);
                stream.run(request.into_inner(), answers).await;
            });
            Ok(tonic::Response::new(Box::pin(ReceiverStream::new(queue)) as Responses))
        })
    }
}
