//! While the API server gives no answer, callers are told so at once instead of each waiting for itself.
//!
//! After a failure everybody is refused for a moment, then one attempt goes through; each that fails
//! doubles the moment. A single failure costs others a tenth of a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::attest::AttestError;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Proxies that wait for their first certificate ask again within seconds; this is no longer than that.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is known of an outage.
pub(super) struct Outage {
    state: Mutex<State>,
}

struct State {
    fault: Option<AttestError>,
    pause: Duration,
    until: Option<Instant>,
    /// Which attempt is the newest: only its failure is news.
    attempt: u64,
    /// When there was an answer last.
    answered: Option<Instant>,
}

/// An attempt that was let through.
#[derive(Clone, Copy)]
pub(super) struct Attempt(u64);

impl Outage {
    /// Nothing was asked yet, so nobody knows whether there would be an answer.
    pub(super) fn unproved() -> Self {
        let fault = Some(AttestError::ApiServerAway("not asked yet".to_owned()));
        Self {
            state: Mutex::new(State {
                fault,
                pause: Duration::ZERO,
                until: None,
                attempt: 0,
                answered: None,
            }),
        }
    }

    /// Whether somebody may ask now.
    pub(super) fn admit(&self, now: Instant) -> Result<Attempt, AttestError> {
        let mut state = self.state();
        match (&state.fault, state.until) {
            (Some(fault), Some(until)) if now < until => return Err(fault.clone()),
            // The others wait for what this one learns.
            (Some(_), Some(_)) => state.until = Some(now + state.pause),
            (None, _) | (_, None) => {}
        }
        Ok(Attempt(state.attempt))
    }

    /// An attempt outside the queue.
    pub(super) fn probe(&self) -> Attempt {
        Attempt(self.state().attempt)
    }

    /// Notes what came of an attempt.
    pub(super) fn learn<T>(&self, attempt: Attempt, result: &Result<T, AttestError>, now: Instant) {
        let mut state = self.state();
        match result {
            Err(error) if error.is_outage() => {
                if attempt.0 == state.attempt {
                    state.attempt += 1;
                    state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                    state.until = Some(now + state.pause);
                }
                if state.fault.as_ref() != Some(error) {
                    tracing::error!(error = error.to_string(), "tokens cannot be judged");
                }
                state.fault = Some(error.clone());
            }
            // Neither an answer nor a failure of the server.
            Err(AttestError::Unreviewed(_)) => {}
            Ok(_) | Err(_) => {
                if state.fault.take().is_some() {
                    tracing::info!("tokens can be judged");
                }
                (state.pause, state.until, state.answered) = (Duration::ZERO, None, Some(now));
            }
        }
    }

    /// Whether there has been no answer for `age`, or none at all since a failure.
    pub(super) fn is_unsure(&self, now: Instant, age: Duration) -> bool {
        let state = self.state();
        let recent = state.answered.is_some_and(|at| now.saturating_duration_since(at) < age);
        state.fault.is_some() || !recent
    }

    /// Why tokens cannot be judged at present.
    pub(super) fn fault(&self) -> Option<String> {
        self.state().fault.as_ref().map(ToString::to_string)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Result<(), AttestError> {
        Err(AttestError::ApiServerAway("refused".to_owned()))
    }

    #[test]
    fn after_a_failure_one_attempt_at_a_time_goes_through_ever_more_rarely() {
        let (outage, start) = (Outage::unproved(), Instant::now());
        let first = outage.admit(start).ok().unwrap();
        let second = outage.admit(start).ok().unwrap();
        outage.learn(first, &away(), start);
        outage.learn(second, &away(), start);
        assert_eq!(outage.admit(start + FIRST_PAUSE / 2).err(), away().err(), "one pause for both");
        let mut now = start + FIRST_PAUSE;
        for pause in [200, 400, 800, 1600, 2000, 2000] {
            let attempt = outage.admit(now).ok().unwrap();
            assert!(outage.admit(now).is_err(), "the others wait for what the first learns");
            outage.learn(attempt, &away(), now);
            let pause = Duration::from_millis(pause);
            assert!(outage.admit(now + pause - Duration::from_millis(1)).is_err());
            now += pause;
        }
    }

    #[test]
    fn any_word_on_a_token_ends_the_outage() {
        let (outage, now) = (Outage::unproved(), Instant::now());
        assert!(outage.fault().unwrap().contains("not asked yet"));
        outage.learn(outage.probe(), &away(), now);
        assert!(outage.admit(now).is_err());
        outage.learn::<()>(outage.probe(), &Err(AttestError::NotBound), now);
        assert_eq!(outage.fault(), None);
        assert!(outage.admit(now).is_ok());
        let age = Duration::from_secs(10);
        assert!(!outage.is_unsure(now + age / 2, age));
        assert!(outage.is_unsure(now + age, age), "an old answer is none");
    }
}
