//! The shared last part of both stories: copy, watch, and end each leg as its application must see it.
//!
//! The table of ends is here and nowhere else: what the own application sees, what the far side sees,
//! and which reason is recorded.

use std::{future::poll_fn, net::SocketAddr, pin::Pin, rc::Rc, task::Poll};

use rustls::AlertDescription;
use tokio::{net::TcpStream, time::Instant};

use crate::{
    black_hole::BlackHole,
    copy::{Duplex, End, Fault, Outcome},
    ending,
    limits::Permit,
    probe,
    reason::Reason,
    record::{Direction, Live, Record},
    registry::{Entry, Told},
    sys,
    tls::alert::{self, APPLICATION_FAILED, DENIED},
    worker::Context,
};

/// What the own application sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Application {
    /// A FIN, and no reset before it has closed too.
    Fin,
    /// A RST at once.
    Reset,
}

/// What the far side sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remote {
    /// A fatal alert inside the stream and a FIN; a RST where there is no TLS.
    Alert(AlertDescription),
    /// A FIN without a word.
    Fin,
    /// A RST: there is nobody who would read more.
    Reset,
}

/// A connection that is copied to its end, and all that it holds meanwhile.
pub type Relaying = Pin<Box<dyn Future<Output = ()>>>;

/// A connection whose both legs stand.
#[derive(Debug)]
pub struct Relay {
    /// Its record, established.
    pub record: Record,
    /// The leg on the network side.
    pub remote: End,
    /// The leg to the own application.
    pub application: TcpStream,
    /// What downstream said before the legs stood.
    pub first: Vec<u8>,
    /// Its place among the connections, kept until both legs are closed.
    pub permit: Permit,
}

impl Relay {
    /// Copies until the end and ends both legs.
    ///
    /// Not an `async fn`: what such a one is given it holds twice, and this is what every idle connection holds.
    pub fn run(self, context: Rc<Context>) -> impl Future<Output = ()> {
        let Self { record, remote, application, first, permit } = self;
        record.established();
        let root = match &remote {
            End::Mesh(stream) => Some(stream.peer().root),
            End::Plain(_) => None,
        };
        let stay = context.registry.enter(record.live(), root);
        stay.judge_again(&context.snapshots, &context.credentials);
        let mut duplex = Duplex::new(context.config.half_close_timeout, &first);
        let mut legs = (remote, End::Plain(application));
        async move {
            let reason = copy_and_watch(&context, stay.entry(), &record, &mut duplex, &mut legs).await;
            drop(stay);
            // Boxed: most connections live long, and none of them should hold the room for its end.
            Box::pin(end(&context, record, legs, (reason, duplex.downstream_spoke()))).await;
            drop(permit);
        }
    }
}

/// Ends both legs as each application must see it, once nothing more is copied.
async fn end(
    context: &Context,
    record: Record,
    (mut remote, application): (End, End),
    (reason, downstream_spoke): (Reason, bool),
) {
    if !downstream_spoke
        && let Some(probed) = probe::probed(&context.config, record.live())
        && is_refused_probe(reason, &application, &mut remote).await
    {
        probe::remember(probed);
    }
    let (to_application, to_remote) = ends(reason, cut_is_reset(context, &record));
    record.close(reason, None);
    if let End::Plain(application) = application {
        tokio::join!(end_application(application, to_application), end_remote(remote, to_remote));
    }
}

/// Whether the application sees a reset where the far sidecar died.
pub(crate) fn cut_is_reset(context: &Context, record: &Record) -> bool {
    let destination = record.live().destination.get().map(|destination| destination.port());
    destination.is_some_and(|port| context.config.truncation_reset_ports.contains(&port))
}

/// Whether a connection on which the application said nothing was a probe that the far application refused.
async fn is_refused_probe(reason: Reason, application: &End, remote: &mut End) -> bool {
    match application {
        End::Plain(application) if reason == Reason::PeerRefused => {
            probe::leaves_without_a_byte(application).await
        }
        // It was faster than the answer.
        End::Plain(_) if reason == Reason::ApplicationReset => probe::hears_refusal(remote).await,
        End::Plain(_) | End::Mesh(_) => false,
    }
}

async fn copy_and_watch(
    context: &Context,
    entry: &Entry,
    record: &Record,
    duplex: &mut Duplex,
    (remote, application): &mut (End, End),
) -> Reason {
    let direction = record.live().direction;
    let mut black_hole = BlackHole::new(context.config.blackhole_timeout);
    loop {
        let (downstream, upstream) = match direction {
            Direction::Inbound => (&mut *remote, &mut *application),
            Direction::Outbound => (&mut *application, &mut *remote),
        };
        tokio::select! {
            biased;
            told = entry.told() => match told {
                Told::End(reason) => return reason,
                Told::Probe => {
                    if swallows(&mut black_hole, remote) {
                        return Reason::BlackHoled;
                    }
                    entry.set_in_flight(black_hole.is_waiting());
                }
                Told::Rest => {
                    if let End::Mesh(stream) = remote {
                        stream.rest();
                    }
                }
            },
            () = fenced(context, record.live()) => return Reason::Fenced,
            outcome = duplex.run(downstream, upstream, &record.live().bytes) => {
                return reason_of(outcome, direction, remote);
            }
        }
    }
}

/// Ready when this connection may not go on. It wakes nobody (the registry does), but whoever was woken asks
/// it first: a process that was stopped has bytes to copy before anything has judged how long that was.
async fn fenced(context: &Context, live: &Live) {
    let is_fenced = || {
        let port = live.destination.get().map_or(0, SocketAddr::port);
        live.direction == Direction::Inbound
            && context.fence.is_closed()
            && context.fenced_off(port).is_some()
    };
    poll_fn(|_| if is_fenced() { Poll::Ready(()) } else { Poll::Pending }).await;
}

fn swallows(black_hole: &mut BlackHole, remote: &End) -> bool {
    match remote {
        // A host outside the mesh has its own failure detection on both ends of one TCP connection.
        End::Plain(_) => false,
        End::Mesh(stream) => {
            sys::tcp_info(stream.socket()).is_ok_and(|info| black_hole.swallows(info, Instant::now()))
        }
    }
}

fn reason_of(outcome: Outcome, direction: Direction, remote: &End) -> Reason {
    let application_failed = match (outcome, direction) {
        (Outcome::Complete, _) => return Reason::Complete,
        (Outcome::HalfCloseTimeout, _) => return Reason::HalfCloseTimeout,
        (Outcome::Downstream(fault), Direction::Inbound)
        | (Outcome::Upstream(fault), Direction::Outbound) => Err(fault),
        (Outcome::Downstream(_), Direction::Outbound) | (Outcome::Upstream(_), Direction::Inbound) => Ok(()),
    };
    match application_failed {
        Ok(()) => Reason::ApplicationReset,
        Err(fault) => match fault {
            Fault::ApplicationRefused => Reason::PeerRefused,
            Fault::Cut => Reason::StreamCut,
            Fault::Denied => Reason::DeniedByPeer,
            Fault::Invalid => Reason::TlsFailed,
            Fault::PeerFailed => Reason::PeerFailed,
            Fault::Refused => Reason::HandshakeRefusedByPeer,
            Fault::Reset => match remote {
                End::Mesh(_) => Reason::StreamCut,
                End::Plain(_) => Reason::RemoteReset,
            },
        },
    }
}

/// The table of ends of an established connection.
#[expect(clippy::match_same_arms, reason = "one row per reason, so that each can be read and changed alone")]
fn ends(reason: Reason, cut_is_reset: bool) -> (Application, Remote) {
    match reason {
        Reason::Complete => (Application::Fin, Remote::Fin),
        Reason::ApplicationReset => (Application::Reset, Remote::Alert(APPLICATION_FAILED)),
        Reason::PeerFailed | Reason::PeerRefused | Reason::DeniedByPeer | Reason::HandshakeRefusedByPeer => {
            (Application::Reset, Remote::Fin)
        }
        Reason::StreamCut if cut_is_reset => (Application::Reset, Remote::Fin),
        Reason::StreamCut => (Application::Fin, Remote::Fin),
        Reason::RemoteReset => (Application::Reset, Remote::Reset),
        Reason::TlsFailed => (Application::Reset, Remote::Fin),
        Reason::BlackHoled => (Application::Reset, Remote::Reset),
        Reason::HalfCloseTimeout => (Application::Reset, Remote::Alert(APPLICATION_FAILED)),
        Reason::AuthorizationChanged | Reason::ModeChanged => (Application::Reset, Remote::Alert(DENIED)),
        // A planned rotation ends like this too: a FIN lets both applications connect again with what
        // is trusted now, where a RST would make a ring throw out a healthy node. Whoever is really
        // distrusted fails its next handshake.
        Reason::RootRemoved => (Application::Fin, Remote::Fin),
        Reason::Drained => (Application::Fin, Remote::Fin),
        // Nothing more may pass, and clients shall turn to the other nodes at once.
        Reason::Fenced => (Application::Reset, Remote::Alert(APPLICATION_FAILED)),
        // Reasons that end a connection before it is established; one of them here would be a bug, and
        // the safe end is a failure on both sides.
        Reason::Aborted
        | Reason::Certificate(_)
        | Reason::DestinationRuleUnsupported
        | Reason::DialFailed
        | Reason::DialRefused
        | Reason::DialTimeout
        | Reason::DialUnreachable
        | Reason::ForeignDestination
        | Reason::HandshakeEof
        | Reason::HandshakeFailed
        | Reason::HandshakeTimeout
        | Reason::IdentityMismatch
        | Reason::LimitConnectionsPerSource
        | Reason::NoClientCertificate
        | Reason::NoCredentials
        | Reason::NoOriginalDestination
        | Reason::NoPolicy
        | Reason::OutsideRefused
        | Reason::OwnAddress
        | Reason::PlaintextRefused
        | Reason::PolicyDenied
        | Reason::TlsVersionRefused
        | Reason::UnknownDestination => (Application::Reset, Remote::Alert(APPLICATION_FAILED)),
    }
}

async fn end_application(stream: TcpStream, sees: Application) {
    match sees {
        Application::Fin => ending::finish(stream).await,
        Application::Reset => ending::reset(stream),
    }
}

async fn end_remote(end: End, sees: Remote) {
    match (end, sees) {
        (End::Mesh(stream), Remote::Alert(description)) => alert::abort(*stream, description).await,
        (End::Mesh(stream), Remote::Fin) => ending::finish(stream.into_tcp()).await,
        (End::Mesh(stream), Remote::Reset) => ending::reset(stream.into_tcp()),
        (End::Plain(stream), Remote::Fin) => ending::finish(stream).await,
        (End::Plain(stream), Remote::Alert(_) | Remote::Reset) => ending::reset(stream),
    }
}
