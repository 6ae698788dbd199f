//! What an application sees at the end of a connection through two sidecars, on real sockets.
//!
//! `application A | outbound relay ==mutual TLS== inbound relay | application B`, each application a
//! test that holds a socket, each relay the real one.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

mod kit;

use std::{io, time::Duration};

use kit::{
    Ca, context, pair,
    wire::{NO_POLICY, PATIENCE, Sees, reason, reset, run, sees, start, wire},
};
use ringmail_proxy::{reason::Reason, record::Direction, tls};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::spawn_local,
    time::{Instant, sleep, timeout},
};

#[tokio::test]
async fn bytes_pass_both_ways_and_two_ends_are_complete() {
    run(async {
        let mut wire = wire("{}").await;
        wire.a.write_all(b"ping").await.unwrap();
        assert_eq!(sees(&mut wire.b).await, Sees::Bytes(b"ping".to_vec()));
        wire.b.write_all(b"pong").await.unwrap();
        assert_eq!(sees(&mut wire.a).await, Sees::Bytes(b"pong".to_vec()));
        wire.a.shutdown().await.unwrap();
        assert_eq!(sees(&mut wire.b).await, Sees::Fin);
        wire.b.shutdown().await.unwrap();
        assert_eq!(sees(&mut wire.a).await, Sees::Fin);
        assert_eq!(wire.reasons().await, (Reason::Complete, Reason::Complete));
        let page = wire.inbound.context.ledger.read();
        let totals = page.totals.values().next().unwrap();
        assert_eq!((totals.from_downstream, totals.to_downstream), (4, 4));
    })
    .await;
}

#[tokio::test]
async fn a_half_closed_connection_still_answers() {
    run(async {
        let mut wire = wire("{}").await;
        wire.a.write_all(b"question").await.unwrap();
        wire.a.shutdown().await.unwrap();
        assert_eq!(sees(&mut wire.b).await, Sees::Bytes(b"question".to_vec()));
        assert_eq!(sees(&mut wire.b).await, Sees::Fin);
        sleep(Duration::from_millis(1_000)).await;
        wire.b.write_all(b"late answer").await.unwrap();
        assert_eq!(sees(&mut wire.a).await, Sees::Bytes(b"late answer".to_vec()));
        wire.b.shutdown().await.unwrap();
        assert_eq!(sees(&mut wire.a).await, Sees::Fin);
        assert_eq!(wire.reasons().await, (Reason::Complete, Reason::Complete));
    })
    .await;
}

#[tokio::test]
async fn an_application_that_resets_is_seen_to_reset_on_the_far_side_after_its_last_bytes() {
    run(async {
        let mut wire = wire("{}").await;
        wire.b.write_all(b"last words").await.unwrap();
        assert_eq!(sees(&mut wire.a).await, Sees::Bytes(b"last words".to_vec()));
        let began = Instant::now();
        reset(wire.b);
        assert_eq!(sees(&mut wire.a).await, Sees::Reset);
        assert!(began.elapsed() < Duration::from_millis(500), "took {:?}", began.elapsed());
        let reasons = (reason(&wire.outbound).await, reason(&wire.inbound).await);
        assert_eq!(reasons, (Reason::PeerFailed, Reason::ApplicationReset));
    })
    .await;
}

#[tokio::test]
async fn a_reset_of_the_dialling_application_reaches_the_far_one_too() {
    run(async {
        let mut wire = wire("{}").await;
        reset(wire.a);
        assert_eq!(sees(&mut wire.b).await, Sees::Reset);
        let reasons = (reason(&wire.outbound).await, reason(&wire.inbound).await);
        assert_eq!(reasons, (Reason::ApplicationReset, Reason::PeerFailed));
    })
    .await;
}

#[tokio::test]
async fn a_sidecar_that_dies_is_a_fin_and_never_a_reset() {
    run(async {
        let mut wire = wire("{}").await;
        wire.kill_inbound.abort();
        assert_eq!(sees(&mut wire.a).await, Sees::Fin);
        assert_eq!(reason(&wire.outbound).await, Reason::StreamCut);
        // The application may still be writing when it learns: no reset comes back for that either.
        wire.a.write_all(b"into the void").await.unwrap();
        sleep(Duration::from_millis(100)).await;
        wire.a.write_all(b"and again").await.unwrap();
        // A task that is dropped leaves its record all the same.
        assert_eq!(reason(&wire.inbound).await, Reason::Aborted);
    })
    .await;
}

#[tokio::test]
async fn a_port_may_ask_for_a_reset_when_its_stream_is_cut() {
    run(async {
        let mut wire = wire("truncation_reset_ports: [47100]").await;
        wire.kill_inbound.abort();
        assert_eq!(sees(&mut wire.a).await, Sees::Reset);
    })
    .await;
}

#[tokio::test]
async fn after_a_goodbye_a_failure_is_still_told() {
    run(async {
        let mut wire = wire("{}").await;
        wire.b.shutdown().await.unwrap();
        assert_eq!(sees(&mut wire.a).await, Sees::Fin);
        reset(wire.b);
        // Nobody takes these bytes any more: like on a plain connection, the writer learns by a reset.
        let end = Instant::now() + PATIENCE;
        let failed = loop {
            match wire.a.write_all(&[7; 1024]).await {
                Err(error) => break error,
                Ok(()) => assert!(Instant::now() < end, "the writer never learnt"),
            }
            sleep(Duration::from_millis(20)).await;
        };
        assert!(
            matches!(failed.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            "{failed}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_half_closed_and_silent_connection_ends_at_its_deadline_and_a_busy_one_does_not() {
    run(async {
        let mut wire = wire("half_close_timeout: 700ms").await;
        wire.a.shutdown().await.unwrap();
        assert_eq!(sees(&mut wire.b).await, Sees::Fin);
        for _ in 0..5 {
            sleep(Duration::from_millis(300)).await;
            wire.b.write_all(b".").await.unwrap();
            assert_eq!(sees(&mut wire.a).await, Sees::Bytes(b".".to_vec()));
        }
        assert_eq!(sees(&mut wire.a).await, Sees::Reset);
        assert_eq!(reason(&wire.inbound).await, Reason::HalfCloseTimeout);
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_stops_holds_back_the_writer_and_little_is_held() {
    run(async {
        let mut wire = wire("{}").await;
        for socket in [&wire.a, &wire.b] {
            SockRef::from(socket).set_send_buffer_size(64 * 1024).unwrap();
            SockRef::from(socket).set_recv_buffer_size(64 * 1024).unwrap();
        }
        let chunk = vec![7u8; 64 * 1024];
        let mut taken = 0u64;
        while let Ok(Ok(written)) = timeout(Duration::from_millis(500), wire.a.write(&chunk)).await {
            taken += written as u64;
            assert!(taken < 64 << 20, "nothing pushes back");
        }
        let page = wire.inbound.context.ledger.read();
        let passed = page.totals.values().next().unwrap().from_downstream;
        assert!(passed < taken, "the reader's side counts only what was written to it");
        // Everything that was taken arrives, in order, once the reader reads.
        let mut received = 0u64;
        let mut buffer = vec![0u8; 1 << 20];
        while received < taken {
            let read = timeout(PATIENCE, wire.b.read(&mut buffer)).await.unwrap().unwrap();
            assert!(buffer[..read].iter().all(|byte| *byte == 7));
            received += read as u64;
        }
        assert_eq!(received, taken);
    })
    .await;
}

#[tokio::test]
async fn a_policy_change_resets_the_connection_it_denies_and_touches_no_other() {
    run(async {
        let (mut wire, mut other) = (wire("{}").await, wire("{}").await);
        wire.inbound.context.registry.apply_policy(&kit::snapshot(DENY_N1, 2).inbound);
        let began = Instant::now();
        assert_eq!(sees(&mut wire.a).await, Sees::Reset);
        assert_eq!(sees(&mut wire.b).await, Sees::Reset);
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(wire.reasons().await, (Reason::DeniedByPeer, Reason::AuthorizationChanged));
        other.inbound.context.registry.apply_policy(&kit::snapshot(DENY_ANOTHER, 2).inbound);
        other.a.write_all(b"still here").await.unwrap();
        assert_eq!(sees(&mut other.b).await, Sees::Bytes(b"still here".to_vec()));
    })
    .await;
}

const DENY_N1: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-n1, namespace: ignite}
spec:
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/ignite/sa/n1]}}]}]
";
const DENY_ANOTHER: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-another, namespace: ignite}
spec:
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/ignite/sa/another]}}]}]
";

#[tokio::test]
async fn a_root_that_leaves_the_bundle_ends_its_connections_with_a_fin() {
    run(async {
        let mut wire = wire("{}").await;
        let fresh = Ca::new("next root").bundle();
        wire.inbound.context.registry.apply_bundle(&fresh);
        assert_eq!(sees(&mut wire.a).await, Sees::Fin);
        assert_eq!(sees(&mut wire.b).await, Sees::Fin);
        assert_eq!(wire.reasons().await, (Reason::StreamCut, Reason::RootRemoved));
    })
    .await;
}

#[tokio::test]
async fn a_decision_that_changed_between_handshake_and_first_byte_is_caught() {
    run(async {
        let ca = Ca::new("root");
        let (client, server) = (ca.credentials("n1"), ca.credentials("n2"));
        let (near, far) = pair().await;
        let address = near.peer_addr().unwrap().ip();
        let (connected, accepted) = tokio::join!(
            tls::connect(near, address, &client, PATIENCE),
            tls::accept(far, Vec::new(), &server, PATIENCE)
        );
        let inbound = context(&server, "{}", NO_POLICY);
        inbound.snapshots.send_replace(Some(kit::snapshot(DENY_N1, 2)));
        let (b_side, mut b) = pair().await;
        start(&inbound, Direction::Inbound, accepted.unwrap(), b_side).await;
        assert_eq!(sees(&mut b).await, Sees::Reset);
        assert_eq!(reason(&inbound).await, Reason::AuthorizationChanged);
        drop(connected);
    })
    .await;
}

#[tokio::test]
async fn random_bytes_with_random_half_closes_arrive_unchanged() {
    run(async {
        let mut streams = Vec::new();
        for seed in 0..16u64 {
            let wire = wire("{}").await;
            streams.push(spawn_local(async move {
                let (mut a_read, mut a_write) = wire.a.into_split();
                let (mut b_read, mut b_write) = wire.b.into_split();
                tokio::join!(
                    send(&mut a_write, seed * 2),
                    send(&mut b_write, seed * 2 + 1),
                    expect(&mut b_read, seed * 2),
                    expect(&mut a_read, seed * 2 + 1),
                );
            }));
        }
        for stream in streams {
            timeout(PATIENCE * 4, stream).await.unwrap().unwrap();
        }
    })
    .await;
}

/// A small seeded generator: the same seed gives the same bytes on both ends.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn stream(seed: u64) -> Vec<u8> {
        let mut seeded = Self(seed);
        let length = (seeded.next() % 3_000_000) as usize;
        (0..length.div_ceil(8)).flat_map(|_| seeded.next().to_le_bytes()).take(length).collect()
    }
}

async fn send(writer: &mut tokio::net::tcp::OwnedWriteHalf, seed: u64) {
    let bytes = Seeded::stream(seed);
    let mut sizes = Seeded(seed ^ 0xabcd);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let size = (sizes.next() % 262_144 + 1) as usize;
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        writer.write_all(chunk).await.unwrap();
        rest = after;
    }
    writer.shutdown().await.unwrap();
}

async fn expect(reader: &mut tokio::net::tcp::OwnedReadHalf, seed: u64) {
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    assert!(received == Seeded::stream(seed), "stream {seed} differs");
}
