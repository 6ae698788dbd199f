//! Both directions of a connection at once: bytes, back-pressure, half-close, and who left how.
//!
//! - `end`: what a copy copies between, and what a failure of it means.
//! - `flow`: one direction.
//! - `pace`: how much it reads at once.
//! - `socket`: reads and writes of one leg.
//! - `splice`: bulk between two legs without TLS, which passes through a pipe instead of a slab.
//!
//! An end that failed while it was written to is still read to its own end, because the far sidecar's
//! alert, or the application's last bytes, may be waiting there.

mod end;
mod flow;
mod pace;
pub(crate) mod socket;
mod splice;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

pub use end::{End, Fault};
use flow::{Flow, FlowEnd};
pub(crate) use splice::PIPE_DESCRIPTORS;

use crate::record::ByteCounts;

/// How long an end that can no longer be written to is read for its last words.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(2);

/// How long the bytes that were read before a failure may take to be delivered. A reader that does not
/// take them for longer learns of the failure without them.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(5);

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions ended in order.
    Complete,
    /// The downstream end failed.
    Downstream(Fault),
    /// Half closed, and silent for too long.
    HalfCloseTimeout,
    /// The upstream end failed.
    Upstream(Fault),
}

/// A copy in progress. Its state survives a cancelled [`Duplex::run`], so a caller may look at other
/// things in between and go on.
#[derive(Debug)]
pub struct Duplex {
    onward: Flow,
    back: Flow,
    half_close_timeout: Duration,
    deadline: Option<Deadline>,
}

#[derive(Debug)]
struct Deadline {
    /// Boxed: most connections never have one.
    sleep: Pin<Box<Sleep>>,
    then: Expiry,
    /// Bytes of both directions when it was set.
    moved: u64,
}

/// What an expired deadline means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    HalfClosed,
    Known(Outcome),
}

impl Duplex {
    /// Nothing copied yet. `first` was already read from downstream; a half-closed connection may be silent for
    /// `half_close_timeout`.
    pub fn new(half_close_timeout: Duration, first: &[u8]) -> Self {
        Self { onward: Flow::new(first), back: Flow::new(&[]), half_close_timeout, deadline: None }
    }

    /// Copies until both directions have ended or one end failed. Neither end is closed here: what
    /// their applications shall see is the story's to say. Cancel safe.
    pub async fn run(&mut self, downstream: &mut End, upstream: &mut End, counts: &ByteCounts) -> Outcome {
        poll_fn(|cx| self.poll(cx, downstream, upstream, counts)).await
    }

    /// Whether the downstream end gave a byte.
    pub fn downstream_spoke(&self) -> bool {
        self.onward.has_read()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        downstream: &mut End,
        upstream: &mut End,
        counts: &ByteCounts,
    ) -> Poll<Outcome> {
        let _ = self.onward.poll(cx, downstream, upstream, |bytes| counts.add_from_downstream(bytes));
        if matches!(self.onward.finished(), Some(FlowEnd::WriterFailed(_))) {
            self.back.reader_is_lost();
        }
        let _ = self.back.poll(cx, upstream, downstream, |bytes| counts.add_to_downstream(bytes));
        if matches!(self.back.finished(), Some(FlowEnd::WriterFailed(_))) {
            self.onward.reader_is_lost();
        }
        if let Some(outcome) = settled(&self.onward, &self.back, downstream, upstream) {
            return Poll::Ready(outcome);
        }
        let expected = expected(&self.onward, &self.back, downstream, upstream, self.half_close_timeout);
        if let Some((wait, then)) = expected
            && self.deadline.as_ref().is_none_or(|deadline| deadline.then != then)
        {
            self.deadline = Some(Deadline { sleep: Box::pin(sleep(wait)), then, moved: moved(counts) });
        }
        self.poll_deadline(cx, moved(counts))
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<Outcome> {
        loop {
            let Some(deadline) = &mut self.deadline else { return Poll::Pending };
            ready!(deadline.sleep.as_mut().poll(cx));
            match deadline.then {
                Expiry::Known(outcome) => return Poll::Ready(outcome),
                Expiry::HalfClosed if moved > deadline.moved => {
                    deadline.moved = moved;
                    deadline.sleep.as_mut().reset(Instant::now() + self.half_close_timeout);
                }
                Expiry::HalfClosed => return Poll::Ready(Outcome::HalfCloseTimeout),
            }
        }
    }
}

/// Bytes of both directions.
fn moved(counts: &ByteCounts) -> u64 {
    counts.from_downstream() + counts.to_downstream()
}

/// The outcome, once there is nothing left that could change it.
fn settled(onward: &Flow, back: &Flow, downstream: &End, upstream: &End) -> Option<Outcome> {
    use FlowEnd::{Passed, ReaderFailed, WriterFailed};
    match (onward.finished(), back.finished()) {
        (Some(Passed), Some(Passed)) => Some(Outcome::Complete),
        (Some(ReaderFailed(fault)), _) => Some(Outcome::Downstream(fault)),
        (_, Some(ReaderFailed(fault))) => Some(Outcome::Upstream(fault)),
        // Written to in vain, and its own direction has ended: it is gone altogether.
        (Some(WriterFailed(fault)), Some(Passed | WriterFailed(_))) => {
            Some(Outcome::Upstream(told_or_gone(fault, upstream)))
        }
        (Some(Passed), Some(WriterFailed(fault))) => {
            Some(Outcome::Downstream(told_or_gone(fault, downstream)))
        }
        (Some(Passed | WriterFailed(_)) | None, None) | (None, Some(Passed | WriterFailed(_))) => None,
    }
}

/// What is waited for before the copy settles, for how long, and what it means if it does not come.
fn expected(
    onward: &Flow,
    back: &Flow,
    downstream: &End,
    upstream: &End,
    half_close: Duration,
) -> Option<(Duration, Expiry)> {
    let known = |wait, outcome| Some((wait, Expiry::Known(outcome)));
    if let Some(fault) = onward.undelivered_fault() {
        return known(DELIVERY_DEADLINE, Outcome::Downstream(fault));
    }
    if let Some(fault) = back.undelivered_fault() {
        return known(DELIVERY_DEADLINE, Outcome::Upstream(fault));
    }
    match (onward.finished(), back.finished()) {
        (Some(FlowEnd::WriterFailed(fault)), _) => {
            known(last_words(fault), Outcome::Upstream(told_or_gone(fault, upstream)))
        }
        (_, Some(FlowEnd::WriterFailed(fault))) => {
            known(last_words(fault), Outcome::Downstream(told_or_gone(fault, downstream)))
        }
        (Some(FlowEnd::Passed), None) | (None, Some(FlowEnd::Passed)) => {
            Some((half_close, Expiry::HalfClosed))
        }
        (_, _) => None,
    }
}

/// Why an end could not be written to: what the far sidecar said of it, or, where it said nothing, that it is
/// gone.
fn told_or_gone(fault: Fault, end: &End) -> Fault {
    match fault {
        Fault::Cut | Fault::Reset => end.gone(),
        Fault::ApplicationRefused | Fault::Denied | Fault::Invalid | Fault::PeerFailed | Fault::Refused => {
            fault
        }
    }
}

/// How long an end that cannot be written to is read on: one that has said why only has bytes to deliver.
fn last_words(fault: Fault) -> Duration {
    match fault {
        Fault::Cut | Fault::Reset => LAST_WORDS_DEADLINE,
        Fault::ApplicationRefused | Fault::Denied | Fault::Invalid | Fault::PeerFailed | Fault::Refused => {
            DELIVERY_DEADLINE
        }
    }
}
