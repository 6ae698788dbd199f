//! A storm of faults is told by a few of its lines and by a count of the others.
//!
//! What is said ten times a second is read; what is said a thousand times hides everything else, fills the node's disk and costs
//! more than the fault. So at most [`LINES_PER_SECOND`] are written. Most of them go to whoever comes first; a few are kept
//! for kinds that have had none, so that a flood of one kind does not drown a rare other; and one is the sum of what was left
//! out, by kind. Nothing is lost in silence: every line is written or counted in such a sum, within two seconds.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Lines that are written in any second at most, the sum among them.
pub const LINES_PER_SECOND: usize = FIRST_COME + NEWCOMERS + 1;

/// Lines for whoever comes first.
const FIRST_COME: usize = 6;

/// Lines beside these for kinds that have had none in the same second.
const NEWCOMERS: usize = 3;

/// What is taken for a second: a little more, so that a line that was held up on its way does not fall among the next.
const SECOND: Duration = Duration::from_millis(1_100);

/// Kinds that a sum tells apart: as many as fit a line. Kinds may be made of what somebody sent, and are not counted for ever.
const KINDS: usize = 24;

/// Which lines are written; see the module. Pure: whoever asks says what time it is.
#[derive(Debug, Default)]
pub struct Pace {
    written: Vec<(Instant, String)>,
    left_out: LeftOut,
    since: Option<Instant>,
    opening: usize,
}

/// What was left out within a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many lines of each kind.
    pub kinds: Vec<(String, u64)>,
    /// How many of further kinds.
    pub others: u64,
}

impl LeftOut {
    /// How many lines it were.
    pub fn lines(&self) -> u64 {
        self.kinds.iter().map(|(_, lines)| lines).sum::<u64>() + self.others
    }

    fn add(&mut self, kind: &str) {
        if let Some((_, lines)) = self.kinds.iter_mut().find(|(known, _)| known == kind) {
            *lines += 1;
        } else if self.kinds.len() < KINDS {
            self.kinds.push((kind.to_owned(), 1));
        } else {
            self.others += 1;
        }
    }
}

/// As `policy_denied=97, 3 of other kinds`.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (kind, lines) in &self.kinds {
            write!(f, "{separator}{kind}={lines}")?;
            separator = ", ";
        }
        if self.others > 0 {
            write!(f, "{separator}{} of other kinds", self.others)?;
        }
        Ok(())
    }
}

impl Pace {
    /// One that writes so many lines as they come, before it begins to count.
    pub fn with_opening(lines: usize) -> Self {
        Self { opening: lines, ..Self::default() }
    }

    /// Whether a line of this kind is written now; counted where it is not.
    pub fn admits(&mut self, kind: &str, now: Instant) -> bool {
        if self.opening > 0 {
            self.opening -= 1;
            return true;
        }
        self.written.retain(|(at, _)| now.saturating_duration_since(*at) < SECOND);
        let is_new = || self.written.iter().all(|(_, other)| other != kind);
        let admitted = match self.written.len() {
            lines if lines < FIRST_COME => true,
            lines if lines < FIRST_COME + NEWCOMERS => is_new(),
            _ => false,
        };
        if admitted {
            self.written.push((now, kind.to_owned()));
        } else {
            self.since.get_or_insert(now);
            self.left_out.add(kind);
        }
        admitted
    }

    /// The sum, once a second has passed since the first line that was left out.
    pub fn due(&mut self, now: Instant) -> Option<LeftOut> {
        self.since.filter(|since| now.saturating_duration_since(*since) >= SECOND)?;
        self.rest()
    }

    /// The sum of what was left out and not told, if there is any.
    pub fn rest(&mut self) -> Option<LeftOut> {
        self.since.take()?;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Writes a sum.
type Tell = Box<dyn Fn(&LeftOut) + Send + Sync>;

/// A [`Pace`] that many threads share and that tells its sums by itself. It has a thread of its own only while there is
/// something left to tell.
pub struct Paced {
    pace: Mutex<Pace>,
    left_out: AtomicU64,
    tell: Tell,
}

impl Paced {
    /// One whose sums are written by `tell`, which must not ask it again.
    pub fn new(pace: Pace, tell: Tell) -> Arc<Self> {
        Arc::new(Self { pace: Mutex::new(pace), left_out: AtomicU64::new(0), tell })
    }

    /// Whether a line of this kind is written now.
    pub fn admits(self: &Arc<Self>, kind: &str) -> bool {
        let now = Instant::now();
        let (admitted, due, first) = {
            let mut pace = self.pace();
            // Where no thread could be started, the next line is the time to tell.
            let due = pace.due(now);
            let owed = pace.since.is_some();
            let admitted = pace.admits(kind, now);
            (admitted, due, !owed && pace.since.is_some())
        };
        if !admitted {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(due) = due {
            (self.tell)(&due);
        }
        if first {
            self.tell_in_a_second();
        }
        admitted
    }

    /// Lines that were left out so far.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Tells what is left to tell. Call it before the process ends.
    pub fn tell_rest(&self) {
        let rest = self.pace().rest();
        if let Some(rest) = rest {
            (self.tell)(&rest);
        }
    }

    fn tell_in_a_second(self: &Arc<Self>) {
        let paced = Arc::clone(self);
        let told_later = thread::Builder::new().name("left-out".to_owned()).spawn(move || {
            thread::sleep(SECOND);
            let due = paced.pace().due(Instant::now());
            if let Some(due) = due {
                (paced.tell)(&due);
            }
        });
        // Out of threads: see `admits`.
        drop(told_later);
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Counts only: after a panic in another holder they are still the best known.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("left_out", &self.left_out).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Asks at these milliseconds and answers how many were written in the busiest second of all.
    fn busiest(asked: &[(u64, u8)]) -> (usize, u64) {
        let begin = Instant::now();
        let (mut pace, mut written, mut told) = (Pace::default(), Vec::new(), 0);
        for (at, kind) in asked {
            let now = begin + Duration::from_millis(*at);
            if let Some(sum) = pace.due(now) {
                told += sum.lines();
                written.push(*at);
            }
            if pace.admits(&kind.to_string(), now) {
                written.push(*at);
            }
        }
        told += pace.rest().map_or(0, |rest| rest.lines());
        let within = |from: u64| written.iter().filter(|at| (from..from + 1000).contains(*at)).count();
        (written.iter().map(|at| within(*at)).max().unwrap_or(0), told)
    }

    #[test]
    fn no_second_has_more_than_ten_lines_whatever_comes_and_nothing_is_lost() {
        let steady: Vec<(u64, u8)> = (0..5_000).map(|at| (at, 0)).collect();
        let kinds: Vec<(u64, u8)> = (0..5_000).map(|at| (at, u8::try_from(at % 200).unwrap())).collect();
        let bursts: Vec<(u64, u8)> = (0..5_000).map(|at| (at / 500 * 999, 7)).collect();
        for asked in [steady, kinds, bursts] {
            let (busiest, told) = busiest(&asked);
            assert!(busiest <= LINES_PER_SECOND && busiest > 5, "{busiest}");
            assert!(told > 4_900 && told < 5_000, "{told}");
        }
    }

    #[test]
    fn what_comes_slowly_is_all_written() {
        let slow: Vec<(u64, u8)> = (0..60).map(|index| (index * 200, 0)).collect();
        assert_eq!(busiest(&slow), (5, 0));
    }

    #[test]
    fn a_flood_of_one_kind_leaves_room_for_a_rare_one() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let flood = (0..1_000).filter(|_| pace.admits("flood", now)).count();
        assert_eq!(flood, FIRST_COME);
        assert!(pace.admits("rare", now));
        assert!(!pace.admits("rare", now), "a kind that has had its line waits as the others do");
    }

    #[test]
    fn the_sum_names_each_kind_and_bounds_how_many() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for kind in 0..100 {
            pace.admits(&i32::to_string(&kind), now);
        }
        assert_eq!(pace.due(now), None, "it waits for its second");
        let sum = pace.due(now + SECOND).unwrap();
        assert_eq!((sum.kinds.len(), sum.lines()), (KINDS, 100 - 9));
        assert!(sum.to_string().starts_with("9=1, 10=1, "), "{sum}");
        assert!(sum.to_string().ends_with(", 67 of other kinds"), "{sum}");
        assert_eq!(pace.due(now + SECOND * 2), None);
    }

    #[test]
    fn what_was_left_out_is_told_without_another_line() {
        let (told, tells) = channel();
        let paced = Paced::new(Pace::default(), Box::new(move |sum| told.send(sum.lines()).unwrap()));
        let written = (0..500).filter(|_| paced.admits("a")).count();
        let sum = tells.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(written as u64 + paced.left_out(), 500);
        // A machine that stops in between begins another second.
        assert!(sum <= paced.left_out() && sum > 0, "{sum}");
    }
}
