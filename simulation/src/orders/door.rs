//! Places among the connections, and the hand-over of a connection to the worker that has the fewest.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, TcpListener},
    sync::Arc,
};

use ringmail_proxy::config::Config;
use shuttle::{
    future::block_on,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use tokio::sync::mpsc;

use crate::{
    door::{Handed, Seat, hand_over},
    limits::{Limits, Permit},
    record::Direction,
};

const PLACES: usize = 2;
const ACCEPTORS: usize = 2;
const WORKERS: usize = 2;
/// By each acceptor; together more than there are places.
const CONNECTIONS: usize = 3;
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A connection without a socket.
#[derive(Debug)]
pub(crate) struct Accepted {
    permit: Permit,
}

/// The door's own way to accept is not what is tried.
pub(crate) async fn accept_all(
    _: TcpListener,
    _: Direction,
    _: Arc<Limits>,
    _: impl Fn(Accepted),
) -> io::Result<()> {
    std::future::pending().await
}

fn limits() -> Arc<Limits> {
    Limits::new(&Config::from_text("test.yaml", "max_handshakes_per_source: 1\n").unwrap(), PLACES)
}

/// Every place is taken, and all are given back while as many wait: each gets one, and keeps it, so that nobody is woken later who
/// was forgotten.
pub fn whoever_waits_gets_a_place_that_is_free() {
    let limits = limits();
    let taken: Vec<_> = (0..PLACES).map(|_| block_on(limits.admit())).collect();
    let leaving: Vec<_> = taken.into_iter().map(|permit| thread::spawn(move || drop(permit))).collect();
    let waiting: Vec<_> = (0..PLACES)
        .map(|_| {
            let limits = Arc::clone(&limits);
            thread::spawn(move || block_on(limits.admit()))
        })
        .collect();
    let kept: Vec<_> = waiting.into_iter().map(|one| one.join().unwrap()).collect();
    leaving.into_iter().for_each(|one| one.join().unwrap());
    assert_eq!((limits.open(), kept.len()), (PLACES, PLACES));
}

/// Acceptors wait for places and hand on, workers give places back: there are never more connections than the total, nor more
/// handshakes of a source than it may have, and in the end no worker's load is left over.
pub fn connections_are_handed_over_and_their_places_come_back() {
    let limits = limits();
    let shaking = Arc::new(AtomicUsize::new(0));
    let (seats, queues): (Vec<_>, Vec<_>) = (0..WORKERS)
        .map(|_| {
            let (queue, accepted) = mpsc::unbounded_channel();
            (Seat { queue, load: Arc::default() }, accepted)
        })
        .unzip();
    let workers: Vec<_> = queues
        .into_iter()
        .map(|queue| {
            let (limits, shaking) = (Arc::clone(&limits), Arc::clone(&shaking));
            thread::spawn(move || serve(queue, &limits, &shaking))
        })
        .collect();
    let acceptors: Vec<_> = (0..ACCEPTORS)
        .map(|_| {
            let (limits, seats) = (Arc::clone(&limits), seats.clone());
            thread::spawn(move || {
                for _ in 0..CONNECTIONS {
                    let permit = block_on(limits.admit());
                    assert!(limits.open() <= PLACES, "{} of {PLACES}", limits.open());
                    hand_over(&seats, Accepted { permit });
                }
            })
        })
        .collect();
    for acceptor in acceptors {
        acceptor.join().unwrap();
    }
    let loads: Vec<_> = seats.iter().map(|seat| Arc::clone(&seat.load)).collect();
    drop(seats);
    let served: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(served, ACCEPTORS * CONNECTIONS);
    assert_eq!(limits.open(), 0);
    assert!(loads.iter().all(|load| load.load(Ordering::Relaxed) == 0), "{loads:?}");
}

fn serve(mut queue: mpsc::UnboundedReceiver<Handed>, limits: &Limits, shaking: &AtomicUsize) -> usize {
    let mut served = 0;
    while let Some((mut accepted, load)) = block_on(queue.recv()) {
        assert!(accepted.permit.charge(SOURCE));
        let turn = block_on(limits.handshake(SOURCE)).unwrap();
        assert_eq!(shaking.fetch_add(1, Ordering::SeqCst), 0, "two handshakes of a source that may have one");
        shaking.fetch_sub(1, Ordering::SeqCst);
        drop(turn);
        drop(accepted);
        drop(load);
        served += 1;
    }
    served
}
