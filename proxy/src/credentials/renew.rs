//! The renewal loop: asks a source before the certificate ends, and keeps the old one until a better
//! one is verified.
//!
//! The loop wakes at short intervals and asks the clocks, instead of sleeping until a time that a step
//! of the wall clock would move: a renewal is due once either the wall clock or the steady one says so,
//! a retry by the steady one alone, so that no step makes a proxy ask in a storm. The file of the CA's
//! roots is looked at in the same rhythm, also while an answer is awaited.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::{
    kept::Kept,
    publisher::{PublishError, Publisher, system_time},
    schedule::{removal_check_after, renewal_after, retry_after},
    source::{IssueError, Issued, Source},
    status::{RefreshError, RefreshErrorReason},
};
use crate::{outside::random, watched_file::WatchedFiles};

/// How often the clocks and the watched file are looked at. A change needs two looks to be taken as
/// complete and must be applied within a second.
pub(crate) const TICK: Duration = Duration::from_millis(250);

type Attempt = Pin<Box<dyn Future<Output = Result<Issued, IssueError>> + Send>>;

/// When the source is asked next.
struct Due {
    steady: Instant,
    wall: Option<SystemTime>,
}

/// The loop's state; see the module.
pub(crate) struct Renewal<S> {
    source: Arc<S>,
    publisher: Publisher,
    roots: WatchedFiles,
    due: Due,
    roots_refused: bool,
    removal_checks: u32,
    failures: u32,
    expiry_told: u64,
}

impl<S: Source> Renewal<S> {
    /// A loop that asks at once. `roots` is the one file whose content is trusted beside what the source
    /// names.
    pub(crate) fn new(source: S, publisher: Publisher, roots: WatchedFiles) -> Self {
        let due = Due { steady: Instant::now(), wall: None };
        Self {
            source: Arc::new(source),
            publisher,
            roots,
            due,
            roots_refused: false,
            removal_checks: 0,
            failures: 0,
            expiry_told: 0,
        }
    }

    /// Goes on with what an earlier process held; where it does not hold any more, the loop asks at once.
    pub(crate) fn restore(mut self, kept: &Kept) -> Self {
        match self.publisher.restore(kept) {
            Ok(()) => {
                let next = self.schedule(kept.received_at);
                info!(next_renewal_in = ?next, "credentials kept across a restart are in use");
            }
            Err(error) => {
                warn!(%error, "credentials kept across a restart are not usable: asking for new ones")
            }
        }
        self
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut attempt: Option<Attempt> = None;
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.look_at_roots();
                    self.tell_expiry();
                    if attempt.is_none() && self.is_due() {
                        let source = Arc::clone(&self.source);
                        attempt = Some(Box::pin(async move { source.issue().await }));
                    }
                }
                result = async {
                    match attempt.as_mut() {
                        Some(attempt) => attempt.await,
                        None => std::future::pending().await,
                    }
                } => {
                    attempt = None;
                    self.judge(result);
                }
            }
        }
    }

    fn is_due(&self) -> bool {
        let now = self.publisher.now();
        Instant::now() >= self.due.steady || self.due.wall.is_some_and(|wall| now >= wall)
    }

    fn judge(&mut self, result: Result<Issued, IssueError>) {
        let refused = match result.map(|issued| self.publisher.accept(&issued)) {
            Ok(Ok(())) => return self.renewed(),
            Ok(Err(error)) => (error.reason(), error.to_string()),
            Err(error) => (error.reason(), error.to_string()),
        };
        self.failed(refused.0, refused.1);
    }

    fn renewed(&mut self) {
        self.failures = 0;
        let now = self.publisher.now();
        let mut next = self.schedule(now);
        if self.publisher.lingers() {
            next = next.min(self.hasten());
        }
        if self.roots_refused {
            // Beside what the source names now, they may be usable.
            self.roots.deliver_again();
        }
        self.publisher.status().succeeded(now, now.checked_add(next));
        if let Some(credentials) = self.publisher.published() {
            info!(
                identity = %credentials.svid.id(),
                serial = credentials.svid.serial(),
                generation = credentials.generation,
                valid_for = ?self.left(now),
                next_renewal_in = ?next,
                "credentials renewed"
            );
        }
    }

    fn failed(&mut self, reason: RefreshErrorReason, text: String) {
        self.failures = self.failures.saturating_add(1);
        let now = self.publisher.now();
        let left = self.left(now);
        let pause = retry_after(self.failures, left, random());
        self.due = Due { steady: Instant::now() + pause, wall: None };
        warn!(
            reason = reason.as_str(),
            error = text,
            failures = self.failures,
            old_valid_for = ?left,
            next_try_in = ?pause,
            advice = reason.doc(),
            "credentials not renewed"
        );
        let error = RefreshError { reason, text, at: now };
        self.publisher.status().failed(error, now.checked_add(pause));
    }

    /// Plans the renewal of what is published, and answers how far off it is.
    ///
    /// Half of the life is counted from the moment the certificate came, because its NotBefore is dated
    /// back: for a short life, half of it as written may be over before it begins.
    fn schedule(&mut self, received_at: SystemTime) -> Duration {
        let now = self.publisher.now();
        let whole = self.not_after().duration_since(received_at).unwrap_or_default();
        let spent = now.duration_since(received_at).unwrap_or_default();
        let after = renewal_after(whole, random()).saturating_sub(spent);
        self.due = Due { steady: Instant::now() + after, wall: now.checked_add(after) };
        after
    }

    fn left(&self, now: SystemTime) -> Duration {
        self.not_after().duration_since(now).unwrap_or_default()
    }

    fn not_after(&self) -> SystemTime {
        self.publisher
            .published()
            .map_or(SystemTime::UNIX_EPOCH, |credentials| system_time(credentials.svid.not_after()))
    }

    fn look_at_roots(&mut self) {
        let Some(looked) = self.roots.poll() else { return };
        let applied = match looked {
            Ok(contents) => {
                let roots = contents.first().map_or(&[][..], |roots| roots.as_slice());
                self.trust(roots).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        self.roots_refused = applied.is_err();
        match applied {
            Ok(()) => {
                self.publisher.status().repaired(RefreshErrorReason::Roots);
                self.removal_checks = 0;
                if self.publisher.lingers() {
                    self.hasten();
                }
            }
            Err(text) => {
                warn!(error = text, "roots of the ca not applied: the ones held stay in use");
                let at = self.publisher.now();
                let next = self.publisher.status().next_attempt();
                let error = RefreshError { reason: RefreshErrorReason::Roots, text, at };
                self.publisher.status().failed(error, next);
            }
        }
    }

    fn trust(&mut self, roots: &[u8]) -> Result<(), PublishError> {
        let before = self.publisher.published().map(|credentials| credentials.generation);
        self.publisher.also_trust(roots)?;
        if let Some(now) = self.publisher.published()
            && Some(now.generation) != before
        {
            let roots: Vec<_> = now.bundle.roots().iter().map(|root| root.subject.as_str()).collect();
            info!(generation = now.generation, ?roots, "trust bundle changed");
        }
        Ok(())
    }

    /// Asks the source again whether it still names a root that was removed, unless it is asked sooner
    /// anyway. Answers how far off that is.
    fn hasten(&mut self) -> Duration {
        let pause = removal_check_after(self.removal_checks, random());
        self.removal_checks = self.removal_checks.saturating_add(1);
        if let Some(at) = Instant::now().checked_add(pause) {
            self.due.steady = self.due.steady.min(at);
        }
        pause
    }

    fn tell_expiry(&mut self) {
        let Some(credentials) = self.publisher.published() else { return };
        let ended = system_time(credentials.svid.not_after()) <= self.publisher.now();
        if ended && self.expiry_told != credentials.generation {
            self.expiry_told = credentials.generation;
            warn!(
                serial = credentials.svid.serial(),
                "own certificate has expired: peers refuse new connections until it is renewed"
            );
        }
    }
}

#[cfg(test)]
mod tests;
