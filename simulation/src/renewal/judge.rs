//! What must hold of a life.

use std::time::Duration;

use super::{Attempt, Diary, Life};

/// From the moment that the CA can be reached to a certificate, for a proxy without a valid one: an attempt that is under way may
/// hang for its 10 s, the pause after it is at most 3.6 s, and the next attempt has an address that does not answer before it (2.5
/// s) and some twenty segments of up to 200 ms.
const BACK_WITHIN: Duration = Duration::from_secs(21);

/// Attempts in any minute. Without a valid certificate one begins each 2.4 s at the least, after some that follow sooner; while one
/// is valid, each waits for a tenth of what is left.
const MAX_A_MINUTE: usize = 60;

/// How far beyond a certificate's end the next attempt may begin, if the last one failed before: the quickest retry and one look.
const AFTER_END: Duration = Duration::from_secs(1);

/// Pauses while a certificate is valid are a tenth of what is left, a fifth more by chance; of its life, 0.55 is left at most.
const LONGEST_PAUSE_SHARE: f64 = 0.066;

/// What was seen in a life that held.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    /// Attempts of all proxies.
    pub attempts: usize,
    /// Certificates that came.
    pub issued: usize,
    /// Certificates that ended before the next came.
    pub lost: usize,
    /// Attempts in the worst minute of a proxy.
    pub most_a_minute: usize,
    /// The longest that a proxy without a valid certificate took to get one, from when the CA could be reached.
    pub longest_back: Duration,
}

impl Judged {
    /// Both lives together.
    pub fn and(self, other: Self) -> Self {
        Self {
            attempts: self.attempts + other.attempts,
            issued: self.issued + other.issued,
            lost: self.lost + other.lost,
            most_a_minute: self.most_a_minute.max(other.most_a_minute),
            longest_back: self.longest_back.max(other.longest_back),
        }
    }
}

/// Judges a life.
///
/// # Errors
/// What did not hold, in words.
pub fn judge(life: &Life) -> Result<Judged, String> {
    let mut judged = Judged::default();
    for (number, diary) in life.proxies.iter().enumerate() {
        let one = of(life, diary)
            .map_err(|what| format!("proxy {number} of certificates of {:?}: {what}", life.ttl))?;
        judged = judged.and(one);
    }
    Ok(judged)
}

fn of(life: &Life, diary: &Diary) -> Result<Judged, String> {
    let attempts = &diary.attempts;
    let without = without(life, diary);
    let mut longest_back = Duration::ZERO;
    for (from, to) in &without {
        longest_back = longest_back.max(back_within(life, *from, *to)?);
        lost_for_a_reason(life, diary, *from)?;
    }
    next_is_not_too_late(diary)?;
    Ok(Judged {
        attempts: attempts.len(),
        issued: attempts.iter().filter(|attempt| attempt.issued).count(),
        lost: without.iter().filter(|(from, _)| !from.is_zero()).count(),
        most_a_minute: most_a_minute(attempts)?,
        longest_back,
    })
}

/// From when to when nothing valid was held.
fn without(life: &Life, diary: &Diary) -> Vec<(Duration, Duration)> {
    let mut gaps = Vec::new();
    let mut valid_until = Duration::ZERO;
    for (from, until) in &diary.held {
        if *from > valid_until {
            gaps.push((valid_until, *from));
        }
        valid_until = valid_until.max(*until);
    }
    if valid_until < life.whole {
        gaps.push((valid_until, life.whole));
    }
    gaps
}

/// While nothing valid is held, no window in which the CA can be reached may pass unused.
fn back_within(life: &Life, from: Duration, to: Duration) -> Result<Duration, String> {
    let mut longest = Duration::ZERO;
    for window in &life.reachable {
        let (begin, end) = (window.0.max(from), window.1.min(to));
        let took = end.saturating_sub(begin);
        if took > BACK_WITHIN {
            return Err(format!(
                "without a valid certificate from {from:?} to {to:?}, the CA was there for {took:?}"
            ));
        }
        longest = longest.max(took);
    }
    Ok(longest)
}

/// A certificate that was held has ended because there was no window long enough from its renewal's time to its end.
fn lost_for_a_reason(life: &Life, diary: &Diary, end: Duration) -> Result<(), String> {
    let Some((came, _)) = diary.held.iter().rev().find(|(from, _)| *from < end) else { return Ok(()) };
    let due = *came + life.ttl.mul_f64(0.55);
    let needed = BACK_WITHIN + life.ttl.mul_f64(LONGEST_PAUSE_SHARE);
    for window in &life.reachable {
        let (begin, end) = (window.0.max(due), window.1.min(end));
        let took = end.saturating_sub(begin);
        if took > needed {
            return Err(format!(
                "lost a certificate that came at {came:?}: the CA was there for {took:?} after {begin:?}"
            ));
        }
    }
    Ok(())
}

/// Whoever fails while the certificate is valid tries again before its end.
fn next_is_not_too_late(diary: &Diary) -> Result<(), String> {
    for pair in diary.attempts.windows(2) {
        let [failed, next] = pair else { continue };
        let end = diary.held.iter().filter(|(from, _)| *from <= failed.ended).map(|(_, until)| *until).max();
        let Some(end) = end.filter(|end| !failed.issued && failed.ended < *end) else { continue };
        if next.began > end + AFTER_END {
            return Err(format!(
                "failed at {:?}, tried again at {:?}, the certificate ended at {end:?}",
                failed.ended, next.began
            ));
        }
    }
    Ok(())
}

fn most_a_minute(attempts: &[Attempt]) -> Result<usize, String> {
    let minute = Duration::from_secs(60);
    let in_minute = |first: &Attempt| {
        attempts
            .iter()
            .filter(|other| other.began >= first.began && other.began < first.began + minute)
            .count()
    };
    let most = attempts.iter().map(in_minute).max().unwrap_or(0);
    if most > MAX_A_MINUTE {
        return Err(format!("{most} attempts in a minute"));
    }
    Ok(most)
}
