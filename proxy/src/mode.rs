//! What an inbound client speaks, where the port's mode leaves that open (PERMISSIVE).
//!
//! The first bytes are read, kept and replayed: polling with a peek would spin while they are few.
//! Six bytes decide, because one does not: an Ignite thin client's handshake of 22 bytes starts with
//! the byte of a TLS handshake record. STRICT and DISABLE ports never come here: they read nothing
//! before they know.

use std::{io, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// Bytes that tell a ClientHello: record type, version, length, handshake type.
pub const DECIDING_BYTES: usize = 6;

/// Bytes read at once while deciding: a ClientHello with a hybrid key share fits, and more would only
/// be copied twice.
const FIRST_READ: usize = 2048;

const RECORD_TYPE_HANDSHAKE: u8 = 0x16;
const RECORD_VERSION_MAJOR: u8 = 3;
const RECORD_VERSION_MINOR_MAX: u8 = 4;
const HANDSHAKE_TYPE_CLIENT_HELLO: u8 = 1;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// They cannot start a ClientHello.
    Plaintext,
    /// They start a ClientHello.
    Tls,
    /// There are too few to say.
    Unclear,
}

/// Decides on the first bytes. Pure.
pub fn speaks(bytes: &[u8]) -> Speaks {
    let expected: [&dyn Fn(u8) -> bool; DECIDING_BYTES] = [
        &|byte| byte == RECORD_TYPE_HANDSHAKE,
        &|byte| byte == RECORD_VERSION_MAJOR,
        &|byte| byte <= RECORD_VERSION_MINOR_MAX,
        &|_length| true,
        &|_length| true,
        &|byte| byte == HANDSHAKE_TYPE_CLIENT_HELLO,
    ];
    if bytes.iter().zip(expected).any(|(byte, holds)| !holds(*byte)) {
        return Speaks::Plaintext;
    }
    if bytes.len() >= DECIDING_BYTES { Speaks::Tls } else { Speaks::Unclear }
}

/// What a client said first.
#[derive(Debug)]
pub struct First {
    /// Every byte that was read, to be replayed.
    pub bytes: Vec<u8>,
    /// What they say; [`Speaks::Unclear`] when the wait was over before.
    pub speaks: Speaks,
    /// The client ended its direction.
    pub ended: bool,
}

/// Reads until the first bytes decide, the client ends, or `deadline` passes. `bytes` holds what was
/// read before. Cancel safe only before the first byte.
///
/// # Errors
/// The socket's own.
pub async fn first_bytes(stream: &mut TcpStream, mut bytes: Vec<u8>, deadline: Instant) -> io::Result<First> {
    loop {
        let says = speaks(&bytes);
        if says != Speaks::Unclear {
            return Ok(First { bytes, speaks: says, ended: false });
        }
        bytes.reserve(FIRST_READ);
        match timeout_at(deadline, stream.read_buf(&mut bytes)).await {
            Ok(Ok(0)) => return Ok(First { bytes, speaks: Speaks::Unclear, ended: true }),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => return Ok(First { bytes, speaks: Speaks::Unclear, ended: false }),
        }
    }
}

/// Who broke the silence of a client that was dialled through.
#[derive(Debug)]
pub enum Spoke {
    /// The application: whatever the client says now, it is plaintext.
    Application,
    /// The client, or it ended.
    Client,
}

/// Waits until the client or the application has something to say.
///
/// # Errors
/// A socket's own.
pub async fn first_to_speak(client: &TcpStream, application: &TcpStream) -> io::Result<Spoke> {
    tokio::select! {
        biased;
        ready = client.readable() => ready.map(|()| Spoke::Client),
        ready = application.readable() => ready.map(|()| Spoke::Application),
    }
}

/// When a silent client is dialled through, and how long a client known to be in the mesh may think.
pub fn deadline(wait: Duration) -> Instant {
    Instant::now() + wait
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn six_bytes_decide_and_a_thin_client_of_22_bytes_is_no_tls() {
        let rows: &[(&[u8], Speaks)] = &[
            (&[], Speaks::Unclear),
            (&[0x16], Speaks::Unclear),
            (&[0x16, 3, 1, 0, 200], Speaks::Unclear),
            (&[0x16, 3, 1, 0, 200, 1], Speaks::Tls),
            (&[0x16, 3, 3, 2, 0, 1, 0], Speaks::Tls),
            (&[0x16, 3, 1, 0, 200, 2], Speaks::Plaintext),
            // Ignite: discovery, thin client of 22 bytes, memcached, REST ping, HTTP.
            (&[0, 0, 0x47, 0x47], Speaks::Plaintext),
            (&[22, 0, 0, 0, 1, 1, 0], Speaks::Plaintext),
            (&[22, 0], Speaks::Plaintext),
            (&[0x80], Speaks::Plaintext),
            (&[0x90, 0, 0, 0, 0], Speaks::Plaintext),
            (b"GET / HTTP/1.1", Speaks::Plaintext),
            (&[0x15, 3, 1, 0, 2, 1], Speaks::Plaintext),
            (&[0x16, 3, 5, 0, 2, 1], Speaks::Plaintext),
        ];
        for (bytes, expected) in rows {
            assert_eq!(speaks(bytes), *expected, "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_decision(bytes: Vec<u8>, cut in 0usize..64) {
            let early = speaks(&bytes[..cut.min(bytes.len())]);
            if early != Speaks::Unclear {
                prop_assert_eq!(early, speaks(&bytes));
            }
        }
    }
}
