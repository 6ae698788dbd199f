//! What was said before a failure arrives before it, and a failure is never taken for an end in order.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

mod kit;

use std::{future::poll_fn, io::ErrorKind, time::Duration};

use kit::{
    Ca, pair,
    wire::{PATIENCE, Sees, reason, reset, run, sees, wire},
};
use ringmail_proxy::{
    reason::Reason,
    slab::{Size, Slab},
    tls::{self, alert},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
    time::{sleep, timeout},
};

/// Reads to the end, or to a failure.
async fn drain(stream: &mut TcpStream) -> (usize, Option<ErrorKind>) {
    let (mut received, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap() {
            Ok(0) => return (received, None),
            Ok(read) => received += read,
            Err(error) => return (received, Some(error.kind())),
        }
    }
}

/// Writes until the far side takes no more.
async fn fill(stream: &mut TcpStream) {
    let chunk = vec![7u8; 1 << 16];
    while let Ok(written) = timeout(Duration::from_millis(300), stream.write(&chunk)).await {
        written.unwrap();
    }
}

#[tokio::test]
async fn last_words_that_arrive_together_with_the_reset_are_delivered_first() {
    run(async {
        let mut wire = wire("{}").await;
        // Both in one turn of the far sidecar, so that this one decrypts both at once.
        wire.b.write_all(b"last words").await.unwrap();
        reset(wire.b);
        assert_eq!(sees(&mut wire.a).await, Sees::Bytes(b"last words".to_vec()));
        assert_eq!(sees(&mut wire.a).await, Sees::Reset);
        assert_eq!(reason(&wire.outbound).await, Reason::PeerFailed);
    })
    .await;
}

#[tokio::test]
async fn an_application_that_dies_with_a_full_window_is_seen_to_reset_and_not_to_end() {
    run(async {
        let mut wire = wire("{}").await;
        fill(&mut wire.a).await;
        // Bytes that nobody read: the kernel closes with a reset.
        drop(wire.b);
        let seen = drain(&mut wire.a).await;
        assert_eq!(seen, (0, Some(ErrorKind::ConnectionReset)));
        assert_eq!(reason(&wire.inbound).await, Reason::ApplicationReset);
    })
    .await;
}

#[tokio::test]
async fn what_was_sent_before_a_goodbye_arrives_whole_although_its_sender_has_failed_since() {
    run(async {
        let ca = Ca::new("root");
        let (near, far) = pair().await;
        let address = near.peer_addr().unwrap().ip();
        let (client, server) = (ca.credentials("n1"), ca.credentials("n2"));
        let (connected, accepted) = tokio::join!(
            tls::connect(near, address, &client, PATIENCE),
            tls::accept(far, Vec::new(), &server, PATIENCE)
        );
        let (mut near, mut far) = (connected.unwrap(), accepted.unwrap());
        // As much as the kernel takes, so that much of it waits there to be sent.
        let mut sent = 0;
        let chunk = vec![7u8; 1 << 16];
        let mut slab = Slab::default();
        loop {
            if slab.is_empty() {
                slab = Slab::holding(&chunk);
            }
            let writing = poll_fn(|cx| near.poll_write(cx, &mut slab));
            let Ok(written) = timeout(Duration::from_millis(100), writing).await else { break };
            sent += written.unwrap();
        }
        let goodbye = spawn_local(async move {
            poll_fn(|cx| near.poll_close_notify(cx)).await.unwrap();
            alert::abort(near, alert::APPLICATION_FAILED).await;
        });
        let mut received = 0;
        loop {
            let slab = poll_fn(|cx| far.poll_fill(cx, Size::Bulk)).await.unwrap();
            if slab.is_empty() {
                break;
            }
            received += slab.len();
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(received, sent, "and then the goodbye");
        timeout(PATIENCE, goodbye).await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_half_closed_connection_that_is_looked_at_often_is_not_taken_for_silent() {
    run(async {
        let mut wire = wire("half_close_timeout: 700ms").await;
        let registry = std::rc::Rc::clone(&wire.inbound.context.registry);
        let looks = spawn_local(async move {
            loop {
                registry.probe();
                sleep(Duration::from_millis(20)).await;
            }
        });
        wire.a.shutdown().await.unwrap();
        assert_eq!(sees(&mut wire.b).await, Sees::Fin);
        for _ in 0..6 {
            sleep(Duration::from_millis(400)).await;
            wire.b.write_all(b".").await.unwrap();
            assert_eq!(sees(&mut wire.a).await, Sees::Bytes(b".".to_vec()));
        }
        looks.abort();
    })
    .await;
}
