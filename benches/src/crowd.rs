//! A crowd of connections to one address, on one thread: each says its word, and is over with what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::load::socket;

/// Events taken at once.
const EVENTS: usize = 256;

/// With nothing for so long, connections were lost.
const SILENCE: Duration = Duration::from_secs(20);

/// The most that is read of an answer: only its first byte matters.
const ANSWER: usize = 4096;

/// What a connection of a crowd is over with; anything else is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// An answer that begins with this byte. This side resets the connection then.
    Answer(u8),
    /// A reset by the other side.
    Reset,
}

/// What the connections of a crowd do.
#[derive(Clone, Copy, Debug)]
pub struct Crowd<'a> {
    /// Where they go.
    pub to: SocketAddr,
    /// What each says once it is there.
    pub says: &'a [u8],
    /// What each is over with.
    pub over: Over,
    /// How many there are at the same time.
    pub at_once: usize,
}

/// What became of a crowd.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Connections that were opened, each of which came to its end.
    pub opened: usize,
    /// When the first one began.
    pub began: Instant,
    /// When the last one was over.
    pub ended: Instant,
}

impl Crowd<'_> {
    /// Begins as many connections as there may be at once, and another for each that is over while `more` says so of
    /// the number that were begun. An error where one is refused, hears nothing, or is over with something else.
    pub fn run(&self, mut more: impl FnMut(usize) -> bool) -> Result<Outcome> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let began = Instant::now();
        let mut begun = self.at_once;
        let mut streams = Vec::with_capacity(begun);
        for number in 0..begun {
            streams.push(Some(self.begin(&epoll, number)?));
        }
        let mut left = begun;
        let mut events = [EpollEvent::empty(); EVENTS];
        while left > 0 {
            let ready = socket::wait(&epoll, &mut events, SILENCE)
                .with_context(|| format!("{left} of {begun} connections are not over"))?;
            for event in &events[..ready] {
                let number = usize::try_from(event.data())?;
                let place = streams.get_mut(number).context("an event of no connection")?;
                let stream = place.as_mut().context("an event of a connection that is over")?;
                if !self.go_on(&epoll, stream, event)? {
                    continue;
                }
                *place = if more(begun) { Some(self.begin(&epoll, number)?) } else { None };
                begun += usize::from(place.is_some());
                left -= usize::from(place.is_none());
            }
        }
        Ok(Outcome { opened: begun, began, ended: Instant::now() })
    }

    fn begin(&self, epoll: &Epoll, number: usize) -> Result<TcpStream> {
        let stream = socket::begin_connect(self.to)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLOUT, number as u64))?;
        Ok(stream)
    }

    /// Does what an event asks for; true once the connection is over.
    fn go_on(&self, epoll: &Epoll, stream: &mut TcpStream, event: &EpollEvent) -> Result<bool> {
        if event.events().contains(EpollFlags::EPOLLOUT) && stream.write_all(self.says).is_ok() {
            epoll.modify(&*stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, event.data()))?;
            return Ok(false);
        }
        let mut answer = [0; ANSWER];
        let over = match stream.read(&mut answer) {
            Ok(0) => bail!("a connection was ended in order"),
            Ok(_) => Over::Answer(answer[0]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Over::Reset,
            Err(error) => return Err(error).context("a connection was not served"),
        };
        ensure!(over == self.over, "a connection was over with {over:?}, expected {:?}", self.over);
        Ok(true)
    }
}
