//! Bytes from one plain socket to another through a pipe: the kernel passes on its own pages, and this process
//! touches none of them.
//!
//! A worker lends pipes as it does slabs: one is held while bytes are in it and given back when it is empty.
//! Where none is to be had, the copy goes on by slabs.
//!
//! A pipe is full at so many bytes or at so many segments, and the kernel stops before an urgent byte. So a
//! splice that did not fill the pipe does not say that the socket is empty, and one that gave nothing does not
//! say that it has ended. Only a read tells, and one is made then.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    libc::c_int,
    unistd::pipe2,
};
use tokio::{io::Interest, net::TcpStream};

use super::socket;

/// Bytes that a pipe is to hold: as much as a slab for bulk. All pipes of a user may hold 64 MiB together, on the
/// whole node, before the kernel gives smaller ones.
const CAPACITY: c_int = 256 << 10;

/// A pipe that holds less is not used: it would take more calls than a slab does. This is what the kernel gives
/// where it does not allow [`CAPACITY`]; beyond what a user may have it gives two pages.
const MIN_CAPACITY: usize = 64 << 10;

/// Empty pipes a worker keeps: as many as slabs.
const KEPT: usize = 2;

/// Pipes that a worker lends at once. Beyond it a connection gets a slab: what slow readers leave in pipes is the
/// kernel's memory, of which no limit of the container tells.
const MAX_LENT: usize = 16;

/// Descriptors that a worker's pipes are open with at most.
pub(crate) const PIPE_DESCRIPTORS: usize = 2 * MAX_LENT;

/// How often nobody asks for a pipe after one could not be made, so that a lack of them costs nearly nothing.
const RETRY_AFTER: u32 = 64;

/// A pipe on loan, and what is in it. The default is none at all.
#[derive(Debug, Default)]
pub(super) struct Pipe(Option<Box<Ends>>);

#[derive(Debug)]
struct Ends {
    outlet: OwnedFd,
    inlet: OwnedFd,
    capacity: usize,
    /// Bytes that are in it.
    held: usize,
}

#[derive(Default)]
struct Pool {
    /// Boxed, so that a connection without one has room for a pointer only.
    #[expect(clippy::vec_box, reason = "the box is what is lent")]
    kept: Vec<Box<Ends>>,
    lent: usize,
    /// How often nobody asks for another.
    resting: u32,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

impl Pipe {
    /// Lends an empty pipe, where one is to be had.
    pub(super) fn lend() -> Option<Self> {
        POOL.with_borrow_mut(|pool| pool.lend().map(|ends| Self(Some(ends))))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held() == 0
    }

    /// Whether it holds as many bytes as it can.
    pub(super) fn is_full(&self) -> bool {
        self.0.as_ref().is_some_and(|ends| ends.held >= ends.capacity)
    }

    /// Bytes that are in it.
    pub(super) fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |ends| ends.held)
    }

    /// Moves into it, while it is empty, what the socket has. 0 means that nothing was moved, and that only a
    /// read tells why.
    pub(super) fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &mut self.0 else { return Ok(0) };
        loop {
            match splice(from, None, &ends.inlet, None, ends.capacity, SpliceFFlags::SPLICE_F_NONBLOCK) {
                Ok(moved) => {
                    ends.held = moved;
                    return Ok(moved);
                }
                Err(Errno::EINTR) => {}
                // A kernel or a filter of system calls that does not splice sockets still reads them.
                Err(Errno::EAGAIN | Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes what is in it, as far as the socket takes it.
    pub(super) fn poll_drain(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(ends) = &mut self.0 else { return Poll::Ready(Ok(0)) };
        // Never asked for more than is there: the kernel would hold the end back for what follows.
        let written = ready!(socket::poll_once(to, cx, Interest::WRITABLE, ends.held, || {
            splice(&ends.outlet, None, to, None, ends.held, SpliceFFlags::SPLICE_F_NONBLOCK)
        }))?;
        ends.held -= written;
        Poll::Ready(Ok(written))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Some(ends) = self.0.take() {
            // While the thread ends there may be no pool any more.
            let _ = POOL.try_with(|pool| pool.borrow_mut().take_back(ends));
        }
    }
}

impl Pool {
    fn lend(&mut self) -> Option<Box<Ends>> {
        if self.lent >= MAX_LENT {
            return None;
        }
        let ends = match self.kept.pop() {
            Some(ends) => ends,
            None => self.make()?,
        };
        self.lent += 1;
        Some(ends)
    }

    fn make(&mut self) -> Option<Box<Ends>> {
        if self.resting > 0 {
            self.resting -= 1;
            return None;
        }
        let made = Ends::new();
        if made.is_none() {
            self.resting = RETRY_AFTER;
        }
        made.map(Box::new)
    }

    fn take_back(&mut self, ends: Box<Ends>) {
        self.lent = self.lent.saturating_sub(1);
        if ends.held == 0 && self.kept.len() < KEPT {
            self.kept.push(ends);
        }
    }
}

impl Ends {
    /// `None` where the descriptors or the memory for pipes are used up.
    fn new() -> Option<Self> {
        let (outlet, inlet) = pipe2(OFlag::O_CLOEXEC).ok()?;
        let capacity = fcntl(&inlet, FcntlArg::F_SETPIPE_SZ(CAPACITY))
            .or_else(|_| fcntl(&inlet, FcntlArg::F_GETPIPE_SZ))
            .ok()
            .and_then(|capacity| usize::try_from(capacity).ok())?;
        (capacity >= MIN_CAPACITY).then_some(Self { outlet, inlet, capacity, held: 0 })
    }
}

#[cfg(test)]
mod tests;
