//! Reads and writes of one leg: one system call each, as much as there is, no clock and no allocation.
//!
//! A read that was not filled has emptied the socket, and a write that was not taken whole has filled it. The
//! runtime is told so, and the next attempt waits without asking the kernel once more.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd},
    task::{Context, Poll, ready},
};

use nix::{
    libc,
    sys::{
        socket::{MsgFlags, recv, send},
        uio::{readv, writev},
    },
};
use tokio::{io::Interest, net::TcpStream};

use crate::slab::{BULK_SLOTS, SLOT_LEN, Size, Slab, no_slices};

/// Reads into the slots of a new slab. One without pieces means that the peer ended.
pub(super) fn poll_fill(tcp: &TcpStream, cx: &mut Context<'_>, size: Size) -> Poll<io::Result<Slab>> {
    ready!(tcp.poll_read_ready(cx))?;
    let mut slab = Slab::lend(size);
    let (read, room) = if let Some(slots) = slab.slots_mut() {
        let mut slots = slots.map(IoSliceMut::new);
        let room = BULK_SLOTS * SLOT_LEN;
        (ready!(poll_once(tcp, cx, Interest::READABLE, room, || readv(tcp.as_fd(), &mut slots)))?, room)
    } else {
        (ready!(poll_read(tcp, cx, slab.first_slot_mut()))?, SLOT_LEN)
    };
    slab.filled(read, read == room);
    Poll::Ready(Ok(slab))
}

/// Reads into `room`; 0 means that the peer ended.
pub(crate) fn poll_read(tcp: &TcpStream, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
    let all = room.len();
    poll_once(tcp, cx, Interest::READABLE, all, || recv(tcp.as_raw_fd(), room, MsgFlags::empty()))
}

/// Writes what is left of the slab, as far as the socket takes it. The caller advances it.
pub(crate) fn poll_write(tcp: &TcpStream, cx: &mut Context<'_>, slab: &Slab) -> Poll<io::Result<usize>> {
    if !slab.is_scattered() {
        return poll_write_bytes(tcp, cx, slab.first_piece());
    }
    let mut slices = no_slices();
    let count = slab.slices(&mut slices);
    let all = slices.iter().map(|slice| slice.len()).sum();
    poll_once(tcp, cx, Interest::WRITABLE, all, || writev(tcp.as_fd(), &slices[..count]))
}

/// Writes `bytes`, as far as the socket takes them.
pub(crate) fn poll_write_bytes(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    poll_send(tcp, cx, bytes, MsgFlags::empty())
}

/// Writes the last bytes that a leg says, as far as the socket takes them. They leave with the FIN that is to follow
/// at once, in one packet.
pub(crate) fn poll_write_last(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    poll_send(tcp, cx, bytes, MsgFlags::from_bits_retain(libc::MSG_MORE))
}

fn poll_send(tcp: &TcpStream, cx: &mut Context<'_>, bytes: &[u8], more: MsgFlags) -> Poll<io::Result<usize>> {
    poll_once(tcp, cx, Interest::WRITABLE, bytes.len(), || {
        send(tcp.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL | more)
    })
}

/// Waits until the socket is ready and does `call` once. Less than `all` means that it is not ready any more.
pub(super) fn poll_once(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    interest: Interest,
    all: usize,
    mut call: impl FnMut() -> nix::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(if interest.is_readable() { tcp.poll_read_ready(cx) } else { tcp.poll_write_ready(cx) })?;
        let mut done = None;
        let called = tcp.try_io(interest, || {
            let count = call()?;
            done = Some(count);
            if (1..all).contains(&count) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (done, called) {
            (Some(count), _) => return Poll::Ready(Ok(count)),
            (None, Err(error)) if is_passing(&error) => {}
            (None, Err(error)) => return Poll::Ready(Err(error)),
            (None, Ok(())) => {}
        }
    }
}

/// Whether the call is to be done again: the socket was not ready after all, or a signal came between.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::{sleep, timeout},
    };

    use super::*;

    /// The kernel holds back what is to leave with a FIN for 200 ms at most.
    const HELD_BACK: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn the_last_bytes_leave_with_the_fin() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap());
        let (near, accepted) = tokio::join!(dialled, listener.accept());
        let (mut near, mut far) = (near.unwrap(), accepted.unwrap().0);
        near.set_nodelay(true).unwrap();
        let written = poll_fn(|cx| poll_write_last(&near, cx, b"farewell")).await.unwrap();
        assert_eq!(written, 8);
        sleep(HELD_BACK).await;
        let mut heard = [0; 16];
        assert_eq!(far.try_read(&mut heard).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        near.shutdown().await.unwrap();
        let mut heard = Vec::new();
        timeout(HELD_BACK, far.read_to_end(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, b"farewell");
    }
}
