//! The server: one epoll loop for messages, a thread per connection for bytes.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{bulk, ports, socket};

/// What is printed once every port listens.
pub const LISTENING: &str = "listening";

/// Events taken at once.
const EVENTS: usize = 256;

/// A connection on a message port.
struct Peer {
    stream: TcpStream,
    message: usize,
    received: usize,
}

/// Serves until killed.
pub(super) fn serve() -> Result<()> {
    let echoes = ports::ECHO.iter().map(|(port, size)| Ok((socket::listen(*port)?, *size)));
    let echoes: Vec<_> = echoes.collect::<Result<_>>()?;
    let (sink, source) = (socket::listen(ports::SINK)?, socket::listen(ports::SOURCE)?);
    println!("{LISTENING}");
    thread::spawn(move || accept(&sink, bulk::sink));
    thread::spawn(move || accept(&source, bulk::source));
    echo(&echoes)
}

fn accept(listener: &TcpListener, work: fn(&TcpStream) -> Result<()>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        thread::spawn(move || {
            let served = stream.set_nodelay(true).map_err(Into::into).and_then(|()| work(&stream));
            if let Err(error) = served {
                eprintln!("load server: {error:#}");
            }
        });
    }
}

fn echo(listeners: &[(TcpListener, usize)]) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, (listener, _)) in listeners.iter().enumerate() {
        listener.set_nonblocking(true)?;
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
    }
    let first = listeners.len() as u64;
    let mut peers: HashMap<u64, Peer> = HashMap::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut buffer = vec![0; ports::ECHO.iter().map(|(_, size)| *size).max().unwrap_or_default()];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("wait for connections"),
        };
        for event in &events[..ready] {
            let key = event.data();
            if let Some((listener, message)) =
                usize::try_from(key).ok().and_then(|index| listeners.get(index))
            {
                take_all(&epoll, listener, *message, first, &mut peers)?;
                continue;
            }
            // A connection that ended is dropped, which closes it and takes it out of the epoll.
            if peers.get_mut(&key).is_some_and(|peer| answer(peer, &mut buffer).is_none()) {
                peers.remove(&key);
            }
        }
    }
}

fn take_all(
    epoll: &Epoll,
    listener: &TcpListener,
    message: usize,
    first: u64,
    peers: &mut HashMap<u64, Peer>,
) -> Result<()> {
    // One that was reset before it was taken, or no more to take: the next event tells.
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let key = first + u64::from(stream.as_raw_fd().cast_unsigned());
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
        peers.insert(key, Peer { stream, message, received: 0 });
    }
    Ok(())
}

/// Reads what is there and answers a whole message; none when the connection has ended.
fn answer(peer: &mut Peer, buffer: &mut [u8]) -> Option<()> {
    let mut stream = &peer.stream;
    match stream.read(&mut buffer[..peer.message - peer.received]) {
        Ok(0) => None,
        Ok(length) => {
            peer.received += length;
            if peer.received == peer.message {
                peer.received = 0;
                // An answer is never larger than an empty send buffer takes at once.
                stream.write_all(&buffer[..peer.message]).ok()?;
            }
            Some(())
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(()),
        Err(_) => None,
    }
}
