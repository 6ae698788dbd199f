//! The life of a connection from this pod's application to the network: accept, original destination,
//! route, connect, handshake, copy, record. The mirror image of `inbound`.

use std::{rc::Rc, sync::Arc};

use ringmail_identity::SpiffeId;
use ringmail_policy::Workload;
use tokio::net::TcpStream;

use crate::{
    connect,
    copy::End,
    ending,
    listen::Accepted,
    orig_dst::original_destination,
    probe,
    reason::Reason,
    record::{Direction, Protection, Record},
    refusal::Refusal,
    relay::Relay,
    route::{self, Next},
    tls::{self, alert},
    worker::Context,
};

/// Serves one captured connection of the application, to its end.
pub async fn serve(context: Rc<Context>, accepted: Accepted) {
    let Accepted { stream, source, permit, .. } = accepted;
    let record = Record::open(&context.ledger, Direction::Outbound, source);
    let Ok(application) = TcpStream::from_std(stream) else {
        return record.close(Reason::ApplicationReset, None);
    };
    match reach(&context, &record, &application).await {
        Ok(remote) => Relay { record, remote, application, permit }.run(context).await,
        Err(refusal) => {
            let reason = refusal.reason();
            if reason == Reason::DialRefused
                && let Some(probed) = probe::probed(&context.config, record.live())
                && probe::leaves_without_a_byte(&application).await
            {
                probe::remember(probed);
            }
            record.close(reason, Some(refusal.to_string()));
            if reason == Reason::HandshakeEof {
                // The far sidecar died in mid-handshake: as if it had a moment later, a cut stream.
                ending::finish(application).await;
            } else {
                ending::reset(application);
            }
        }
    }
}

async fn reach(context: &Context, record: &Record, application: &TcpStream) -> Result<End, Refusal> {
    let destination = original_destination(application, Direction::Outbound, &context.own)?;
    record.destination(destination);
    let (next, decided_by) = route::resolve(&context.snapshots, &context.config, destination).await?;
    record.decided_by(&decided_by);
    match next {
        Next::Outside { reason, workload } => {
            record.protection(Protection::Outside(reason));
            if let Some(workload) = &workload {
                record.peer_workload(workload);
            }
            Ok(End::Plain(connect::dial(destination, &context.config).await?))
        }
        Next::Mesh { identities, workload } => {
            let tcp = connect::dial(destination, &context.config).await?;
            secure(context, record, tcp, identities, &workload).await
        }
    }
}

async fn secure(
    context: &Context,
    record: &Record,
    tcp: TcpStream,
    expected: Arc<[SpiffeId]>,
    workload: &Arc<Workload>,
) -> Result<End, Refusal> {
    let destination = tcp.peer_addr().map_err(Refusal::Socket)?;
    record.peer_workload(workload);
    let credentials = context.credentials_within(context.config.unknown_wait).await?;
    record.presents(&credentials.svid);
    let stream = tls::connect(tcp, destination.ip(), &credentials, context.config.handshake_timeout)
        .await
        .map_err(|(error, _socket)| error)?;
    record.secured(stream.peer(), stream.handshake_took());
    match route::confirm(&context.snapshots, destination, expected, &stream.peer().id).await {
        Ok(()) => Ok(End::Mesh(Box::new(stream))),
        Err(mismatch) => {
            tokio::task::spawn_local(alert::abort(stream, alert::DENIED));
            Err(mismatch.into())
        }
    }
}
