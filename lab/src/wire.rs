//! Raw clients for the five ports of a node: each sends and reads bytes, and knows how long it took.
//!
//! They stand for what a test must see from outside of Ignite's own clients: who speaks first, when a silent connection is
//! closed, and whether a first byte that looks like TLS is taken for it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::http::{Response, get};
use crate::netns::Namespace;

/// For the connect and for each read that is not about silence: longer than any port of a node needs.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the server of 47100 opens with: a type and its node's id.
pub const NODE_ID_BYTES: usize = 18;

/// A thin client's handshake whose length is 22, so that its first byte is 0x16, as of a TLS record: protocol 1.7, seven bytes
/// of features, no user and no password.
pub const THIN_HANDSHAKE: [u8; 26] = [
    22, 0, 0, 0, // length
    1, 1, 0, 7, 0, 0, 0, 2, // handshake, version, thin client
    12, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // a byte array of seven
    101, 101, // null and null
];

/// The ping of the binary REST protocol, which the node sends back.
pub const BINARY_REST_PING: [u8; 5] = [0x90, 0, 0, 0, 0];

/// Connects from inside a namespace, with a deadline for the connect, each read and each write.
pub fn connect(from: &Namespace, address: SocketAddr) -> Result<TcpStream> {
    let connected = from.enter(|| -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(stream)
    })?;
    connected.with_context(|| format!("connect to {address} from {}", from.name()))
}

/// Connects to whoever refuses at the door: none where the reset was there before the connect had returned.
pub fn connect_or_reset(from: &Namespace, address: SocketAddr) -> Result<Option<TcpStream>> {
    match connect(from, address) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if is_reset(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_reset(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// An exchange that took place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What the server sent.
    pub answer: Vec<u8>,
    /// From the established connection to the last byte of it.
    pub took: Duration,
}

/// Connects to 47100 and reads the server's 18 bytes without sending any.
pub fn node_id(from: &Namespace, address: SocketAddr) -> Result<Exchange> {
    let exchange = exchange(from, address, &[], NODE_ID_BYTES)?;
    ensure!(exchange.answer.starts_with(&[0xff, 0xff]), "no node id: {:02x?}", exchange.answer);
    Ok(exchange)
}

/// Sends [`THIN_HANDSHAKE`] to 10800; the answer is the length and the byte that means success.
pub fn thin_handshake(from: &Namespace, address: SocketAddr) -> Result<Exchange> {
    let exchange = exchange(from, address, &THIN_HANDSHAKE, 5)?;
    ensure!(exchange.answer[4] == 1, "the handshake was refused: {:02x?}", exchange.answer);
    Ok(exchange)
}

/// Sends [`BINARY_REST_PING`] to 11211 and reads it back.
pub fn binary_rest_ping(from: &Namespace, address: SocketAddr) -> Result<Exchange> {
    let exchange = exchange(from, address, &BINARY_REST_PING, BINARY_REST_PING.len())?;
    ensure!(exchange.answer == BINARY_REST_PING, "no ping: {:02x?}", exchange.answer);
    Ok(exchange)
}

/// Asks REST over HTTP on 8080 for the version of Ignite.
pub fn http_rest_version(from: &Namespace, address: SocketAddr) -> Result<Response> {
    get(from, address, "/ignite?cmd=version", DEADLINE)
}

/// Connects, sends `request`, and reads so many bytes.
pub fn exchange(from: &Namespace, address: SocketAddr, request: &[u8], answer: usize) -> Result<Exchange> {
    let mut stream = connect(from, address)?;
    let begin = Instant::now();
    stream.write_all(request).with_context(|| format!("send to {address}"))?;
    let mut read = vec![0; answer];
    stream.read_exact(&mut read).with_context(|| format!("read {answer} bytes from {address}"))?;
    Ok(Exchange { answer: read, took: begin.elapsed() })
}

/// How a connection on which the client says nothing ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The server ended it in order, after so long.
    Ended(Duration),
    /// The server reset it, after so long.
    Reset(Duration),
    /// It is still open after the whole limit.
    Open,
}

/// Connects, says nothing, and waits for the end at most for `limit`; bytes that the server sends are read and ignored.
pub fn stay_silent(from: &Namespace, address: SocketAddr, limit: Duration) -> Result<Silence> {
    let mut stream = connect(from, address)?;
    let begin = Instant::now();
    let mut buffer = [0; 1024];
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(Silence::Open);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Silence::Ended(begin.elapsed())),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Ok(Silence::Reset(begin.elapsed()));
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => bail!("read from {address}: {error}"),
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn silence_is_told_apart_by_its_end() {
        let namespace = Namespace::create("silence").unwrap();
        let listener = namespace.enter(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut ended, _) = listener.accept().unwrap();
            ended.write_all(b"hello").unwrap();
            thread::sleep(Duration::from_millis(100));
            drop(ended);
            let (open, _) = listener.accept().unwrap();
            (listener, open)
        });
        let limit = Duration::from_millis(300);
        let Silence::Ended(after) = stay_silent(&namespace, address, limit).unwrap() else {
            panic!("the server ended it in order");
        };
        assert!(after >= Duration::from_millis(90), "{after:?}");
        assert_eq!(stay_silent(&namespace, address, limit).unwrap(), Silence::Open);
        drop(server.join().unwrap());
        assert!(connect(&namespace, address).unwrap_err().to_string().contains("connect to 127.0.0.1"));
    }

    #[test]
    fn the_thin_handshake_begins_like_a_tls_record() {
        assert_eq!(THIN_HANDSHAKE[0], 0x16);
        assert_eq!(usize::from(THIN_HANDSHAKE[0]) + 4, THIN_HANDSHAKE.len());
    }
}
