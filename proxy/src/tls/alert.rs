//! The one fatal alert that tells the far sidecar what happened to the application here.
//!
//! rustls sends alerts for its own faults only. To say "the application behind me failed" inside the
//! encrypted stream, where nobody on the path can forge it, the stream's last record is sealed here:
//! rustls hands over the traffic key and its sequence number, one alert record is made as RFC 8446
//! sections 5.2 and 6 say, and the connection ends. A key is never used again after that.

use std::{io, time::Duration};

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets, crypto::cipher::Iv};
use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

use super::stream::MeshStream;
use crate::{ending, sys};

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

const CONTENT_TYPE_APPLICATION_DATA: u8 = 23;
const CONTENT_TYPE_ALERT: u8 = 21;
const ALERT_LEVEL_FATAL: u8 = 2;
const RECORD_HEADER_LEN: usize = 5;
const AEAD_TAG_LEN: usize = 16;
/// Level, description and the inner content type.
const ALERT_PLAINTEXT_LEN: usize = 3;

/// Ends the stream with `alert`: what was written before is delivered, then the alert, then a FIN.
///
/// Where the application's end was already announced, no alert can follow: then the socket is reset,
/// which the far sidecar takes for the same.
pub async fn abort(mut stream: MeshStream, alert: AlertDescription) {
    let flushed = timeout(ALERT_DEADLINE, std::future::poll_fn(|cx| stream.poll_flush(cx))).await;
    if stream.close_notify_sent() {
        // A reset takes with it what the kernel has not delivered, and so the end that was announced.
        let _ = timeout(ALERT_DEADLINE, delivered(&stream)).await;
        ending::reset(stream.into_tcp());
        return;
    }
    let (mut tcp, session) = stream.into_parts();
    if !matches!(flushed, Ok(Ok(()))) {
        ending::reset(tcp);
        return;
    }
    match seal(session, alert) {
        Ok(record) => {
            if matches!(timeout(ALERT_DEADLINE, tcp.write_all(&record)).await, Ok(Ok(()))) {
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

/// Waits until the peer's kernel has acknowledged everything.
async fn delivered(stream: &MeshStream) {
    while sys::tcp_info(stream.socket()).is_ok_and(|info| info.unacked > 0 || info.unsent_bytes > 0) {
        sleep(DELIVERED_POLL).await;
    }
}

fn seal(session: rustls::Connection, alert: AlertDescription) -> io::Result<Vec<u8>> {
    let secrets = session.dangerous_extract_secrets().map_err(io::Error::other)?;
    let (sequence, secrets) = secrets.tx;
    let (algorithm, key, iv) = match &secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
        _ => {
            return Err(io::Error::other("the session's cipher suite is none of the three that are offered"));
        }
    };
    seal_with(algorithm, key.as_ref(), iv, sequence, alert)
}

fn seal_with(
    algorithm: &'static Algorithm,
    key: &[u8],
    iv: &Iv,
    sequence: u64,
    alert: AlertDescription,
) -> io::Result<Vec<u8>> {
    let key =
        UnboundKey::new(algorithm, key).map_err(|_| io::Error::other("traffic key of a wrong length"))?;
    let mut nonce = [0u8; 12];
    nonce.copy_from_slice(iv.as_ref());
    for (byte, counter) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= counter;
    }
    let length = (ALERT_PLAINTEXT_LEN + AEAD_TAG_LEN) as u8;
    let header: [u8; RECORD_HEADER_LEN] = [CONTENT_TYPE_APPLICATION_DATA, 3, 3, 0, length];
    let mut body = [ALERT_LEVEL_FATAL, u8::from(alert), CONTENT_TYPE_ALERT];
    let tag = LessSafeKey::new(key)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut body)
        .map_err(|_| io::Error::other("the alert could not be sealed"))?;
    Ok([header.as_slice(), &body, tag.as_ref()].concat())
}
