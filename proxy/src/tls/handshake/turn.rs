//! One step of one handshake at a time, and everything that has bytes to move between two of them.
//!
//! A step's arithmetic keeps its worker for a quarter of a millisecond. A thousand connections that begin at once
//! would otherwise keep it for a quarter of a second, with every established connection waiting behind them.

use std::rc::Rc;

use tokio::{sync::Semaphore, task::yield_now};

thread_local! {
    static TURN: Rc<Semaphore> = Rc::new(Semaphore::new(1));
}

/// Waits for this thread's turn, does `step`, and passes the turn on only after the runtime has looked at every
/// socket and those that were ready have had theirs.
pub(super) async fn taken<T>(step: impl FnOnce() -> T) -> T {
    let turn = TURN.with(Rc::clone);
    // Never closed: without a permit there is nothing to wait for.
    let held = turn.acquire().await;
    let done = step();
    yield_now().await;
    drop(held);
    done
}
