//! What threads share things by, in one place: the simulation (`simulation/`) puts shuttle's there, which tries the orders that
//! threads may run in.

pub(crate) use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic, mpsc},
    thread,
};

use tokio::sync::mpsc::Receiver;

/// Waits on this thread for the next one; `None` once the last sender is gone.
pub(crate) fn next<T>(receiver: &mut Receiver<T>) -> Option<T> {
    receiver.blocking_recv()
}
