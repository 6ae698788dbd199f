//! An application that refuses: what the dialling one sees through two sidecars, and when the kernel is told.
//!
//! The far sidecar is a real stream that ends with a real refusal's alert; the kernel's ear is a UDP socket of the
//! test at the address that was dialled.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a step that fails fails its test, in a helper too"
)]

mod kit;

use std::{net::SocketAddr, rc::Rc, time::Duration};

use kit::{Ca, Handles, context, pair};
use ringmail_proxy::{
    connect::{self, Hop},
    copy::End,
    reason::Reason,
    record::{Direction, Record},
    refusal::Refusal,
    relay::Relay,
    tls::{self, MeshStream, alert},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::{JoinHandle, LocalSet, spawn_local},
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(8);

/// Longer than a refusal takes to be remembered, however it is found out.
const QUIET: Duration = Duration::from_millis(800);

/// An outbound sidecar between an application and a far sidecar that has yet to answer.
struct Dialled {
    application: TcpStream,
    far: MeshStream,
    kernel: UdpSocket,
    near: Handles,
    relay: JoinHandle<()>,
}

/// Dials an address where the test hears datagrams, with that port in `ring_ports` or not.
async fn dialled(is_probed: bool) -> Dialled {
    let kernel = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let destination = kernel.local_addr().unwrap();
    let ports = if is_probed { destination.port() } else { 47500 };
    let ca = Ca::new("root");
    let (client, server) = (ca.credentials("n1"), ca.credentials("n2"));
    let (near, far) = pair().await;
    let address = near.peer_addr().unwrap().ip();
    let (connected, accepted) = tokio::join!(
        tls::connect(near, address, &client, PATIENCE),
        tls::accept(far, Vec::new(), &server, PATIENCE)
    );
    let near = context(&client, &format!("ring_ports: [{ports}]"), "");
    let (application, captured) = pair().await;
    let relay = start(&near, Direction::Outbound, connected.unwrap(), captured, destination).await;
    Dialled { application, far: accepted.unwrap(), kernel, near, relay }
}

async fn start(
    handles: &Handles,
    direction: Direction,
    stream: MeshStream,
    application: TcpStream,
    destination: SocketAddr,
) -> JoinHandle<()> {
    let context = Rc::clone(&handles.context);
    let permit = context.limits.admit().await;
    let record = Record::open(&context.ledger, direction, "10.77.0.2:40000".parse().unwrap());
    record.destination(destination);
    record.secured(stream.peer(), stream.handshake_took());
    let relay = Relay { record, remote: End::Mesh(Box::new(stream)), application, first: Vec::new(), permit };
    spawn_local(relay.run(context))
}

/// What a sidecar says whose application refuses: the real error of a dial that nobody takes.
async fn refusal() -> Refusal {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let ca = Ca::new("root");
    let settings = context(&ca.credentials("n2"), "{}", "").context;
    Refusal::from(connect::dial(Hop::Outside, closed, &settings.config).await.unwrap_err())
}

impl Dialled {
    /// The far application refuses. Gives the reason that the near sidecar records and the datagrams it sends.
    async fn when_refused(self) -> (Reason, usize) {
        self.when_answered(refusal().await.alert()).await
    }

    async fn when_answered(self, alert: rustls::AlertDescription) -> (Reason, usize) {
        spawn_local(alert::abort(self.far, alert));
        timeout(PATIENCE, self.relay).await.expect("the relay did not end").unwrap();
        let page = self.near.context.ledger.read();
        let reason = *page.totals.values().flat_map(|totals| totals.closed.keys()).next().unwrap();
        let mut datagrams = 0;
        while let Ok(heard) = timeout(QUIET, self.kernel.recv_from(&mut [0; 16])).await {
            assert_eq!(heard.unwrap().0, 0, "it has nothing to say");
            datagrams += 1;
        }
        (reason, datagrams)
    }
}

/// Nothing has reached the sidecar on a loopback connection for that long only if nothing was sent.
async fn settle() {
    sleep(Duration::from_millis(50)).await;
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_refusal_is_told_apart_from_a_failure() {
    assert_eq!(refusal().await.alert(), alert::REFUSED);
    assert_ne!(alert::REFUSED, alert::APPLICATION_FAILED);
}

#[tokio::test]
async fn an_application_that_is_refused_sees_a_reset_and_the_record_says_peer_refused() {
    run(async {
        let mut dialled = dialled(true).await;
        dialled.application.write_all(b"hello").await.unwrap();
        let (mut application, rest) = pair().await;
        std::mem::swap(&mut application, &mut dialled.application);
        let seen = spawn_local(async move { application.read(&mut [0; 16]).await.unwrap_err().kind() });
        let (reason, datagrams) = dialled.when_refused().await;
        assert_eq!((reason, datagrams), (Reason::PeerRefused, 0), "it sent bytes: no probe");
        assert_eq!(seen.await.unwrap(), std::io::ErrorKind::ConnectionReset);
        drop(rest);
    })
    .await;
}

#[tokio::test]
async fn the_refusal_of_a_bare_probe_is_told_to_the_kernel_once() {
    run(async {
        let mut dialled = dialled(true).await;
        dialled.application.shutdown().await.unwrap();
        settle().await;
        assert_eq!(dialled.when_refused().await, (Reason::PeerRefused, 1));
    })
    .await;
}

#[tokio::test]
async fn a_probe_that_closes_a_little_after_the_refusal_is_one_too() {
    run(async {
        let mut dialled = dialled(true).await;
        let (closed, _other) = pair().await;
        let application = std::mem::replace(&mut dialled.application, closed);
        spawn_local(async move {
            sleep(Duration::from_millis(50)).await;
            drop(application);
        });
        assert_eq!(dialled.when_refused().await, (Reason::PeerRefused, 1));
    })
    .await;
}

#[tokio::test]
async fn a_probe_that_resets_before_the_answer_is_one_too() {
    run(async {
        let mut dialled = dialled(true).await;
        let (closed, _other) = pair().await;
        let application = std::mem::replace(&mut dialled.application, closed);
        SockRef::from(&application).set_linger(Some(Duration::ZERO)).unwrap();
        drop(application);
        settle().await;
        assert_eq!(dialled.when_refused().await, (Reason::ApplicationReset, 1));
    })
    .await;
}

#[tokio::test]
async fn a_connection_on_which_a_byte_was_sent_is_no_probe_however_it_ends() {
    run(async {
        for with_reset in [false, true] {
            let mut dialled = dialled(true).await;
            dialled.application.write_all(b"h").await.unwrap();
            settle().await;
            let (closed, _other) = pair().await;
            let application = std::mem::replace(&mut dialled.application, closed);
            if with_reset {
                SockRef::from(&application).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(application);
            settle().await;
            let (reason, datagrams) = dialled.when_refused().await;
            let expected = if with_reset { Reason::ApplicationReset } else { Reason::PeerRefused };
            assert_eq!((reason, datagrams), (expected, 0));
        }
    })
    .await;
}

#[tokio::test]
async fn an_application_that_neither_speaks_nor_leaves_is_no_probe() {
    run(async {
        let dialled = dialled(true).await;
        assert_eq!(dialled.when_refused().await, (Reason::PeerRefused, 0));
    })
    .await;
}

#[tokio::test]
async fn a_port_that_is_not_in_the_list_is_never_told() {
    run(async {
        let mut dialled = dialled(false).await;
        dialled.application.shutdown().await.unwrap();
        settle().await;
        assert_eq!(dialled.when_refused().await, (Reason::PeerRefused, 0));
    })
    .await;
}

#[tokio::test]
async fn a_far_application_that_failed_or_denies_has_not_refused() {
    run(async {
        for (alert, reason) in
            [(alert::APPLICATION_FAILED, Reason::PeerFailed), (alert::DENIED, Reason::DeniedByPeer)]
        {
            let mut dialled = dialled(true).await;
            dialled.application.shutdown().await.unwrap();
            settle().await;
            assert_eq!(dialled.when_answered(alert).await, (reason, 0));
        }
    })
    .await;
}
