//! The one fatal alert that tells the far sidecar what happened to the application here.
//!
//! To say "the application behind me failed" inside the encrypted stream, where nobody on the path can forge
//! it, one alert record (RFC 8446 section 6) is the stream's last, and the connection ends.

use std::{future::poll_fn, io, time::Duration};

use rustls::AlertDescription;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::stream::MeshStream;
use crate::{copy::socket, ending, sys};

/// The alert for an application that reset or could not be reached. No TLS library sends it in the middle
/// of a healthy stream.
pub const APPLICATION_FAILED: AlertDescription = AlertDescription::InternalError;

/// The alert for an application that refused the connection: nobody listens there. TLS libraries send it
/// during a handshake only.
pub const REFUSED: AlertDescription = AlertDescription::UnrecognisedName;

/// The alert for a peer that policy does not admit.
pub const DENIED: AlertDescription = AlertDescription::AccessDenied;

/// How long the last bytes before the alert, and the alert, may take to leave. A peer that does not
/// read for longer gets a cut stream instead.
const ALERT_DEADLINE: Duration = Duration::from_secs(5);

/// How often the kernel is asked whether everything has left: some round trips within a data centre.
const DELIVERED_POLL: Duration = Duration::from_millis(5);

/// Ends the stream with `alert`: what was written before is delivered, then the alert, then a FIN.
///
/// Where the application's end was already announced, no alert can follow: then the socket is reset,
/// which the far sidecar takes for the same.
pub async fn abort(mut stream: MeshStream, alert: AlertDescription) {
    let flushed = timeout(ALERT_DEADLINE, poll_fn(|cx| stream.poll_flush(cx))).await;
    if stream.close_notify_sent() {
        // A reset takes with it what the kernel has not delivered, and so the end that was announced.
        let _ = timeout(ALERT_DEADLINE, delivered(&stream)).await;
        ending::reset(stream.into_tcp());
        return;
    }
    let (tcp, sealer) = stream.into_parts();
    if !matches!(flushed, Ok(Ok(()))) {
        ending::reset(tcp);
        return;
    }
    match sealer.and_then(|mut sealer| sealer.fatal(alert)) {
        Ok(record) => {
            if matches!(timeout(ALERT_DEADLINE, say_last(&tcp, &record)).await, Ok(Ok(()))) {
                ending::finish(tcp).await;
            } else {
                ending::reset(tcp);
            }
        }
        // The session is already in error and has sent its own alert: only the FIN is left to say.
        Err(error) => {
            tracing::debug!(%error, "no alert could be sealed");
            ending::finish(tcp).await;
        }
    }
}

/// Writes `record`, which the FIN follows.
async fn say_last(tcp: &TcpStream, mut record: &[u8]) -> io::Result<()> {
    while !record.is_empty() {
        let written = poll_fn(|cx| socket::poll_write_last(tcp, cx, record)).await?;
        record = &record[written..];
    }
    Ok(())
}

/// Waits until the peer's kernel has acknowledged everything.
async fn delivered(stream: &MeshStream) {
    while sys::tcp_info(stream.socket()).is_ok_and(|info| info.unacked > 0 || info.unsent_bytes > 0) {
        sleep(DELIVERED_POLL).await;
    }
}
