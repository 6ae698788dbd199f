//! ClientHellos: a good one to be cut, swollen and bent, and those of other centuries.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::{HANDSHAKE, message, record, session};

const CLIENT_HELLO: u8 = 1;

/// The longest content of a record.
const MAX_RECORD: usize = 1 << 14;

/// The message of a good hello, without its record.
///
/// # Errors
/// Only where rustls fails.
pub fn good() -> Result<Vec<u8>> {
    let mut wire = Vec::new();
    session::client(None, &Arc::default())?.write_tls(&mut wire)?;
    Ok(wire.split_off(5))
}

/// The same hello with more extensions behind its own: type and content.
///
/// # Errors
/// If it is none.
pub fn with_extensions(hello: &[u8], more: &[(u16, Vec<u8>)]) -> Result<Vec<u8>> {
    let body = hello.get(4..).context("a hello without a body")?;
    let after = |at: usize, width: usize| -> Option<usize> {
        let length = body.get(at..at + width)?.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        Some(at + width + length)
    };
    // Version and random, then session, suites and compression.
    let at = after(34, 1).and_then(|at| after(at, 2)).and_then(|at| after(at, 1)).context("a cut hello")?;
    let mut extensions = body.get(at + 2..).context("a hello without extensions")?.to_vec();
    for (kind, content) in more {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(u16::try_from(content.len())?.to_be_bytes());
        extensions.extend(content);
    }
    let length = u16::try_from(extensions.len())?.to_be_bytes();
    Ok(message(CLIENT_HELLO, &[&body[..at], &length, &extensions].concat()))
}

/// A message in records of at most this many bytes.
pub fn in_records(message: &[u8], most: usize) -> Vec<u8> {
    message.chunks(most.min(MAX_RECORD)).flat_map(|part| record(HANDSHAKE, part)).collect()
}

/// A hello of an older version, which knows no `supported_versions`, before 1.2 no signature algorithms, and in SSL 3
/// no extensions at all.
pub fn of_version(minor: u8) -> Vec<u8> {
    let groups: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 23];
    let extensions = match minor {
        0 => vec![],
        1 | 2 => groups.to_vec(),
        _ => [&[0, 13, 0, 4, 0, 2, 4, 3], groups].concat(),
    };
    let session_and_suites = [0, 0, 4, 0xc0, 0x2b, 0, 0x2f, 1, 0];
    let mut body = [&[3, minor][..], &[7; 32], &session_and_suites].concat();
    if !extensions.is_empty() {
        body.extend([0, u8::try_from(extensions.len()).unwrap_or(0)]);
        body.extend(extensions);
    }
    let mut wire = record(HANDSHAKE, &message(CLIENT_HELLO, &body));
    wire[2] = minor.min(1);
    wire
}

/// What SSL 2 begins with: a length with its first bit set, and the version in the message.
pub fn of_ssl_2() -> Vec<u8> {
    let body = [&[1, 0, 2, 0, 3, 0, 0, 0, 16, 1, 0, 0x80][..], &[7; 16]].concat();
    [&[0x80, u8::try_from(body.len()).unwrap_or(0)], &body[..]].concat()
}
