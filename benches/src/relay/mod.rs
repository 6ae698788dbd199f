//! A relay without TLS that does as little as can be done: the floor for what carrying bytes through two proxies costs.
//!
//! Blocking threads, one per direction, and large buffers. It takes captured connections and dials where they were going.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// What is read or spliced at once: beyond this nothing is gained, as it no longer fits the second-level cache.
const CHUNK: usize = 256 << 10;

/// As many connections as a burst of the load opens before the accepting thread has a core.
const BACKLOG: i32 = 4096;

/// Two threads for each connection: their stacks hold nothing large.
const STACK: usize = 64 << 10;

/// How bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Passing {
    /// Through a buffer.
    Copy,
    /// Through a pipe, without a copy to this process.
    Splice,
}

/// `ringmail-bench relay`.
#[derive(Args, Clone, Debug)]
pub struct RelayArguments {
    /// The port that captured connections are redirected to.
    #[arg(long)]
    pub port: u16,
    /// How bytes pass.
    #[arg(long, value_enum)]
    pub by: Passing,
    /// Bytes of a segment at most, towards where it dials; the route's without it.
    #[arg(long)]
    pub segment: Option<u32>,
}

/// Relays until it is killed.
pub fn relay(arguments: &RelayArguments) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, arguments.port)).into())?;
    socket.listen(BACKLOG).with_context(|| format!("listen on {}", arguments.port))?;
    let listener = TcpListener::from(socket);
    loop {
        let (stream, from) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error).context("accept"),
        };
        let (by, segment) = (arguments.by, arguments.segment);
        thread::Builder::new().stack_size(STACK).spawn(move || {
            if let Err(error) = serve(stream, by, segment) {
                eprintln!("{from}: {error:#}");
            }
        })?;
    }
}

fn serve(downstream: TcpStream, by: Passing, segment: Option<u32>) -> Result<()> {
    let target = SockRef::from(&downstream).original_dst_v4().context("ask for the original destination")?;
    let target = target.as_socket().context("no original destination")?;
    let upstream = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(segment) = segment {
        upstream.set_tcp_mss(segment)?;
    }
    upstream.connect(&target.into()).with_context(|| format!("connect to {target}"))?;
    let upstream = TcpStream::from(upstream);
    downstream.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (from, to) = (downstream.try_clone()?, upstream.try_clone()?);
    let back = thread::Builder::new().stack_size(STACK).spawn(move || pass(&upstream, &downstream, by))?;
    pass(&from, &to, by);
    // A direction that panicked has nothing more to say.
    let _ = back.join();
    Ok(())
}

/// Passes one direction to its end. A reset on either side ends both, as there is nobody left to tell.
fn pass(from: &TcpStream, to: &TcpStream, by: Passing) {
    let passed = match by {
        Passing::Copy => copy(from, to),
        Passing::Splice => splice_all(from, to),
    };
    let how = if passed.is_ok() { Shutdown::Write } else { Shutdown::Both };
    // It fails when the other side has gone first.
    let _ = to.shutdown(how);
    if passed.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        to.write_all(&buffer[..length])?;
    }
}

fn splice_all(from: &TcpStream, to: &TcpStream) -> Result<()> {
    let (outlet, inlet): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
    // Refused when this user's pipes hold too many pages already: the pipe then stays as small as it is.
    let _ = fcntl(&inlet, FcntlArg::F_SETPIPE_SZ(i32::try_from(CHUNK)?));
    loop {
        let mut left = spliced(splice(from, None, &inlet, None, CHUNK, SpliceFFlags::SPLICE_F_MOVE))?;
        if left == 0 {
            return Ok(());
        }
        while left > 0 {
            left -= spliced(splice(&outlet, None, to, None, left, SpliceFFlags::SPLICE_F_MOVE))?;
        }
    }
}

fn spliced(result: nix::Result<usize>) -> Result<usize> {
    match result {
        Ok(length) => Ok(length),
        Err(Errno::EPIPE | Errno::ECONNRESET) => anyhow::bail!("the peer has gone"),
        Err(error) => Err(error).context("splice"),
    }
}
