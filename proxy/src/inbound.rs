//! The life of a connection from the network to this pod's application: accept, original destination,
//! mode, handshake, authorize, connect, copy, record. The mirror image of `outbound`.
//!
//! The application is never dialled before its peer is authorized.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use ringmail_policy::{Mode, Request};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{
    connect::{self, Hop},
    copy::End,
    ending, introduce,
    listen::Accepted,
    mode::{self, First, Speaks, Spoke},
    orig_dst::original_destination,
    reason::Reason,
    record::{Direction, Protection, Record},
    refusal::Refusal,
    relay::{Relay, Relaying},
    snapshot::Snapshot,
    tls::{self, HandshakeError, alert},
    worker::Context,
};

/// Both legs of a connection that is let in.
struct Admitted {
    remote: End,
    application: TcpStream,
    /// What the client said before it was clear what it speaks. The application gets it once the connection
    /// is among those that a change can end.
    first: Vec<u8>,
}

/// A leg that is refused: why, and what is left of it to end.
type Refused = (Refusal, Option<End>);

/// Serves one captured connection to the application: what is still to be done, where it is let in.
pub async fn serve(context: Rc<Context>, accepted: Accepted) -> Option<Relaying> {
    let Accepted { stream, source, mut permit, .. } = accepted;
    let record = Record::open(&context.ledger, Direction::Inbound, source);
    let Ok(stream) = TcpStream::from_std(stream) else {
        record.close(Reason::RemoteReset, None);
        return None;
    };
    if !permit.charge(source.ip()) {
        record.close(Reason::LimitConnectionsPerSource, None);
        ending::reset(stream);
        return None;
    }
    match admit(&context, &record, stream).await {
        Ok(Admitted { remote, application, first }) => {
            Some(Box::pin(Relay { record, remote, application, first, permit }.run(context)))
        }
        Err((refusal, remote)) => {
            record.close(refusal.reason(), Some(refusal.to_string()));
            if let Some(remote) = remote {
                refuse(remote, &refusal).await;
            }
            None
        }
    }
}

async fn admit(context: &Context, record: &Record, stream: TcpStream) -> Result<Admitted, Refused> {
    let destination = match original_destination(&stream, Direction::Inbound, &context.own) {
        Ok(destination) => destination,
        Err(error) => return Err((error.into(), Some(End::Plain(stream)))),
    };
    record.destination(destination);
    let Some(snapshot) = context.snapshots.borrow().clone() else {
        return Err((Refusal::NoPolicy, Some(End::Plain(stream))));
    };
    introduce::ask(context, &snapshot, record);
    let admission = Admission { context, record, snapshot, destination };
    let deadline = Instant::now() + context.config.handshake_timeout;
    match admission.snapshot.inbound.mode(destination.port()).mode {
        Mode::Disable => admission.plain(stream, Vec::new(), Protection::ModeDisable).await,
        Mode::Permissive => admission.permissive(stream, deadline).await,
        Mode::Strict => admission.secure(stream, Vec::new(), deadline).await,
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
    async fn secure(
        &self,
        mut stream: TcpStream,
        prefix: Vec<u8>,
        deadline: Instant,
    ) -> Result<Admitted, Refused> {
        let source = self.record.live().source.ip();
        let late = || HandshakeError::TimedOut(self.context.config.handshake_timeout);
        // A turn is for those who have something to say: silence waits without one. And whoever speaks no TLS is
        // to see what a closed port shows, not an alert that its own protocol would take for an answer.
        let first = match mode::first_bytes(&mut stream, prefix, deadline).await {
            Ok(first) => first,
            Err(error) => return Err((Refusal::Socket(error), None)),
        };
        let refused = match first.speaks {
            Speaks::Tls => None,
            Speaks::Plaintext => Some(HandshakeError::Plaintext),
            Speaks::Unclear if first.ended => Some(HandshakeError::Eof),
            Speaks::Unclear => Some(late()),
        };
        if let Some(error) = refused {
            return Err((error.into(), Some(End::Plain(stream))));
        }
        let Ok(Some(turn)) = timeout_at(deadline, self.context.limits.handshake(source)).await else {
            return Err((late().into(), Some(End::Plain(stream))));
        };
        let credentials = match self.context.credentials_within(Duration::ZERO).await {
            Ok(credentials) => credentials,
            Err(refusal) => return Err((refusal, Some(End::Plain(stream)))),
        };
        self.record.presents(&credentials.svid);
        let rest = deadline.saturating_duration_since(Instant::now());
        let stream =
            tls::accept(stream, first.bytes, &credentials, rest).await.map_err(|(error, socket)| {
                let error = if matches!(error, HandshakeError::TimedOut(_)) { late() } else { error };
                (error.into(), socket.map(End::Plain))
            })?;
        drop(turn);
        self.record.secured(stream.peer(), stream.handshake_took());
        introduce::wait(self.context, self.record).await;
        let remote = End::Mesh(Box::new(stream));
        match self.dial().await {
            Ok(application) => Ok(Admitted { remote, application, first: Vec::new() }),
            Err(refusal) => Err((refusal, Some(remote))),
        }
    }

    async fn plain(
        &self,
        stream: TcpStream,
        first: Vec<u8>,
        protection: Protection,
    ) -> Result<Admitted, Refused> {
        self.record.protection(protection);
        match self.dial().await {
            Ok(application) => Ok(Admitted { remote: End::Plain(stream), application, first }),
            Err(refusal) => Err((refusal, Some(End::Plain(stream)))),
        }
    }

    async fn permissive(&self, mut stream: TcpStream, deadline: Instant) -> Result<Admitted, Refused> {
        let source = introduce::wait(self.context, self.record).await;
        let by_tls = self.snapshot.expects_tls(source.as_deref(), self.destination.port());
        let config = &self.context.config;
        let until = if by_tls { deadline } else { mode::deadline(config.permissive_wait) };
        let first = match mode::first_bytes(&mut stream, Vec::new(), until).await {
            Ok(first) => first,
            Err(error) => return Err((Refusal::Socket(error), None)),
        };
        match (first.speaks, by_tls) {
            (Speaks::Tls, _) => self.secure(stream, first.bytes, deadline).await,
            (Speaks::Plaintext, true) => Err((HandshakeError::Plaintext.into(), Some(End::Plain(stream)))),
            (Speaks::Unclear, true) => {
                Err((HandshakeError::TimedOut(config.handshake_timeout).into(), Some(End::Plain(stream))))
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
    async fn silent(&self, mut stream: TcpStream, first: First) -> Result<Admitted, Refused> {
        let application = match self.dial().await {
            Ok(application) => application,
            Err(refusal) => return Err((refusal, Some(End::Plain(stream)))),
        };
        let spoke = match self.broken_silence(&stream, &application).await {
            Ok(spoke) => spoke,
            Err(refusal) => {
                ending::reset(application);
                return Err((refusal, Some(End::Plain(stream))));
            }
        };
        let first = match spoke {
            Spoke::Application => first.bytes,
            Spoke::Client => {
                let until = mode::deadline(self.context.config.permissive_wait);
                match mode::first_bytes(&mut stream, first.bytes, until).await {
                    Ok(more) if more.speaks == Speaks::Tls => {
                        drop(application);
                        let deadline = Instant::now() + self.context.config.handshake_timeout;
                        return self.secure(stream, more.bytes, deadline).await;
                    }
                    Ok(more) => more.bytes,
                    Err(error) => {
                        ending::reset(application);
                        return Err((Refusal::Socket(error), None));
                    }
                }
            }
        };
        self.record.protection(Protection::Permissive);
        Ok(Admitted { remote: End::Plain(stream), application, first })
    }

    /// Who speaks first. Silence may last for hours, so a change reaches it as it reaches those who speak.
    async fn broken_silence(&self, client: &TcpStream, application: &TcpStream) -> Result<Spoke, Refusal> {
        let stay = self.context.registry.enter(self.record.live(), None);
        stay.judge_again(&self.context.snapshots, &self.context.credentials);
        tokio::select! {
            biased;
            reason = stay.entry().told_to_end() => Err(Refusal::Ended(reason)),
            spoke = mode::first_to_speak(client, application) => spoke.map_err(Refusal::Socket),
        }
    }

    async fn dial(&self) -> Result<TcpStream, Refusal> {
        self.authorize()?;
        // Here, after the handshake: inside the stream the far sidecar can be told, and resets its application,
        // which would take an end before that for a sidecar that died.
        if let Some(absence) = self.context.fenced_off(self.destination.port()) {
            return Err(Refusal::Fenced(absence.away()));
        }
        Ok(connect::dial(Hop::Application, self.destination, &self.context.config).await?)
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
