//! One question to a proxy's admin endpoint: a GET with a deadline and a bound on the answer.
//!
//! HTTP/1.0 on purpose: the answer then ends with the connection or after its Content-Length, and is never chunked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

/// The proxy's admin port where the address names none.
const DEFAULT_PORT: u16 = 15000;

/// For the whole question: the endpoint answers from memory, on loopback or through a port forward.
const DEADLINE: Duration = Duration::from_secs(10);

/// Larger than the list of as many connections as a process may have descriptors.
const MAX_ANSWER: usize = 256 << 20;

/// Why there is no answer. Each names the address that was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("admin address {address:?}: {cause}; expected host or host:port")]
    Address { address: String, cause: io::Error },
    #[error(
        "{url}: cannot connect: {cause}; is this a proxy's admin endpoint? it listens on the loopback of its pod alone"
    )]
    Connect { url: String, cause: io::Error },
    #[error("{url}: read {read}, expected an answer over HTTP: is this a proxy's admin endpoint?")]
    NotHttp { url: String, read: String },
    #[error("{url}: read {cause}, expected the JSON of a proxy's admin endpoint")]
    NotJson { url: String, cause: serde_json::Error },
    #[error("{url}: answered {status}: {text}")]
    Status { url: String, status: String, text: String },
    #[error("{url}: no whole answer within {deadline:?}: {cause}", deadline = DEADLINE)]
    Talk { url: String, cause: io::Error },
    #[error("{url}: more than {MAX_ANSWER} bytes, expected at most that")]
    TooLarge { url: String },
    #[error("{url}: the answer ended after {read} of {expected} bytes")]
    Truncated { url: String, read: usize, expected: usize },
}

/// Asks `address` for `path` and reads the JSON of the answer.
pub(crate) fn get_json<T: DeserializeOwned>(address: &str, path: &str) -> Result<T, AdminError> {
    let url = format!("http://{}{path}", with_port(address));
    let body = get(address, path, &url)?;
    serde_json::from_slice(&body).map_err(|cause| AdminError::NotJson { url, cause })
}

fn get(address: &str, path: &str, url: &str) -> Result<Vec<u8>, AdminError> {
    let end = Instant::now() + DEADLINE;
    let authority = with_port(address);
    let resolved = authority
        .to_socket_addrs()
        .map_err(|cause| AdminError::Address { address: address.to_owned(), cause })?;
    let mut stream =
        connect(resolved, end).map_err(|cause| AdminError::Connect { url: url.to_owned(), cause })?;
    let answer = exchange(&mut stream, &authority, path, end)
        .map_err(|cause| AdminError::Talk { url: url.to_owned(), cause })?;
    if answer.len() > MAX_ANSWER {
        return Err(AdminError::TooLarge { url: url.to_owned() });
    }
    body(answer, url)
}

/// The address with the default port where it has none; an IPv6 address with a port stands in brackets.
fn with_port(address: &str) -> String {
    let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    if let Ok(ip) = address.parse::<std::net::IpAddr>() {
        return SocketAddr::new(ip, DEFAULT_PORT).to_string();
    }
    let host = address.rsplit_once(']').map_or(address, |(_, after)| after);
    if host.contains(':') { address.to_owned() } else { format!("{address}:{DEFAULT_PORT}") }
}

fn connect(addresses: impl Iterator<Item = SocketAddr>, end: Instant) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(end)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn exchange(stream: &mut TcpStream, authority: &str, path: &str, end: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(left(end)?))?;
    stream.write_all(
        format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: application/json\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    while answer.len() <= MAX_ANSWER {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn body(answer: Vec<u8>, url: &str) -> Result<Vec<u8>, AdminError> {
    let not_http = || AdminError::NotHttp { url: url.to_owned(), read: beginning(&answer) };
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(not_http)?;
    let head = str::from_utf8(&answer[..end]).map_err(|_| not_http())?;
    let (first, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split_once(' ')).ok_or_else(not_http)?.1;
    let expected: Option<usize> = fields
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok());
    let body = &answer[end + 4..];
    if !status.starts_with("200") {
        let text = beginning(body);
        return Err(AdminError::Status { url: url.to_owned(), status: status.to_owned(), text });
    }
    match expected {
        Some(expected) if body.len() < expected => {
            Err(AdminError::Truncated { url: url.to_owned(), read: body.len(), expected })
        }
        Some(_) | None => Ok(body.to_vec()),
    }
}

/// Enough of an unexpected answer to recognise it by, with nothing that would steer a terminal.
fn beginning(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).trim_end())
}

#[cfg(test)]
mod tests;
