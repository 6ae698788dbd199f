//! The ways to end a leg, never mixed up.
//!
//! What an application sees when a connection ends decides what it believes of its peer: to Ignite a
//! FIN where a RST belongs costs ten seconds per dead address, and a RST where a FIN belongs throws a
//! healthy node out of the ring. So every end is one of these calls, chosen by the story.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::{
    copy::socket,
    slab::{Size, Slab},
};

/// How long a leg that was ended with a FIN is still read and discarded. Closing a socket with unread
/// data makes the kernel send a RST, which could overtake the last bytes or the alert before the FIN.
const DISCARD_DEADLINE: Duration = Duration::from_secs(10);

/// Ends the leg with a RST at once: whatever is unsent is dropped.
pub fn reset(stream: TcpStream) {
    // A socket that refuses the option is already gone, and then so is its peer.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// Ends the leg with a FIN: no reset before the other side has closed too, or the deadline has passed.
pub async fn finish(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let _ = timeout(DISCARD_DEADLINE, poll_fn(|cx| poll_discard(&stream, cx))).await;
}

/// Ready once the other side has closed.
fn poll_discard(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let mut sink = Slab::lend(Size::Small);
        match ready!(socket::poll_read(stream, cx, sink.memory_mut())) {
            Ok(0) | Err(_) => return Poll::Ready(()),
            Ok(_) => {}
        }
    }
}
