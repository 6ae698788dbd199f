//! Keepalive: how a peer that vanished while its connection was idle is noticed, and why connections do not all ask at once.
//!
//! What is due together the kernel sends in one go, and the queue in front of a loopback or veth takes 1,000 packets for each
//! processor (`net.core.netdev_max_backlog`); the rest is lost. Thousands of connections that fell silent at the same moment would
//! lose most of their probes, lose them again each time, because they are repeated together too, and all be ended as dead. So they
//! take turns: the time after which they ask differs, and there are more probes than a few losses use up.

use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockRef, TcpKeepalive};

use crate::config::Config;

/// One part in so many of the idle time is what it may be shorter by: ten seconds of the default's thirty, five times as long as
/// the kernel's clock for such times is coarse.
const SPREAD: u64 = 3;

/// Whose turn it is, of all workers.
static TURN: AtomicU64 = AtomicU64::new(0);

/// Has the socket ask whether its peer is still there. What a listener accepts inherits it.
///
/// # Errors
/// What `setsockopt` reports.
pub fn set(socket: &SockRef<'_>, config: &Config) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(next_idle_time(config))
        .with_interval(config.keepalive_interval)
        .with_retries(config.keepalive_probes);
    socket.set_tcp_keepalive(&keepalive)
}

/// Gives a connection, which has the options of the listener that accepted it, a turn of its own.
///
/// # Errors
/// What `setsockopt` reports.
pub fn take_turn(socket: &impl AsFd, config: &Config) -> io::Result<()> {
    let seconds = u32::try_from(next_idle_time(config).as_secs()).unwrap_or(u32::MAX);
    Ok(setsockopt(&socket.as_fd(), sockopt::TcpKeepIdle, &seconds)?)
}

fn next_idle_time(config: &Config) -> Duration {
    idle_time(config.keepalive_time, TURN.fetch_add(1, Ordering::Relaxed))
}

/// In whole seconds, as the kernel wants them, and never longer than the setting says.
fn idle_time(longest: Duration, turn: u64) -> Duration {
    let longest = longest.as_secs();
    Duration::from_secs(longest - turn % (longest / SPREAD + 1))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::TcpListener};

    use super::*;

    #[test]
    fn the_idle_times_of_connections_in_a_row_differ_and_none_is_longer_than_the_setting() {
        for (longest, shortest) in [(1, 1), (2, 2), (3, 2), (30, 20), (32_767, 21_845)] {
            let all: Vec<_> =
                (0..=longest).map(|turn| idle_time(Duration::from_secs(longest), turn)).collect();
            assert_eq!(all.iter().max(), Some(&Duration::from_secs(longest)));
            assert_eq!(all.iter().min(), Some(&Duration::from_secs(shortest)));
        }
    }

    #[test]
    fn sockets_ask_after_different_times_and_as_often_as_the_settings_say() {
        let config = Config::from_text("test.yaml", "").unwrap();
        let mut idle = BTreeMap::<u64, u32>::new();
        for number in 0..110 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let socket = SockRef::from(&listener);
            set(&socket, &config).unwrap();
            if number % 2 == 0 {
                take_turn(&listener, &config).unwrap();
            }
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), config.keepalive_interval);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), config.keepalive_probes);
            *idle.entry(socket.tcp_keepalive_time().unwrap().as_secs()).or_default() += 1;
        }
        assert_eq!(idle.keys().copied().collect::<Vec<_>>(), (20..=30).collect::<Vec<_>>(), "{idle:?}");
    }
}
