//! The proxy's own files over other primitives: threads that run in any order, a network that fails, and a time that flies.
//!
//! A file of the proxy takes what it shares by from `sync`, and its network and its time from `outside`. Here both are others, and
//! the same files are compiled again on top of them: [`orders`] tries what threads share in many orders (shuttle), [`renewal`]
//! lives through outages of the CA (turmoil). Shuttle's memory is sequentially consistent: it shows nothing of what needs an ordering of
//! the processor's. No count here does.

// The files have tests of their own, which are the proxy's: a build of all targets makes one of this library too.
#![cfg(not(test))]
#![expect(clippy::unwrap_used, reason = "whatever is here is a test's")]

pub mod orders;
pub mod renewal;

#[rustfmt::skip] // Here it would look for the tests in another place.
#[path = "../../proxy/src/ledger.rs"]
pub mod ledger;
#[path = "../../proxy/src/limits.rs"]
pub mod limits;
#[path = "../../proxy/src/record.rs"]
pub mod record;
#[path = "../../proxy/src/registry.rs"]
pub mod registry;

#[expect(dead_code, reason = "the proxy uses all of it")]
#[rustfmt::skip] // As above.
#[path = "../../proxy/src/control_plane.rs"]
mod control_plane;
#[path = "../../proxy/src/credentials/mod.rs"]
pub mod credentials;
#[expect(dead_code, reason = "the proxy uses all of it")]
#[path = "../../proxy/src/worker/door.rs"]
mod door;
#[path = "../../proxy/src/tls/known_chains.rs"]
mod known_chains;
#[path = "../../proxy/src/line_queue.rs"]
mod line_queue;
#[path = "../../proxy/src/watched_file.rs"]
mod watched_file;

use ringmail_proxy::{config, reason, snapshot, tls};

/// What threads share things by: shuttle's.
mod sync {
    pub(crate) use shuttle::{
        sync::{Mutex, MutexGuard, PoisonError, atomic, mpsc},
        thread,
    };
    use tokio::sync::mpsc::Receiver;

    pub(crate) fn next<T>(receiver: &mut Receiver<T>) -> Option<T> {
        shuttle::future::block_on(receiver.recv())
    }
}

/// The network and the time: turmoil's.
mod outside {
    pub(crate) use crate::renewal::world::{lookup_host, now, random};
    pub(crate) use turmoil::net::TcpStream;
}

/// Nobody reads the lines of a simulated connection.
pub mod access_log {
    use crate::{reason::Reason, record::Live};

    /// Takes lines and drops them.
    #[derive(Clone, Debug, Default)]
    pub struct AccessLog;

    impl AccessLog {
        pub(crate) fn write(&self, _: &Live, _: Reason, _: Option<&str>) {}
    }
}

/// Connections come as they are made up in [`orders`], without a socket.
mod listen {
    pub(crate) use crate::orders::door::{Accepted, accept_all};
}

/// A thread that cannot be started has no reason here.
mod cgroup {
    pub(crate) fn explain(error: std::io::Error) -> std::io::Error {
        error
    }
}
