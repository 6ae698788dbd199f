//! Messages in a closed loop: each connection sends the next when it has the answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::measured::Measured;
use super::socket;
use super::tally::Tally;
use super::window::Window;

/// Events taken at once.
const EVENTS: usize = 256;

/// With no answer for so long, the path is broken.
const SILENCE: Duration = Duration::from_secs(10);

/// A connection and its message under way.
pub(super) struct Caller {
    pub(super) stream: TcpStream,
    sent: Instant,
    received: usize,
}

/// Opens the connections and puts them into an epoll by their index. Each has carried one message, so that nothing
/// that is made on first use is measured.
pub(super) fn open(to: SocketAddr, size: usize, connections: usize) -> Result<(Epoll, Vec<Caller>)> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut callers = Vec::with_capacity(connections);
    for index in 0..connections {
        let mut stream = socket::connect(to)?;
        let mut message = vec![0; size];
        stream.write_all(&message).context("send the first message")?;
        stream.read_exact(&mut message).context("read the first answer")?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        callers.push(Caller { stream, sent: Instant::now(), received: 0 });
    }
    Ok((epoll, callers))
}

impl Caller {
    /// Sends a message now.
    pub(super) fn send(&mut self, message: &[u8]) -> Result<()> {
        self.sent = Instant::now();
        // A send buffer that holds no other message takes one at once.
        (&self.stream).write_all(message).context("send a message")
    }

    /// Reads what is there; true when a whole answer has come.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<bool> {
        match (&self.stream).read(&mut buffer[self.received..]) {
            Ok(0) => bail!("a connection ended"),
            Ok(length) => self.received += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("read an answer"),
        }
        let whole = self.received == buffer.len();
        if whole {
            self.received = 0;
        }
        Ok(whole)
    }
}

/// Runs the loop over so many connections.
pub(super) fn run(to: SocketAddr, size: usize, connections: usize, window: Window) -> Result<Measured> {
    let (epoll, mut callers) = open(to, size, connections)?;
    let (message, mut buffer) = (vec![0; size], vec![0; size]);
    let mut tally = Tally::new(window)?;
    for caller in &mut callers {
        caller.send(&message)?;
    }
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let ready = socket::wait(&epoll, &mut events, SILENCE)?;
        for event in &events[..ready] {
            let caller = usize::try_from(event.data()).ok().and_then(|index| callers.get_mut(index));
            let caller = caller.context("an event of no connection")?;
            if !caller.receive(&mut buffer)? {
                continue;
            }
            if !tally.done(caller.sent)? {
                let measured = tally.measured();
                return Ok(Measured { bytes: measured.operations * size as u64, ..measured });
            }
            caller.send(&message)?;
        }
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
