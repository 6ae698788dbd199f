//! New connections, so many in flight: each is opened, carries one byte there and one back, so that every handshake on
//! the way is complete, and is reset, so that none is left in TIME_WAIT.

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

/// With no progress for so long, the path is broken.
const SILENCE: Duration = Duration::from_secs(10);

/// A connection on its way.
struct Attempt {
    stream: TcpStream,
    begun: Instant,
    asked: bool,
}

impl Attempt {
    fn begin(epoll: &Epoll, to: SocketAddr, index: usize) -> Result<Self> {
        let begun = Instant::now();
        let stream = socket::begin_connect(to)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLOUT, index as u64))?;
        Ok(Self { stream, begun, asked: false })
    }

    /// Goes on with it; true when the answer has come.
    fn advance(&mut self, epoll: &Epoll, index: usize) -> Result<bool> {
        if !self.asked {
            (&self.stream).write_all(&[0]).context("a connection was not made")?;
            self.asked = true;
            epoll.modify(&self.stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
            return Ok(false);
        }
        match (&self.stream).read(&mut [0]) {
            Ok(0) => bail!("a connection ended without an answer"),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("a connection was cut before its answer"),
        }
    }
}

/// Opens connections until the window is over.
pub(super) fn run(to: SocketAddr, in_flight: usize, window: Window) -> Result<Measured> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let attempts = (0..in_flight).map(|index| Attempt::begin(&epoll, to, index));
    let mut attempts: Vec<_> = attempts.collect::<Result<_>>()?;
    let mut tally = Tally::new(window)?;
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let ready = socket::wait(&epoll, &mut events, SILENCE)?;
        for event in &events[..ready] {
            let index = usize::try_from(event.data())?;
            let attempt = attempts.get_mut(index).context("an event of no connection")?;
            if !attempt.advance(&epoll, index)? {
                continue;
            }
            if !tally.done(attempt.begun)? {
                return Ok(tally.measured());
            }
            // The old one is dropped, which resets it.
            *attempt = Attempt::begin(&epoll, to, index)?;
        }
    }
}
