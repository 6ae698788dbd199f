//! The CA's own server: who answers behind its [`Door`], and with which certificate.

mod tls;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::body::Body;

use crate::door::{Answers, ConnectionLimits, Deadlines, Door, DoorMetrics, Visit};
use crate::service::CertificateService;

pub(crate) use tls::ServingCertificate;
pub use tls::TlsSetupError;

/// Requests at once on one connection; an agent sends one.
const MAX_STREAMS: u32 = 32;
/// Time for requests in progress once a connection is to end.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// The listener with what its connections share.
pub(crate) struct Server {
    pub(crate) certificate: Arc<ServingCertificate>,
    pub(crate) service: Arc<CertificateService>,
    pub(crate) metrics: DoorMetrics,
    pub(crate) limits: ConnectionLimits,
    pub(crate) deadlines: Deadlines,
}

impl Server {
    /// Serves until `shutdown` turns true.
    pub(crate) async fn run(
        self,
        listener: TcpListener,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), TlsSetupError> {
        let tls = tls::server_config(self.certificate)?;
        let door = Door {
            answers: self.service,
            limits: Arc::new(self.limits),
            deadlines: self.deadlines,
            streams: MAX_STREAMS,
            metrics: self.metrics,
        };
        Arc::new(door).run(listener, tls, shutdown).await;
        Ok(())
    }
}

impl Answers for CertificateService {
    type Body = Body;

    async fn answer(&self, request: Request<Incoming>, visit: Visit) -> Response<Body> {
        let _busy = visit.busy;
        self.decide_and_say(request, visit.peer).await
    }
}
