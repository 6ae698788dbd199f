//! Two sidecars and two applications: `application A | outbound relay ==mutual TLS== inbound relay |
//! application B`, each application a test that holds a socket, each relay the real one.

use std::{io, rc::Rc, time::Duration};

use ringmail_proxy::{
    copy::End,
    reason::Reason,
    record::{Direction, Protection, Record},
    relay::Relay,
    tls,
};
use socket2::SockRef;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    task::{LocalSet, spawn_local},
    time::{Instant, sleep, timeout},
};

use super::{Ca, Handles, context, pair};

pub(crate) const PATIENCE: Duration = Duration::from_secs(8);
pub(crate) const NO_POLICY: &str = "";

/// Both sidecars with the applications' ends.
pub(crate) struct Wire {
    pub(crate) a: TcpStream,
    pub(crate) b: TcpStream,
    pub(crate) outbound: Handles,
    pub(crate) inbound: Handles,
    /// Kills a sidecar as kill -9 would: its sockets close, nothing more is said.
    pub(crate) kill_inbound: tokio::task::JoinHandle<()>,
}

pub(crate) async fn wire(settings: &str) -> Wire {
    let ca = Ca::new("root");
    let (outbound, inbound) = (ca.credentials("n1"), ca.credentials("n2"));
    let (near, far) = pair().await;
    let address = near.peer_addr().unwrap().ip();
    let (connected, accepted) = tokio::join!(
        tls::connect(near, address, &outbound, PATIENCE),
        tls::accept(far, Vec::new(), &inbound, PATIENCE)
    );
    let (outbound, inbound) =
        (context(&outbound, settings, NO_POLICY), context(&inbound, settings, NO_POLICY));
    let (a, a_side) = pair().await;
    let (b_side, b) = pair().await;
    start(&outbound, Direction::Outbound, connected.unwrap(), a_side).await;
    let kill_inbound = start(&inbound, Direction::Inbound, accepted.unwrap(), b_side).await;
    Wire { a, b, outbound, inbound, kill_inbound }
}

pub(crate) async fn start(
    handles: &Handles,
    direction: Direction,
    stream: tls::MeshStream,
    application: TcpStream,
) -> tokio::task::JoinHandle<()> {
    let context = Rc::clone(&handles.context);
    let permit = context.limits.admit().await;
    let record = Record::open(&context.ledger, direction, "10.77.0.2:40000".parse().unwrap());
    record.destination("10.77.0.1:47100".parse().unwrap());
    record.secured(stream.peer(), stream.handshake_took());
    assert_eq!(record.live().protection(), Protection::MutualTls);
    let live = std::sync::Arc::clone(record.live());
    let relay = Relay { record, remote: End::Mesh(Box::new(stream)), application, first: Vec::new(), permit };
    let task = spawn_local(relay.run(context));
    while live.established.get().is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    task
}

impl Wire {
    /// The reasons that both sidecars recorded, outbound first.
    pub(crate) async fn reasons(&self) -> (Reason, Reason) {
        (reason(&self.outbound).await, reason(&self.inbound).await)
    }
}

pub(crate) async fn reason(handles: &Handles) -> Reason {
    let end = Instant::now() + PATIENCE;
    loop {
        let page = handles.context.ledger.read();
        if let Some(reason) = page.totals.values().flat_map(|totals| totals.closed.keys()).next() {
            return *reason;
        }
        assert!(Instant::now() < end, "no record was closed");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What the next read of an application gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

pub(crate) async fn sees(stream: &mut TcpStream) -> Sees {
    let mut buffer = vec![0; 1 << 16];
    match timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap() {
        Ok(0) => Sees::Fin,
        Ok(read) => Sees::Bytes(buffer[..read].to_vec()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Sees::Reset,
        Err(error) => panic!("neither bytes, FIN nor RST: {error}"),
    }
}

pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

pub(crate) async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}
