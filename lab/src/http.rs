//! Just enough HTTP to ask an admin port, a health port or a node's REST: one GET, one answer, connection closed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Asks from inside a namespace. The deadline holds for the connect and again for each read.
pub fn get(from: &Namespace, address: SocketAddr, path: &str, deadline: Duration) -> Result<Response> {
    from.enter(|| ask(address, path, deadline))?.with_context(|| format!("GET http://{address}{path}"))
}

/// Asks for the status alone, of a server that takes nothing older than HTTP/1.1: Envoy's admin port.
pub fn status(from: &Namespace, address: SocketAddr, path: &str, deadline: Duration) -> Result<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = from.enter(|| exchange(address, &request, deadline))?;
    let parsed = answer.and_then(|answer| parse(&answer));
    Ok(parsed.with_context(|| format!("GET http://{address}{path}"))?.status)
}

fn ask(address: SocketAddr, path: &str, deadline: Duration) -> Result<Response> {
    // HTTP/1.0: the answer is never chunked and ends with the connection.
    parse(&exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"), deadline)?)
}

fn exchange(address: SocketAddr, request: &str, deadline: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, deadline).context("connect")?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    stream.write_all(request.as_bytes()).context("send")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &str) -> Result<Response> {
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("no end of head in {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response { status: status.with_context(|| format!("no status in {head:?}"))?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read_and_nonsense_is_shown() {
        let read = parse("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nno policy\n").unwrap();
        assert_eq!(read, Response { status: 503, body: "no policy\n".into() });
        assert!(parse("\x16\x03\x01").unwrap_err().to_string().contains("no end of head"));
        assert!(parse("hello\r\n\r\n").unwrap_err().to_string().contains("no status"));
    }
}
