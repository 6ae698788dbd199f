//! What became of each replaced pod: when its address was written, when the write was accepted, when proxies had it.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// One pod that took another's place.
#[derive(Debug)]
pub(crate) struct Turn {
    /// When the request that gives it its address went to the API server.
    sent: Instant,
    answered: Option<Instant>,
    watched: Option<Instant>,
    /// When each proxy had it for the first time, by the proxy's number.
    arrived: HashMap<usize, Instant>,
}

/// How long it took, of all turns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// From the request to the API server's answer.
    pub(crate) answered: Vec<Duration>,
    /// From the request to a watch of this process.
    pub(crate) watched: Vec<Duration>,
    /// From the request until a proxy had it, for each proxy.
    pub(crate) whole: Vec<Duration>,
    /// The part of it that is the mesh's: from the first sign that the API server has taken the request, its answer or
    /// the word of its watch.
    pub(crate) distributed: Vec<Duration>,
}

/// What this process learns on all of its ways.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    turns: Mutex<HashMap<String, Turn>>,
    open: AtomicUsize,
}

impl Learnt {
    fn turns(&self) -> MutexGuard<'_, HashMap<String, Turn>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request that gives `pod` its address is sent now.
    pub(crate) fn sent(&self, pod: &str, now: Instant) {
        let turn = Turn { sent: now, answered: None, watched: None, arrived: HashMap::new() };
        self.turns().insert(pod.to_owned(), turn);
    }

    /// It is answered.
    pub(crate) fn answered(&self, pod: &str, now: Instant) {
        if let Some(turn) = self.turns().get_mut(pod) {
            turn.answered = Some(now);
        }
    }

    /// A watch tells of `pod` with its address. What is told of it later, such as its end, is no news.
    pub(crate) fn watched(&self, pod: &str, now: Instant) {
        if let Some(turn) = self.turns().get_mut(pod) {
            turn.watched.get_or_insert(now);
        }
    }

    /// The proxy of this number is told of `pod`.
    pub(crate) fn arrived(&self, pod: &str, proxy: usize, now: Instant) {
        if let Some(turn) = self.turns().get_mut(pod) {
            turn.arrived.entry(proxy).or_insert(now);
        }
    }

    /// Of all turns until now, which are forgotten.
    pub(crate) fn take(&self) -> Times {
        let turns = mem::take(&mut *self.turns());
        let mut times = Times::default();
        for turn in turns.values() {
            let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
            times.answered.extend(turn.answered.map(|at| since(turn.sent, at)));
            times.watched.extend(turn.watched.map(|at| since(turn.sent, at)));
            times.whole.extend(turn.arrived.values().map(|at| since(turn.sent, *at)));
            let accepted = [turn.answered, turn.watched].into_iter().flatten().min().unwrap_or(turn.sent);
            times.distributed.extend(turn.arrived.values().map(|at| since(accepted, *at)));
        }
        times
    }

    /// A stream is open.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended.
    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Streams that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distribution_begins_at_the_first_sign_that_the_write_was_taken() {
        let begin = Instant::now();
        let at = |millis: u64| begin + Duration::from_millis(millis);
        let millis = |times: &[Duration]| times.iter().map(Duration::as_millis).collect::<Vec<_>>();
        // When it was answered and watched, and what is left for the mesh of an arrival after 500 ms.
        for (answered, watched, expected) in [
            (Some(200), Some(300), 300),
            (Some(300), Some(200), 300),
            (None, Some(400), 100),
            (Some(700), Some(600), 0),
            (None, None, 500),
        ] {
            let learnt = Learnt::default();
            learnt.sent("pod", at(0));
            answered.iter().for_each(|millis| learnt.answered("pod", at(*millis)));
            watched.iter().for_each(|millis| learnt.watched("pod", at(*millis)));
            learnt.arrived("pod", 7, at(500));
            let times = learnt.take();
            assert_eq!((millis(&times.whole), millis(&times.distributed)), (vec![500], vec![expected]));
        }
    }

    #[test]
    fn only_the_first_word_of_a_pod_counts_and_none_of_a_pod_that_is_not_awaited() {
        let (begin, learnt) = (Instant::now(), Learnt::default());
        let at = |millis: u64| begin + Duration::from_millis(millis);
        learnt.sent("pod", at(0));
        for millis in [10, 90] {
            learnt.watched("pod", at(millis));
            learnt.arrived("pod", 1, at(millis));
            learnt.arrived("pod", 2, at(millis));
            learnt.arrived("another", 1, at(millis));
        }
        let times = learnt.take();
        assert_eq!(times.watched, [Duration::from_millis(10)]);
        assert_eq!(times.whole, [Duration::from_millis(10); 2]);
        learnt.arrived("pod", 3, at(200));
        assert!(learnt.take().whole.is_empty());
    }
}
