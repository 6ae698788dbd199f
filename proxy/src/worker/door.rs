//! Accepting for every worker, and which of them a connection goes to: the one with the fewest.

use std::{net::TcpListener, rc::Rc, sync::Arc};

use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    limits::Limits,
    listen::{Accepted, accept_all},
    record::Direction,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// What is handed to a worker: a connection, and its share of the worker's load.
pub(crate) type Handed = (Accepted, Load);

/// A worker, as whoever hands connections on sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) queue: mpsc::UnboundedSender<Handed>,
    pub(crate) load: Arc<AtomicUsize>,
}

/// The listeners, and what one who stands at them needs.
pub(crate) struct Door {
    pub(crate) listeners: Vec<(Direction, TcpListener)>,
    pub(crate) limits: Arc<Limits>,
    /// Connections that were handed on.
    pub(crate) begun: Arc<AtomicU64>,
}

impl Door {
    /// Accepts on every listener; returns once one of them does not accept any more.
    pub(crate) async fn keep(self, seats: Vec<Seat>) {
        let seats: Rc<[Seat]> = seats.into();
        let mut accepting = JoinSet::new();
        for (direction, listener) in self.listeners {
            let (seats, limits) = (Rc::clone(&seats), Arc::clone(&self.limits));
            let begun = Arc::clone(&self.begun);
            accepting.spawn_local(async move {
                let hand_on = |accepted| {
                    begun.fetch_add(1, Ordering::Relaxed);
                    hand_over(&seats, accepted);
                };
                let done = accept_all(listener, direction, limits, hand_on).await;
                if let Err(error) = done {
                    tracing::error!(%error, direction = direction.as_str(), "accepting ended");
                }
            });
        }
        if accepting.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

pub(crate) fn hand_over(seats: &[Seat], accepted: Accepted) {
    let least = seats.iter().min_by_key(|seat| seat.load.load(Ordering::Relaxed));
    if let Some(seat) = least {
        // A worker that is gone drops the connection: the process is ending.
        let _ = seat.queue.send((accepted, Load::on(&seat.load)));
    }
}

/// All listeners of both ways.
pub(super) fn listeners(
    outbound: Vec<TcpListener>,
    inbound: Vec<TcpListener>,
) -> Vec<(Direction, TcpListener)> {
    let outbound = outbound.into_iter().map(|listener| (Direction::Outbound, listener));
    outbound.chain(inbound.into_iter().map(|listener| (Direction::Inbound, listener))).collect()
}

/// A connection's share of its worker's load, given back also when its task panics.
#[derive(Debug)]
pub(crate) struct Load(Arc<AtomicUsize>);

impl Load {
    /// One more on this worker.
    pub(super) fn on(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
