//! The live connections of one worker, so that a change can find those it ends.
//!
//! Everything here belongs to one thread. A connection enters when its bytes may flow and leaves when
//! its task ends; in between it can be told to end for a reason, or to look at its socket.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use ringmail_identity::{RootId, TrustBundle};
use ringmail_policy::{Inbound, Mode, Request};

use crate::{
    reason::Reason,
    record::{Direction, Live, Protection},
    snapshot::Snapshots,
    tls::CredentialsRx,
};

/// Connections that one look tells to rest: a few microseconds each, so that bytes in flight wait two milliseconds
/// at most when thousands become idle at once.
const MAX_RESTS: usize = 1024;

/// What a connection is told from outside its own story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// End now, for this reason.
    End(Reason),
    /// Look whether the socket swallows data.
    Probe,
    /// Give back what can be made again: nothing was said since the last look.
    Rest,
}

/// One live connection.
pub struct Entry {
    live: Arc<Live>,
    root: Option<RootId>,
    end: Cell<Option<Reason>>,
    probe: Cell<bool>,
    rest: Cell<bool>,
    /// Bytes have moved since it was last told to rest.
    active: Cell<bool>,
    /// Set by the connection while sent data is unacknowledged, so that it is probed again.
    in_flight: Cell<bool>,
    seen_bytes: Cell<u64>,
    waiting: Cell<Option<Waker>>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("live", &self.live).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Entry {
    /// Waits until the connection is told something. Cancel safe.
    pub async fn told(&self) -> Told {
        poll_fn(|cx| self.poll_told(cx)).await
    }

    /// Asked with every byte that is copied, so it locks nothing and registers a waiter only once.
    fn poll_told(&self, cx: &Context<'_>) -> Poll<Told> {
        if let Some(reason) = self.end.get() {
            return Poll::Ready(Told::End(reason));
        }
        if self.probe.take() {
            return Poll::Ready(Told::Probe);
        }
        if self.rest.take() {
            return Poll::Ready(Told::Rest);
        }
        let waiting = self.waiting.take().filter(|waker| waker.will_wake(cx.waker()));
        self.waiting.set(Some(waiting.unwrap_or_else(|| cx.waker().clone())));
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// Waits until the connection is told to end. Cancel safe.
    pub async fn told_to_end(&self) -> Reason {
        loop {
            if let Told::End(reason) = self.told().await {
                return reason;
            }
        }
    }

    /// Whether sent data is unacknowledged: the connection says so after it looked.
    pub fn set_in_flight(&self, in_flight: bool) {
        self.in_flight.set(in_flight);
    }

    fn tell_end(&self, reason: Reason) {
        if self.end.get().is_none() {
            self.end.set(Some(reason));
            self.wake();
        }
    }

    fn apply_policy(&self, inbound: &Inbound) {
        if self.live.direction == Direction::Inbound
            && let Some(reason) = self.no_longer_admitted(inbound)
        {
            self.tell_end(reason);
        }
    }

    fn apply_bundle(&self, bundle: &TrustBundle) {
        if self.root.as_ref().is_some_and(|root| !bundle.contains(root)) {
            self.tell_end(Reason::RootRemoved);
        }
    }

    fn no_longer_admitted(&self, inbound: &Inbound) -> Option<Reason> {
        let request = self.request()?;
        let plaintext = match self.live.protection() {
            Protection::MutualTls => false,
            // Dialled in silence: an application that speaks first would speak to somebody unknown.
            Protection::ModeDisable | Protection::Permissive | Protection::Undecided => true,
            Protection::Outside(_) => return None,
        };
        if plaintext && inbound.mode(request.destination.port()).mode == Mode::Strict {
            return Some(Reason::ModeChanged);
        }
        (!inbound.authorize(&request).allowed).then_some(Reason::AuthorizationChanged)
    }

    fn request(&self) -> Option<Request<'_>> {
        let destination: SocketAddr = *self.live.destination.get()?;
        Some(Request { identity: self.live.peer_identity.get(), source: self.live.source.ip(), destination })
    }
}

/// The connections of one worker; see the module.
#[derive(Debug, Default)]
pub struct Registry {
    entries: RefCell<HashMap<u64, Rc<Entry>>>,
}

/// A connection's stay in the registry.
#[derive(Debug)]
pub struct Stay {
    registry: Rc<Registry>,
    entry: Rc<Entry>,
}

impl Stay {
    /// The entry.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Judges the connection by what holds now: it was decided a moment ago, under what held then.
    pub fn judge_again(&self, snapshots: &Snapshots, credentials: &CredentialsRx) {
        if let Some(snapshot) = snapshots.borrow().as_deref() {
            self.entry.apply_policy(&snapshot.inbound);
        }
        if let Some(credentials) = credentials.borrow().as_deref() {
            self.entry.apply_bundle(&credentials.bundle);
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.registry.entries.borrow_mut().remove(&self.entry.live.id);
    }
}

impl Registry {
    /// Enters a connection. `root` vouched for its peer, where it has one.
    pub fn enter(self: &Rc<Self>, live: &Arc<Live>, root: Option<RootId>) -> Stay {
        let entry = Rc::new(Entry {
            live: Arc::clone(live),
            root,
            end: Cell::new(None),
            probe: Cell::new(false),
            rest: Cell::new(false),
            // A handshake's keys are held.
            active: Cell::new(true),
            in_flight: Cell::new(false),
            seen_bytes: Cell::new(0),
            waiting: Cell::new(None),
        });
        self.entries.borrow_mut().insert(live.id, Rc::clone(&entry));
        Stay { registry: Rc::clone(self), entry }
    }

    /// Ends inbound connections that policy no longer admits, and no others.
    pub fn apply_policy(&self, inbound: &Inbound) {
        self.each(|entry| entry.apply_policy(inbound));
    }

    /// Ends connections whose peer was vouched for by a root that is no longer trusted.
    pub fn apply_bundle(&self, bundle: &TrustBundle) {
        self.each(|entry| entry.apply_bundle(bundle));
    }

    /// Ends every inbound connection.
    pub fn end_inbound(&self, reason: Reason) {
        self.each(|entry| {
            if entry.live.direction == Direction::Inbound {
                entry.tell_end(reason);
            }
        });
    }

    /// Ends every connection.
    pub fn end_all(&self, reason: Reason) {
        self.each(|entry| entry.tell_end(reason));
    }

    /// Asks connections that carried bytes since the last call, or wait for an acknowledgement, to look
    /// at their sockets; those that have just become idle are told to rest. An idle one is not woken.
    pub fn probe(&self) {
        let mut rests = MAX_RESTS;
        self.each(|entry| {
            let bytes = entry.live.bytes.from_downstream() + entry.live.bytes.to_downstream();
            let moved = entry.seen_bytes.replace(bytes) != bytes;
            if moved || entry.in_flight.get() {
                entry.active.set(true);
                entry.probe.set(true);
                entry.wake();
            } else if entry.active.get() && rests > 0 {
                rests -= 1;
                entry.active.set(false);
                entry.rest.set(true);
                entry.wake();
            }
        });
    }

    fn each(&self, mut visit: impl FnMut(&Entry)) {
        self.entries.borrow().values().for_each(|entry| visit(entry));
    }
}
