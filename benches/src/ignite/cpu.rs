//! CPU time of the processes in the pods, to the nanosecond and with their ended threads: from each process's own CPU clock.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::ClockId;
use nix::unistd::Pid;
use ringmail_lab::network::Network;
use ringmail_lab::sidecar::PROXY_UID;

/// What was used up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// By all processes in the pods: nodes, client and sidecars.
    pub(super) all: Duration,
    /// By the sidecars alone.
    pub(super) sidecars: Duration,
}

impl Used {
    /// What was used between an earlier moment and this one.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            all: self.all.saturating_sub(earlier.all),
            sidecars: self.sidecars.saturating_sub(earlier.sidecars),
        }
    }
}

/// The processes in the pods as they are now. A process that starts later is not among them.
#[derive(Debug)]
pub(super) struct Processes {
    sidecars: Vec<Pid>,
    applications: Vec<Pid>,
}

impl Processes {
    /// Looks for them in the pods of these names. A sidecar is told by its user.
    pub(super) fn find(network: &Network, pods: &[&str]) -> Result<Self> {
        let mut found = Self { sidecars: Vec::new(), applications: Vec::new() };
        for pod in pods {
            for pid in network.pod(pod)?.namespace().processes()? {
                let kind =
                    if user_of(pid)? == PROXY_UID { &mut found.sidecars } else { &mut found.applications };
                kind.push(Pid::from_raw(pid));
            }
        }
        Ok(found)
    }

    /// How many sidecar processes there are.
    pub(super) fn sidecars(&self) -> usize {
        self.sidecars.len()
    }

    /// What they have used up to now.
    pub(super) fn used(&self) -> Result<Used> {
        let sidecars = sum(&self.sidecars)?;
        Ok(Used { all: sidecars + sum(&self.applications)?, sidecars })
    }
}

/// The real user. The owner of the folder in /proc is root where a process keeps its memory private.
fn user_of(pid: i32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("look at process {pid}"))?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let user = users.and_then(|users| users.split_whitespace().next());
    user.with_context(|| format!("process {pid}: no user in its status"))?.parse().context("user")
}

fn sum(processes: &[Pid]) -> Result<Duration> {
    processes.iter().map(|pid| used_by(*pid)).sum()
}

fn used_by(pid: Pid) -> Result<Duration> {
    let time = ClockId::pid_cpu_clock_id(pid)
        .and_then(ClockId::now)
        .with_context(|| format!("read the CPU clock of process {pid}"))?;
    Ok(Duration::from(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_has_used_is_counted_after_its_end() {
        const SPUN: Duration = Duration::from_millis(50);
        let me = Pid::this();
        let before = used_by(me).unwrap();
        let spin = || {
            let own = || Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap());
            while own() < SPUN {
                std::hint::spin_loop();
            }
        };
        std::thread::spawn(spin).join().unwrap();
        let used = used_by(me).unwrap().checked_sub(before).unwrap();
        assert!(used >= SPUN, "{used:?}");
    }
}
