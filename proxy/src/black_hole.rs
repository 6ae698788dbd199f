//! Finding a leg between sidecars that swallows data.
//!
//! TCP's own patience with unacknowledged data is a quarter of an hour, and `TCP_USER_TIMEOUT` would
//! also end a slow reader that keeps acknowledging with a closed window. So the kernel is asked what
//! is unacknowledged: only data that stayed so for the whole deadline, with nothing at all coming
//! back, ends the connection, and a peer that announced a closed window never does.

use std::time::Duration;

use tokio::time::Instant;

use crate::sys::TcpInfo;

/// The watch over one leg.
#[derive(Debug)]
pub struct BlackHole {
    deadline: Duration,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    bytes_acked: u64,
}

impl BlackHole {
    /// Data may stay unacknowledged for `deadline`.
    pub fn new(deadline: Duration) -> Self {
        Self { deadline, waiting: None }
    }

    /// Looks at the kernel's word; true when the leg is lost.
    pub fn swallows(&mut self, info: TcpInfo, now: Instant) -> bool {
        let closed_window = info.send_window == Some(0);
        if info.unacked == 0 || closed_window {
            self.waiting = None;
            return false;
        }
        match &self.waiting {
            Some(waiting) if waiting.bytes_acked == info.bytes_acked => {
                let silent = Duration::from_millis(u64::from(info.last_ack_ms));
                now - waiting.since >= self.deadline && silent >= self.deadline
            }
            Some(_) | None => {
                self.waiting = Some(Waiting { since: now, bytes_acked: info.bytes_acked });
                false
            }
        }
    }

    /// Whether data is on its way and the leg has to be looked at again.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn info(unacked: u32, last_ack_ms: u32, bytes_acked: u64, window: u32) -> TcpInfo {
        TcpInfo { unacked, unsent_bytes: 0, last_ack_ms, bytes_acked, send_window: Some(window) }
    }

    #[test]
    fn only_data_that_stays_unacknowledged_in_silence_is_swallowed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = BlackHole::new(DEADLINE);
        // Long idle before: the silence alone says nothing.
        assert!(!watch.swallows(info(1, 600_000, 100, 65535), at(0)));
        assert!(!watch.swallows(info(1, 609_000, 100, 65535), at(9)));
        assert!(watch.swallows(info(1, 610_000, 100, 65535), at(10)));
    }

    #[test]
    fn progress_starts_the_wait_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = BlackHole::new(DEADLINE);
        assert!(!watch.swallows(info(4, 0, 100, 65535), at(0)));
        assert!(!watch.swallows(info(4, 0, 200, 65535), at(9)));
        assert!(!watch.swallows(info(4, 9_000, 200, 65535), at(18)));
        assert!(watch.swallows(info(4, 10_000, 200, 65535), at(19)));
    }

    #[test]
    fn a_closed_window_and_a_recent_acknowledgement_are_left_alone() {
        let start = Instant::now();
        let late = start + Duration::from_secs(600);
        let mut watch = BlackHole::new(DEADLINE);
        assert!(!watch.swallows(info(3, 600_000, 100, 0), start));
        assert!(!watch.swallows(info(3, 600_000, 100, 0), late));
        // Duplicate acknowledgements come back: the peer lives.
        assert!(!watch.swallows(info(3, 50, 100, 65535), late));
        assert!(!watch.swallows(info(3, 50, 100, 65535), late + DEADLINE));
    }
}
