//! The life of a connection from this pod's application to the network: accept, original destination,
//! route, connect, handshake, copy, record. The mirror image of `inbound`.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use ringmail_identity::SpiffeId;
use tokio::net::TcpStream;

use crate::{
    connect::{self, Hop},
    copy::End,
    ending,
    listen::Accepted,
    orig_dst::original_destination,
    probe,
    reason::Reason,
    record::{Direction, Protection, Record},
    refusal::Refusal,
    relay::{self, Relay, Relaying},
    route::{self, Next},
    tls::{self, MeshStream, alert},
    worker::Context,
};

/// A leg that is refused: why, and the stream that is told so, where there is one.
type Refused = (Refusal, Option<Box<MeshStream>>);

/// Serves one captured connection of the application: what is still to be done, where the other leg stands.
pub async fn serve(context: Rc<Context>, accepted: Accepted) -> Option<Relaying> {
    let Accepted { stream, source, permit, .. } = accepted;
    let record = Record::open(&context.ledger, Direction::Outbound, source);
    let Ok(application) = TcpStream::from_std(stream) else {
        record.close(Reason::ApplicationReset, None);
        return None;
    };
    match reach(&context, &record, &application).await {
        Ok(remote) => {
            Some(Box::pin(Relay { record, remote, application, first: Vec::new(), permit }.run(context)))
        }
        Err((refusal, remote)) => {
            refuse(&context, record, (application, refusal, remote)).await;
            drop(permit);
            None
        }
    }
}

/// Ends both legs of a connection that is refused.
async fn refuse(
    context: &Context,
    record: Record,
    (application, refusal, remote): (TcpStream, Refusal, Option<Box<MeshStream>>),
) {
    let reason = refusal.reason();
    if reason == Reason::DialRefused
        && let Some(probed) = probe::probed(&context.config, record.live())
        && probe::leaves_without_a_byte(&application).await
    {
        probe::remember(probed);
    }
    let is_end = reason == Reason::HandshakeEof && !relay::cut_is_reset(context, &record);
    record.close(reason, Some(refusal.to_string()));
    if is_end {
        // The far sidecar died in mid-handshake: as if it had a moment later, a cut stream.
        ending::finish(application).await;
    } else {
        ending::reset(application);
    }
    if let Some(stream) = remote {
        alert::abort(*stream, refusal.alert()).await;
    }
}

async fn reach(context: &Context, record: &Record, application: &TcpStream) -> Result<End, Refused> {
    let untold = |refusal| (refusal, None);
    let destination = original_destination(application, Direction::Outbound, &context.own)
        .map_err(|error| untold(error.into()))?;
    record.destination(destination);
    let (next, decided_by) = route::resolve(&context.snapshots, &context.asker, &context.config, destination)
        .await
        .map_err(|error| untold(error.into()))?;
    record.decided_by(&decided_by);
    let (stream, address, expected) = match dial(context, record, next).await.map_err(untold)? {
        Dialled::Outside(remote) => return Ok(remote),
        Dialled::Mesh { stream, address, expected } => (stream, address, expected),
    };
    match route::confirm(&context.snapshots, address, expected, &stream.peer().id).await {
        Ok(()) => Ok(End::Mesh(stream)),
        Err(mismatch) => Err((mismatch.into(), Some(stream))),
    }
}

/// The other leg.
enum Dialled {
    Mesh { stream: Box<MeshStream>, address: SocketAddr, expected: Arc<[SpiffeId]> },
    Outside(End),
}

async fn dial(context: &Context, record: &Record, next: Next) -> Result<Dialled, Refusal> {
    match next {
        Next::Outside { address, reason, workload } => {
            record.protection(Protection::Outside(reason));
            if let Some(workload) = &workload {
                record.peer_workload(workload);
            }
            Ok(Dialled::Outside(End::Plain(connect::dial(Hop::Outside, address, &context.config).await?)))
        }
        Next::Mesh { address, identities, workload } => {
            record.peer_workload(&workload);
            let tcp = connect::dial(Hop::Sidecar, address, &context.config).await?;
            let stream = Box::new(secure(context, record, tcp, address.ip()).await?);
            Ok(Dialled::Mesh { stream, address, expected: identities })
        }
    }
}

async fn secure(
    context: &Context,
    record: &Record,
    tcp: TcpStream,
    destination: IpAddr,
) -> Result<MeshStream, Refusal> {
    let credentials = context.credentials_within(context.config.unknown_wait).await?;
    record.presents(&credentials.svid);
    let stream = tls::connect(tcp, destination, &credentials, context.config.handshake_timeout)
        .await
        .map_err(|(error, _socket)| error)?;
    record.secured(stream.peer(), stream.handshake_took());
    Ok(stream)
}
