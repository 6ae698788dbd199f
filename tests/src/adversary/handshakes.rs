//! The table of hostile handshakes: what a client says instead of one, and what a server answers.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
};

use anyhow::Result;
use rustls::{Connection, sign::CertifiedKey};

use super::{
    ALERT, CHANGE_CIPHER_SPEC, DATA, Ending, HANDSHAKE, PATIENCE, ending, hello, message, read_record,
    record, session, session::Session, throw,
};

const DECODE_ERROR: Ending = Ending::Alert(50);
const HANDSHAKE_FAILURE: Ending = Ending::Alert(40);
const PROTOCOL_VERSION: Ending = Ending::Alert(70);
const UNEXPECTED_MESSAGE: Ending = Ending::Alert(10);
const BAD_RECORD_MAC: Ending = Ending::Alert(20);
const ILLEGAL_PARAMETER: Ending = Ending::Alert(47);

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const KEY_UPDATE: u8 = 24;

const PADDING: u16 = 21;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

/// More of anything than is taken.
const MANY: usize = 100;

/// What the adversary has at hand.
pub struct Tools {
    /// The message of a good hello.
    pub hello: Vec<u8>,
    /// A certificate that the victim would take.
    pub good: Arc<CertifiedKey>,
}

/// One way to behave: what is done, the reason that the sidecar gives, and how it ends.
pub struct Row<Act> {
    /// What it is.
    pub name: &'static str,
    /// The reason in log and metric.
    pub reason: &'static str,
    /// How it ends: for the adversary where it dials, for the application where it is dialled.
    pub ends: Ending,
    /// What the adversary does.
    pub act: Act,
}

/// Of somebody who dials: what is seen at the end.
pub type Dials = Row<fn(&Tools, &TcpStream) -> Result<Ending>>;

/// Of somebody who is dialled.
pub type Answers = Row<fn(&Tools, &TcpStream) -> Result<()>>;

const fn dials(
    name: &'static str,
    reason: &'static str,
    ends: Ending,
    act: fn(&Tools, &TcpStream) -> Result<Ending>,
) -> Dials {
    Row { name, reason, ends, act }
}

const fn answers(
    name: &'static str,
    reason: &'static str,
    act: fn(&Tools, &TcpStream) -> Result<()>,
) -> Answers {
    Row { name, reason, ends: Ending::Reset, act }
}

fn thrown(mut tcp: &TcpStream, bytes: &[u8]) -> Result<Ending> {
    let was_reset = tcp.write_all(bytes).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    let ended = ending(tcp);
    // Whoever was told by a write is told of an end by a read.
    Ok(if was_reset && ended == Ending::Fin { Ending::Reset } else { ended })
}

/// Thrown, and no more is to come.
fn thrown_whole(tcp: &TcpStream, bytes: &[u8]) -> Result<Ending> {
    throw(tcp, bytes);
    tcp.shutdown(Shutdown::Write)?;
    Ok(ending(tcp))
}

fn hello_and(tools: &Tools, more: &[u8]) -> Vec<u8> {
    [&record(HANDSHAKE, &tools.hello), more].concat()
}

fn half_way(tools: &Tools, tcp: &TcpStream) -> Result<Session> {
    Session::half_way(tcp.try_clone()?, Some(Arc::clone(&tools.good)))
}

/// The rest of a session in which one record is said.
fn half_way_says(tools: &Tools, tcp: &TcpStream, kind: u8, content: &[u8]) -> Result<Ending> {
    let mut session = half_way(tools, tcp)?;
    session.say(kind, content)?;
    Ok(session.ending())
}

/// Bytes that look like nothing, the same each time.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    crate::streams::Seeded(7).fill(&mut bytes);
    bytes[0] |= 0x80;
    bytes
}

/// A PSK that nobody has given out, bound to nothing.
fn pre_shared_key() -> Vec<u8> {
    let identity = [&[0, 32][..], &[9; 32], &[0; 4]].concat();
    [&[0, 38][..], &identity, &[0, 33, 32], &[9; 32]].concat()
}

/// What speaks no TLS: rows A1 and A12.
#[rustfmt::skip]
pub const PLAINTEXT: &[Dials] = &[
    dials("ignite's discovery", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, &[0, 0, 0x47, 0x47, 0xac, 0xed, 0, 5])),
    dials("a thin client of 22 bytes", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, &[22, 0, 0, 0, 1, 1, 0, 7, 0, 0, 0, 2])),
    dials("http", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, b"GET /ignite?cmd=version HTTP/1.1\r\nHost: a\r\n\r\n")),
    dials("http/2", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
    dials("ssh", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, b"SSH-2.0-OpenSSH_9.9\r\n")),
    dials("smtp", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, b"EHLO example.org\r\nSTARTTLS\r\n")),
    dials("postgres, asking for tls", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f])),
    dials("the proxy protocol, version 1, before a good hello", "plaintext_refused", Ending::Reset, |tools, tcp| {
        thrown(tcp, &[b"PROXY TCP4 10.77.0.2 10.77.0.1 1 7777\r\n", &hello_and(tools, &[])[..]].concat())
    }),
    dials("the proxy protocol, version 2, before a good hello", "plaintext_refused", Ending::Reset, |tools, tcp| {
        let header = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &[10, 77, 0, 2, 10, 77, 0, 1, 0, 1, 0x1e, 0x61][..]].concat();
        thrown(tcp, &[&header[..], &hello_and(tools, &[])].concat())
    }),
    dials("noise", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, &noise(4096))),
    dials("zeros", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, &[0; 65_536])),
    dials("change_cipher_spec first", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, &record(CHANGE_CIPHER_SPEC, &[1]))),
    dials("an alert first", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, &record(ALERT, &[2, 255]))),
    dials("data first", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, &record(DATA, &[0; 64]))),
    dials("an empty record first", "plaintext_refused", Ending::Reset, |tools, tcp| thrown(tcp, &[record(HANDSHAKE, &[]), hello_and(tools, &[])].concat())),
    dials("nothing", "handshake_eof", Ending::Reset, |_, tcp| thrown_whole(tcp, &[])),
];

/// What belongs to other versions and to sessions that are never resumed: row A10.
#[rustfmt::skip]
pub const VERSIONS: &[Dials] = &[
    dials("ssl 2", "plaintext_refused", Ending::Reset, |_, tcp| thrown(tcp, &hello::of_ssl_2())),
    dials("ssl 3", "tls_version_refused", HANDSHAKE_FAILURE, |_, tcp| thrown(tcp, &hello::of_version(0))),
    dials("tls 1.0", "tls_version_refused", HANDSHAKE_FAILURE, |_, tcp| thrown(tcp, &hello::of_version(1))),
    dials("tls 1.1", "tls_version_refused", HANDSHAKE_FAILURE, |_, tcp| thrown(tcp, &hello::of_version(2))),
    dials("tls 1.2", "tls_version_refused", PROTOCOL_VERSION, |_, tcp| thrown(tcp, &hello::of_version(3))),
    dials("a pre-shared key of noise", "handshake_failed", DECODE_ERROR, |tools, tcp| {
        thrown(tcp, &record(HANDSHAKE, &hello::with_extensions(&tools.hello, &[(PRE_SHARED_KEY, noise(64))])?))
    }),
    dials("a pre-shared key that nobody gave out is passed over", "handshake_eof", Ending::Reset, |tools, tcp| {
        thrown_whole(tcp, &record(HANDSHAKE, &hello::with_extensions(&tools.hello, &[(PRE_SHARED_KEY, pre_shared_key())])?))
    }),
    dials("early data without a pre-shared key is passed over", "handshake_eof", Ending::Reset, |tools, tcp| {
        thrown_whole(tcp, &record(HANDSHAKE, &hello::with_extensions(&tools.hello, &[(EARLY_DATA, vec![])])?))
    }),
    dials("early data without an end", "handshake_failed", Ending::Fin, |tools, tcp| {
        let with = [(EARLY_DATA, vec![]), (PRE_SHARED_KEY, pre_shared_key())];
        let hello = record(HANDSHAKE, &hello::with_extensions(&tools.hello, &with)?);
        thrown(tcp, &[hello, record(DATA, &noise(1000)).repeat(1000)].concat())
    }),
    dials("a second hello", "handshake_failed", Ending::Fin, |tools, tcp| thrown(tcp, &hello_and(tools, &record(HANDSHAKE, &tools.hello)))),
];

/// What is malformed, cut, huge, or without an end: row A11.
#[rustfmt::skip]
pub const MALFORMED: &[Dials] = &[
    dials("a hello in records of one byte", "handshake_eof", Ending::Reset, |tools, tcp| thrown_whole(tcp, &hello::in_records(&tools.hello, 1))),
    dials("a hello of 64 KiB", "handshake_eof", Ending::Reset, |tools, tcp| {
        thrown_whole(tcp, &hello::in_records(&hello::with_extensions(&tools.hello, &[(PADDING, vec![0; 65_000])])?, usize::MAX))
    }),
    dials("a hello of 70,000 bytes", "handshake_failed", Ending::Fin, |_, tcp| thrown(tcp, &hello::in_records(&message(CLIENT_HELLO, &[0; 70_000]), usize::MAX))),
    dials("a hello that says to have 16 MiB", "handshake_failed", Ending::Fin, |_, tcp| {
        let begun = record(HANDSHAKE, &[&[CLIENT_HELLO, 0xff, 0xff, 0xff][..], &[0; 1 << 14]].concat()[..1 << 14]);
        thrown(tcp, &[begun, record(HANDSHAKE, &[0; 1 << 14]).repeat(100)].concat())
    }),
    dials("10,000 extensions", "handshake_eof", Ending::Reset, |tools, tcp| {
        let many: Vec<_> = (20_000..30_000).map(|kind| (kind, vec![])).collect();
        thrown_whole(tcp, &hello::in_records(&hello::with_extensions(&tools.hello, &many)?, usize::MAX))
    }),
    dials("one extension 10,000 times", "handshake_failed", ILLEGAL_PARAMETER, |tools, tcp| {
        thrown(tcp, &hello::in_records(&hello::with_extensions(&tools.hello, &vec![(20_000, vec![]); 10_000])?, usize::MAX))
    }),
    dials("bytes behind the extensions", "handshake_failed", DECODE_ERROR, |tools, tcp| {
        let mut hello = tools.hello.clone();
        hello.extend_from_slice(&[0x4e, 0x20, 0xff, 0xff]);
        let length = u32::try_from(hello.len() - 4)?.to_be_bytes();
        hello[1..4].copy_from_slice(&length[1..]);
        thrown(tcp, &record(HANDSHAKE, &hello))
    }),
    dials("an empty record within the hello", "handshake_failed", DECODE_ERROR, |tools, tcp| {
        let (first, rest) = tools.hello.split_at(20);
        thrown(tcp, &[record(HANDSHAKE, first), record(HANDSHAKE, &[]), record(HANDSHAKE, rest)].concat())
    }),
    dials("a record longer than there are", "handshake_failed", DECODE_ERROR, |_, tcp| thrown(tcp, &[&[HANDSHAKE, 3, 1, 0x7f, 0xff, CLIENT_HELLO][..], &[0; 0x7fff]].concat())),
    dials("an alert within the hello", "handshake_failed", Ending::Fin, |tools, tcp| {
        let (first, rest) = tools.hello.split_at(20);
        thrown(tcp, &[record(HANDSHAKE, first), record(ALERT, &[1, 90]), record(HANDSHAKE, rest)].concat())
    }),
    dials("an alert after the hello", "handshake_refused_by_peer", Ending::Reset, |tools, tcp| thrown(tcp, &hello_and(tools, &record(ALERT, &[2, 40])))),
    dials("an alert that nobody knows after the hello", "handshake_refused_by_peer", Ending::Reset, |tools, tcp| thrown(tcp, &hello_and(tools, &record(ALERT, &[2, 255])))),
    dials("warnings without an end", "handshake_failed", Ending::Fin, |tools, tcp| thrown(tcp, &hello_and(tools, &record(ALERT, &[1, 90]).repeat(MANY)))),
    dials("change_cipher_spec without an end", "handshake_failed", Ending::Fin, |tools, tcp| thrown(tcp, &hello_and(tools, &record(CHANGE_CIPHER_SPEC, &[1]).repeat(MANY)))),
    dials("half a hello, and silence", "handshake_timeout", Ending::Fin, |tools, tcp| thrown(tcp, &record(HANDSHAKE, &tools.hello)[..100])),
    dials("a hello, and silence", "handshake_timeout", Ending::Fin, |tools, tcp| thrown(tcp, &hello_and(tools, &[]))),
    dials("plaintext where its certificate belongs", "handshake_failed", DECODE_ERROR, |tools, tcp| {
        let mut session = half_way(tools, tcp)?;
        throw(&session.tcp, b"GET / HTTP/1.1\r\n\r\n");
        Ok(session.ending())
    }),
    dials("a record that does not open where its certificate belongs", "handshake_failed", BAD_RECORD_MAC, |tools, tcp| {
        let mut session = half_way(tools, tcp)?;
        throw(&session.tcp, &record(DATA, &noise(64)));
        Ok(session.ending())
    }),
    dials("data before its certificate", "handshake_failed", UNEXPECTED_MESSAGE, |tools, tcp| half_way_says(tools, tcp, DATA, b"early")),
    dials("a key update before its certificate", "handshake_failed", UNEXPECTED_MESSAGE, |tools, tcp| half_way_says(tools, tcp, HANDSHAKE, &message(KEY_UPDATE, &[1]))),
    dials("an alert instead of its certificate", "handshake_refused_by_peer", Ending::Reset, |tools, tcp| half_way_says(tools, tcp, ALERT, &[2, 42])),
    dials("a goodbye instead of its certificate", "handshake_refused_by_peer", DECODE_ERROR, |tools, tcp| half_way_says(tools, tcp, ALERT, &[1, 0])),
];

/// A ServerHello to the hello that was read, of this legacy version and with these extensions.
fn server_hello(hello: &[u8], minor: u8, random: &[u8; 32], extensions: &[(u16, &[u8])]) -> Vec<u8> {
    // Record, message, version and random come before the session, which is sent back.
    let session = hello.get(43).map_or(&[][..], |length| &hello[43..44 + usize::from(*length)]);
    let extensions: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, content)| {
            let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
            [&kind.to_be_bytes()[..], &length.to_be_bytes(), content].concat()
        })
        .collect();
    let length = u16::try_from(extensions.len()).unwrap_or(u16::MAX).to_be_bytes();
    let body = [&[3, minor], &random[..], session, &[0x13, 0x01, 0], &length, &extensions].concat();
    hello::in_records(&message(SERVER_HELLO, &body), usize::MAX)
}

/// Reads the hello, answers, and waits for the end.
fn answer(tcp: &TcpStream, answer: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<()> {
    let hello = read_record(tcp)?;
    throw(tcp, &answer(&hello));
    ending(tcp);
    Ok(())
}

/// The flight of a good server to the hello that comes, to be bent.
fn flight(tools: &Tools, mut tcp: &TcpStream) -> Result<Vec<u8>> {
    tcp.set_read_timeout(Some(PATIENCE))?;
    let mut side: Connection = session::server(Arc::clone(&tools.good), &Arc::default())?.into();
    let mut flight = Vec::new();
    while flight.is_empty() {
        side.read_tls(&mut tcp)?;
        side.process_new_packets()?;
        while side.wants_write() {
            side.write_tls(&mut flight)?;
        }
    }
    Ok(flight)
}

/// The first record of a flight: its hello.
fn flight_begin(flight: &[u8]) -> &[u8] {
    let length = flight.get(3..5).map_or(0, |length| usize::from(length[0]) << 8 | usize::from(length[1]));
    &flight[..5 + length]
}

/// What tells a server hello that asks for another one (RFC 8446 section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
const VERSION_1_3: (u16, &[u8]) = (SUPPORTED_VERSIONS, &[3, 4]);
const ANOTHER_GROUP: (u16, &[u8]) = (KEY_SHARE, &[0, 0x17]);
/// A share of X25519 that is no point of anything: zero.
const ZERO_SHARE: [u8; 36] = {
    let mut share = [0; 36];
    share[1] = 0x1d;
    share[3] = 32;
    share
};

/// The end of a random by which a server says that it was made to speak an older version.
fn sentinel(last: u8) -> [u8; 32] {
    let mut random = [7; 32];
    random[24..].copy_from_slice(&[0x44, 0x4f, 0x57, 0x4e, 0x47, 0x52, 0x44, last]);
    random
}

/// What a server does to a sidecar that dials it.
#[rustfmt::skip]
pub const ANSWERS: &[Answers] = &[
    Row { name: "it leaves", reason: "handshake_eof", ends: Ending::Fin, act: |_, tcp| { tcp.shutdown(Shutdown::Both)?; Ok(()) } },
    Row { name: "it leaves after the hello", reason: "handshake_eof", ends: Ending::Fin, act: |_, tcp| { read_record(tcp)?; tcp.shutdown(Shutdown::Both)?; Ok(()) } },
    answers("silence", "handshake_timeout", |_, tcp| answer(tcp, |_| vec![])),
    answers("http", "plaintext_refused", |_, tcp| answer(tcp, |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
    answers("ssh", "plaintext_refused", |_, tcp| answer(tcp, |_| b"SSH-2.0-OpenSSH_9.9\r\n".to_vec())),
    answers("ignite's own bytes", "plaintext_refused", |_, tcp| answer(tcp, |_| vec![0, 0, 0x47, 0x47, 0xac, 0xed, 0, 5])),
    answers("noise", "plaintext_refused", |_, tcp| answer(tcp, |_| noise(4096))),
    answers("its own hello back", "handshake_failed", |_, tcp| answer(tcp, <[u8]>::to_vec)),
    answers("an alert", "handshake_refused_by_peer", |_, tcp| answer(tcp, |_| record(ALERT, &[2, 40]))),
    answers("an alert that nobody knows", "handshake_refused_by_peer", |_, tcp| answer(tcp, |_| record(ALERT, &[2, 255]))),
    answers("half an alert", "handshake_failed", |_, tcp| answer(tcp, |_| record(ALERT, &[2]))),
    answers("warnings without an end", "handshake_failed", |_, tcp| answer(tcp, |_| record(ALERT, &[1, 90]).repeat(MANY))),
    answers("change_cipher_spec without an end", "handshake_failed", |_, tcp| answer(tcp, |_| record(CHANGE_CIPHER_SPEC, &[1]).repeat(MANY))),
    answers("empty records without an end", "handshake_failed", |_, tcp| answer(tcp, |_| record(HANDSHAKE, &[]).repeat(MANY))),
    answers("a record longer than there are", "handshake_failed", |_, tcp| answer(tcp, |_| [&[HANDSHAKE, 3, 3, 0x7f, 0xff][..], &[0; 0x7fff]].concat())),
    answers("a hello that says to have 16 MiB", "handshake_failed", |_, tcp| answer(tcp, |_| {
        [record(HANDSHAKE, &[SERVER_HELLO, 0xff, 0xff, 0xff]), record(HANDSHAKE, &[0; 1 << 14]).repeat(100)].concat()
    })),
    answers("ssl 3", "tls_version_refused", |_, tcp| answer(tcp, |hello| server_hello(hello, 0, &[7; 32], &[]))),
    answers("tls 1.0", "tls_version_refused", |_, tcp| answer(tcp, |hello| server_hello(hello, 1, &[7; 32], &[]))),
    answers("tls 1.2", "tls_version_refused", |_, tcp| answer(tcp, |hello| server_hello(hello, 3, &[7; 32], &[]))),
    answers("tls 1.2 with the sentinel of a downgrade", "tls_version_refused", |_, tcp| answer(tcp, |hello| server_hello(hello, 3, &sentinel(1), &[]))),
    answers("tls 1.1 with the sentinel of a downgrade", "tls_version_refused", |_, tcp| answer(tcp, |hello| server_hello(hello, 2, &sentinel(0), &[]))),
    answers("a session of a key that nobody offered", "handshake_failed", |_, tcp| answer(tcp, |hello| {
        server_hello(hello, 3, &[7; 32], &[VERSION_1_3, (KEY_SHARE, &ZERO_SHARE), (PRE_SHARED_KEY, &[0, 0])])
    })),
    answers("a share that is zero", "handshake_failed", |_, tcp| answer(tcp, |hello| server_hello(hello, 3, &[7; 32], &[VERSION_1_3, (KEY_SHARE, &ZERO_SHARE)]))),
    answers("10,000 extensions that nobody asked for", "handshake_failed", |_, tcp| answer(tcp, |hello| {
        let many: Vec<(u16, &[u8])> = (20_000..30_000).map(|kind| (kind, &[][..])).chain([VERSION_1_3]).collect();
        server_hello(hello, 3, &[7; 32], &many)
    })),
    answers("another hello is asked for twice", "handshake_failed", |_, tcp| {
        let hello = read_record(tcp)?;
        let retry = server_hello(&hello, 3, &RETRY, &[VERSION_1_3, ANOTHER_GROUP]);
        throw(tcp, &retry);
        answer(tcp, |_| retry)
    }),
    answers("a flight that turns into plaintext", "handshake_failed", |tools, tcp| {
        let flight = flight(tools, tcp)?;
        throw(tcp, &[flight_begin(&flight), b"HTTP/1.1 400 Bad Request\r\n\r\n"].concat());
        ending(tcp);
        Ok(())
    }),
    Row { name: "a flight that is cut", reason: "handshake_eof", ends: Ending::Fin, act: |tools, tcp| {
        let flight = flight(tools, tcp)?;
        throw(tcp, &flight[..300]);
        tcp.shutdown(Shutdown::Both)?;
        Ok(())
    } },
    answers("a flight with one bit turned", "handshake_failed", |tools, tcp| {
        let mut flight = flight(tools, tcp)?;
        if let Some(last) = flight.last_mut() {
            *last ^= 1;
        }
        throw(tcp, &flight);
        ending(tcp);
        Ok(())
    }),
    answers("the same flight twice", "tls_failed", |tools, mut tcp| {
        let flight = flight(tools, tcp)?;
        throw(tcp, &flight.repeat(2));
        // The client believes to be done before it sees the second.
        let _ = tcp.read(&mut [0; 1024]);
        ending(tcp);
        Ok(())
    }),
];
