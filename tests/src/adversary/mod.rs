//! A peer that breaks the rules on purpose: a TLS client and a TLS server whose certificates, messages and records
//! are whatever a test wants them to be.
//!
//! The honest part of each handshake is rustls's, with its verification switched off; what is hostile is made by hand.
//! Nothing of the proxy's own code is in here, so that both cannot share a mistake.

pub mod certificates;
pub mod handshakes;
pub mod hello;
pub mod records;
pub mod secrets;
pub mod session;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Whatever is refused must have ended by then. Above every deadline that a test sets for its sidecars.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Content types of records.
pub const CHANGE_CIPHER_SPEC: u8 = 20;
/// An alert's.
pub const ALERT: u8 = 21;
/// A handshake message's.
pub const HANDSHAKE: u8 = 22;
/// Data's, and every sealed record's.
pub const DATA: u8 = 23;

/// More than any answer to a refused connection, and little enough to be kept.
const MAX_ANSWER: usize = 1 << 20;

/// How a connection ended, as the adversary sees it, or an application beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this alert.
    Alert(u8),
    /// With an end in order, and no alert before it.
    Fin,
    /// It has not.
    Open,
    /// With a reset.
    Reset,
}

/// Rows in which rustls's record layer, where sidecars are set to it, ends otherwise than our own: it takes tickets for
/// ever, and key updates and empty records where they alternate, waits for the whole of a record that is longer than any may be, and a second flight is to it
/// still part of the handshake.
const OTHERWISE_IN_RUSTLS: [&str; 4] = [
    "a record longer than there are",
    "key updates and empty records in turns without an end",
    "the same flight twice",
    "tickets without an end",
];

/// How rustls's record layer ends a row that our own ends with an unexpected_message or a decode_error: it says nothing of what
/// there is too much of or what it may not hear there, and calls a message that it does not expect one that it cannot read.
const ENDS_IN_RUSTLS: [(&str, Ending); 11] = [
    ("a certificate that nobody asked for", Ending::Alert(50)),
    ("a heartbeat", Ending::Alert(50)),
    ("a hello: renegotiation", Ending::Alert(50)),
    ("a ticket of 16 MiB", Ending::Fin),
    ("an alert within a message", Ending::Fin),
    ("data within a message", Ending::Fin),
    ("empty records without an end", Ending::Fin),
    ("key updates without an end", Ending::Fin),
    ("key updates without an end, each to be answered", Ending::Fin),
    ("nothing but padding", Ending::Fin),
    ("warnings without an end", Ending::Fin),
];

fn is_rustls() -> bool {
    std::env::var("RINGMAIL_RECORD_LAYER").is_ok_and(|layer| layer == "rustls")
}

/// Whether a row holds of the record layer that the sidecars of this run have (`RINGMAIL_RECORD_LAYER`).
pub fn holds_of_this_layer(row: &str) -> bool {
    !(is_rustls() && OTHERWISE_IN_RUSTLS.contains(&row))
}

/// How a row ends on the record layer that the sidecars of this run have, where `ours` ends it so.
pub fn ends_on_this_layer(row: &str, ours: Ending) -> Ending {
    let theirs = ENDS_IN_RUSTLS.iter().find(|(name, _)| is_rustls() && *name == row);
    theirs.map_or(ours, |(_, ending)| *ending)
}

/// A record of any type with any length and content.
pub fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[kind, 3, 3], &length[..], content].concat()
}

/// A handshake message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// Sends without caring: whoever refuses may have stopped to listen, and that is fine.
pub fn throw(mut tcp: &TcpStream, bytes: &[u8]) {
    let _ = tcp.write_all(bytes);
}

/// Reads to the end. The alert is one in plaintext; what is sealed is passed over.
pub fn ending(tcp: &TcpStream) -> Ending {
    let (answer, ended) = read_to_end(tcp);
    if ended == Ending::Open { ended } else { alert_in(&answer).map_or(ended, Ending::Alert) }
}

/// All that comes until the end, and how it ended.
pub fn read_to_end(mut tcp: &TcpStream) -> (Vec<u8>, Ending) {
    let _ = tcp.set_read_timeout(Some(PATIENCE));
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match tcp.read(&mut chunk) {
            Ok(0) => return (answer, Ending::Fin),
            Ok(read) if answer.len() < MAX_ANSWER => answer.extend_from_slice(&chunk[..read]),
            Ok(_) => return (answer, Ending::Open),
            Err(error) => return (answer, ending_by(&error)),
        }
    }
}

/// What a failed read means.
fn ending_by(error: &io::Error) -> Ending {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(rustls::Error::AlertReceived(alert)), _) => Ending::Alert(u8::from(*alert)),
        (_, ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ending::Open,
        (_, ErrorKind::UnexpectedEof) => Ending::Fin,
        (_, _) => Ending::Reset,
    }
}

/// The last alert in plaintext among records.
fn alert_in(mut answer: &[u8]) -> Option<u8> {
    let mut alert = None;
    while let Some((header, rest)) = answer.split_first_chunk::<5>() {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let content = rest.get(..length)?;
        if let (ALERT, [_, description]) = (header[0], content) {
            alert = Some(*description);
        }
        answer = &rest[length..];
    }
    alert
}

/// The first record that comes.
///
/// # Errors
/// The socket's own, or its end.
pub fn read_record(mut tcp: &TcpStream) -> io::Result<Vec<u8>> {
    tcp.set_read_timeout(Some(PATIENCE))?;
    let mut record = vec![0; 5];
    tcp.read_exact(&mut record)?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    tcp.read_exact(&mut record[5..])?;
    Ok(record)
}
