//! The life of a connection from the network to this pod's application: accept, original destination,
//! mode, handshake, authorize, connect, copy, record. The mirror image of `outbound`.
//!
//! The application is never dialled before its peer is authorized.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use ringmail_policy::{Mode, Request};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::{
    connect,
    copy::End,
    ending,
    listen::Accepted,
    mode::{self, First, Speaks, Spoke},
    orig_dst::original_destination,
    reason::Reason,
    record::{Direction, Protection, Record},
    refusal::Refusal,
    relay::Relay,
    snapshot::Snapshot,
    tls::{self, HandshakeError, alert},
    worker::Context,
};

/// A leg that is refused: why, and what is left of it to end.
type Refused = (Refusal, Option<End>);

/// Serves one captured connection to the application, to its end.
pub async fn serve(context: Rc<Context>, accepted: Accepted) {
    let Accepted { stream, source, mut permit, .. } = accepted;
    let record = Record::open(&context.ledger, Direction::Inbound, source);
    let Ok(stream) = TcpStream::from_std(stream) else {
        return record.close(Reason::RemoteReset, None);
    };
    if !permit.charge(source.ip()) {
        record.close(Reason::LimitConnectionsPerSource, None);
        return ending::reset(stream);
    }
    match admit(&context, &record, stream).await {
        Ok((remote, application)) => Relay { record, remote, application, permit }.run(context).await,
        Err((refusal, remote)) => {
            record.close(refusal.reason(), Some(refusal.to_string()));
            if let Some(remote) = remote {
                refuse(remote, &refusal).await;
            }
        }
    }
}

async fn admit(context: &Context, record: &Record, stream: TcpStream) -> Result<(End, TcpStream), Refused> {
    let destination = match original_destination(&stream, Direction::Inbound, &context.own) {
        Ok(destination) => destination,
        Err(error) => return Err((error.into(), Some(End::Plain(stream)))),
    };
    record.destination(destination);
    let Some(snapshot) = context.snapshots.borrow().clone() else {
        return Err((Refusal::NoPolicy, Some(End::Plain(stream))));
    };
    if let Some(workload) = snapshot.outbound.workload(record.live().source.ip()) {
        record.peer_workload(workload);
    }
    let admission = Admission { context, record, snapshot, destination };
    match admission.snapshot.inbound.mode(destination.port()).mode {
        Mode::Disable => admission.plain(stream, Vec::new(), Protection::ModeDisable).await,
        Mode::Permissive => admission.permissive(stream).await,
        Mode::Strict => admission.secure(stream, Vec::new()).await,
    }
}

/// One connection on its way to being admitted, under the one snapshot it is judged by.
struct Admission<'a> {
    context: &'a Context,
    record: &'a Record,
    snapshot: Arc<Snapshot>,
    destination: SocketAddr,
}

impl Admission<'_> {
    async fn secure(&self, stream: TcpStream, prefix: Vec<u8>) -> Result<(End, TcpStream), Refused> {
        let source = self.record.live().source.ip();
        let deadline = self.context.config.handshake_timeout;
        let Ok(Some(turn)) = timeout(deadline, self.context.limits.handshake(source)).await else {
            return Err((HandshakeError::TimedOut(deadline).into(), Some(End::Plain(stream))));
        };
        let credentials = match self.context.credentials_within(Duration::ZERO).await {
            Ok(credentials) => credentials,
            Err(refusal) => return Err((refusal, Some(End::Plain(stream)))),
        };
        self.record.presents(&credentials.svid);
        let stream = tls::accept(stream, prefix, &credentials, deadline)
            .await
            .map_err(|(error, socket)| (error.into(), socket.map(End::Plain)))?;
        drop(turn);
        self.record.secured(stream.peer(), stream.handshake_took());
        let remote = End::Mesh(Box::new(stream));
        match self.dial().await {
            Ok(application) => Ok((remote, application)),
            Err(refusal) => Err((refusal, Some(remote))),
        }
    }

    async fn plain(
        &self,
        stream: TcpStream,
        first: Vec<u8>,
        protection: Protection,
    ) -> Result<(End, TcpStream), Refused> {
        self.record.protection(protection);
        match self.dial_with(&first).await {
            Ok(application) => Ok((End::Plain(stream), application)),
            Err(refusal) => Err((refusal, Some(End::Plain(stream)))),
        }
    }

    async fn permissive(&self, mut stream: TcpStream) -> Result<(End, TcpStream), Refused> {
        let in_mesh = self.snapshot.inbound.source_in_mesh(self.record.live().source.ip());
        let config = &self.context.config;
        let patience = if in_mesh { config.handshake_timeout } else { config.permissive_wait };
        let first = match mode::first_bytes(&mut stream, Vec::new(), mode::deadline(patience)).await {
            Ok(first) => first,
            Err(error) => return Err((Refusal::Socket(error), None)),
        };
        match (first.speaks, in_mesh) {
            (Speaks::Tls, _) => self.secure(stream, first.bytes).await,
            (Speaks::Plaintext, true) => Err((HandshakeError::Plaintext.into(), Some(End::Plain(stream)))),
            (Speaks::Unclear, true) => {
                Err((HandshakeError::TimedOut(patience).into(), Some(End::Plain(stream))))
            }
            (Speaks::Plaintext, false) => self.plain(stream, first.bytes, Protection::Permissive).await,
            (Speaks::Unclear, false) if first.ended => {
                self.plain(stream, first.bytes, Protection::Permissive).await
            }
            (Speaks::Unclear, false) => self.silent(stream, first).await,
        }
    }

    /// A client that says nothing may wait for the application to speak first, as on Ignite's port for
    /// communication. It is dialled through; a ClientHello still wins until the application has spoken.
    async fn silent(&self, mut stream: TcpStream, first: First) -> Result<(End, TcpStream), Refused> {
        let mut application = match self.dial().await {
            Ok(application) => application,
            Err(refusal) => return Err((refusal, Some(End::Plain(stream)))),
        };
        let spoke = mode::first_to_speak(&stream, &application).await;
        let bytes = match spoke {
            Ok(Spoke::Application) => first.bytes,
            Ok(Spoke::Client) => {
                let deadline = mode::deadline(self.context.config.permissive_wait);
                match mode::first_bytes(&mut stream, first.bytes, deadline).await {
                    Ok(more) if more.speaks == Speaks::Tls => {
                        drop(application);
                        return self.secure(stream, more.bytes).await;
                    }
                    Ok(more) => more.bytes,
                    Err(error) => return Err((Refusal::Socket(error), None)),
                }
            }
            Err(error) => return Err((Refusal::Socket(error), Some(End::Plain(stream)))),
        };
        self.record.protection(Protection::Permissive);
        match self.give(&mut application, &bytes).await {
            Ok(()) => Ok((End::Plain(stream), application)),
            Err(refusal) => Err((refusal, Some(End::Plain(stream)))),
        }
    }

    async fn dial(&self) -> Result<TcpStream, Refusal> {
        self.authorize()?;
        // Here, after the handshake: inside the stream the far sidecar can be told, and resets its application,
        // which would take an end before that for a sidecar that died.
        if let Some(absence) = self.context.fenced_off(self.destination.port()) {
            return Err(Refusal::Fenced(absence.away()));
        }
        Ok(connect::dial(self.destination, &self.context.config).await?)
    }

    async fn dial_with(&self, first: &[u8]) -> Result<TcpStream, Refusal> {
        let mut application = self.dial().await?;
        self.give(&mut application, first).await?;
        Ok(application)
    }

    async fn give(&self, application: &mut TcpStream, first: &[u8]) -> Result<(), Refusal> {
        application.write_all(first).await.map_err(Refusal::Socket)?;
        self.record.live().bytes.add_from_downstream(first.len() as u64);
        Ok(())
    }

    fn authorize(&self) -> Result<(), Refusal> {
        let live = self.record.live();
        let request = Request {
            identity: live.peer_identity.get(),
            source: live.source.ip(),
            destination: self.destination,
        };
        let verdict = self.snapshot.inbound.authorize(&request);
        self.record.decided_by(&verdict.decided_by);
        if verdict.allowed {
            return Ok(());
        }
        Err(Refusal::Denied { identity: live.peer_identity.get().cloned(), decided_by: verdict.decided_by })
    }
}

/// Ends a refused leg: inside the stream where there is one, with a FIN after rustls's own alert, and
/// with a RST for whoever speaks no TLS.
async fn refuse(remote: End, refusal: &Refusal) {
    match remote {
        End::Mesh(stream) => alert::abort(*stream, refusal.alert()).await,
        End::Plain(stream) if refusal.alert_was_sent() => ending::finish(stream).await,
        End::Plain(stream) => ending::reset(stream),
    }
}
