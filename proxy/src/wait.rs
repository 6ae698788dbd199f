//! Waits until the proxy of this pod is ready: for a pod whose sidecar is an ordinary container, so that the application
//! is started after it.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

/// How often it is asked: an application that starts a quarter of a second late is not noticed.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// One answer takes next to nothing; a proxy that does not give it is asked anew.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of an answer: what is missing, in a few lines.
const MAX_ANSWER: u64 = 16 * 1024;

/// It was not ready in time.
#[derive(Debug, thiserror::Error)]
#[error("the proxy is not ready after {waited:?}: {last}")]
pub struct NotReadyInTime {
    waited: Duration,
    last: String,
}

/// Returns once the proxy on this host answers on `port` that it is ready.
///
/// # Errors
/// [`NotReadyInTime`] with its last answer, or why there was none.
pub fn until_ready(port: u16, patience: Duration) -> Result<(), NotReadyInTime> {
    let began = Instant::now();
    loop {
        let last = match ask(port) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => return Ok(()),
            Ok(answer) => {
                answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body).trim().to_owned()
            }
            Err(error) => error.to_string(),
        };
        if began.elapsed() >= patience {
            return Err(NotReadyInTime { waited: patience, last });
        }
        sleep(ASK_EVERY);
    }
}

fn ask(port: u16) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// Answers the first connections with 503 and the next with 200.
    fn proxy(not_ready: usize) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                let answer: &[u8] = if number < not_ready {
                    b"HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: no certificate is held yet\n"
                } else {
                    b"HTTP/1.1 200 OK\r\n\r\nready\n"
                };
                stream.write_all(answer).unwrap();
            }
        });
        port
    }

    #[test]
    fn it_waits_for_as_long_as_the_proxy_is_not_ready() {
        let began = Instant::now();
        until_ready(proxy(3), Duration::from_secs(20)).unwrap();
        assert!(began.elapsed() >= ASK_EVERY * 3);
    }

    #[test]
    fn what_is_missing_is_told_when_the_patience_ends() {
        let error = until_ready(proxy(usize::MAX), Duration::ZERO).unwrap_err().to_string();
        assert_eq!(error, "the proxy is not ready after 0ns: not ready: no certificate is held yet");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let error = until_ready(free, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("refused"), "{error}");
    }
}
