//! What processes use, as this machine's `/proc` has it.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// Processes that are looked at as one.
#[derive(Clone, Debug)]
pub(crate) struct Processes(Vec<u32>);

impl Processes {
    pub(crate) fn one(pid: u32) -> Self {
        Self(vec![pid])
    }

    /// All that run `program` in the pod of this UID.
    pub(crate) fn of_pod(uid: &str, program: &str) -> anyhow::Result<Self> {
        let uids = [uid.to_owned(), uid.replace('-', "_")];
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            if uids.iter().any(|uid| read("cgroup").contains(uid)) && is_run_as(&read("cmdline"), program) {
                found.push(pid);
            }
        }
        ensure!(!found.is_empty(), "no {program} of pod {uid} runs on this machine");
        Ok(Self(found))
    }

    /// Memory that is resident, in KB.
    pub(crate) fn resident(&self) -> anyhow::Result<usize> {
        self.sum("status", |text| {
            let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
    }

    /// Time on a CPU, that of threads that have ended included.
    fn used(&self) -> anyhow::Result<Duration> {
        let of = |pid: &u32| {
            let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(*pid)?));
            let time = clock.and_then(clock_gettime).with_context(|| format!("process {pid} has ended"))?;
            Ok(Duration::from(time))
        };
        self.0.iter().map(of).sum::<anyhow::Result<_>>()
    }

    /// How long threads that could run waited for a CPU.
    fn waited(&self) -> anyhow::Result<Duration> {
        let mut waited = 0;
        for pid in &self.0 {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                // One that ends meanwhile waits no more.
                let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
                waited += text.split(' ').nth(1).and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Ok(Duration::from_nanos(waited))
    }

    /// Bytes that came in by the first interface of the network they are in.
    fn received(&self) -> anyhow::Result<usize> {
        let text = fs::read_to_string(format!("/proc/{}/net/dev", self.0[0]))?;
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let others = lines.filter(|(name, _)| name.trim() != "lo");
        let bytes = others.filter_map(|(_, counts)| counts.split_whitespace().next()?.parse::<usize>().ok());
        Ok(bytes.sum())
    }

    fn sum(&self, file: &str, read: impl Fn(&str) -> Option<usize>) -> anyhow::Result<usize> {
        let of = |pid: &u32| {
            let path = format!("/proc/{pid}/{file}");
            let text = fs::read_to_string(&path).with_context(|| format!("{path}: the process has ended"))?;
            read(&text).with_context(|| format!("{path} cannot be read"))
        };
        self.0.iter().map(of).sum()
    }
}

fn is_run_as(command: &str, program: &str) -> bool {
    let first = command.split('\0').next().unwrap_or_default();
    first.rsplit('/').next() == Some(program)
}

/// From a moment on.
#[derive(Debug)]
pub(crate) struct Look {
    processes: Processes,
    began: Instant,
    used: Duration,
    waited: Duration,
    received: usize,
}

/// What was used since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// KB, at the end.
    pub(crate) resident: usize,
    /// Of one CPU.
    pub(crate) cpu: f64,
    /// For how much of the time threads waited for one, taken together.
    pub(crate) waited: f64,
    /// Bytes per second that came into the pod.
    pub(crate) received: f64,
}

impl Seen {
    /// Seconds of a CPU.
    pub(crate) fn cpu_by_byte(&self) -> f64 {
        self.cpu / self.received
    }
}

impl Look {
    pub(crate) fn begin(processes: &Processes) -> anyhow::Result<Self> {
        let (used, waited, received) = (processes.used()?, processes.waited()?, processes.received()?);
        Ok(Self { processes: processes.clone(), began: Instant::now(), used, waited, received })
    }

    pub(crate) fn end(&self) -> anyhow::Result<Seen> {
        let elapsed = self.began.elapsed().as_secs_f64();
        let used = self.processes.used()?.saturating_sub(self.used);
        let received = self.processes.received()?.saturating_sub(self.received);
        Ok(Seen {
            resident: self.processes.resident()?,
            cpu: used.as_secs_f64() / elapsed,
            waited: self.processes.waited()?.saturating_sub(self.waited).as_secs_f64() / elapsed,
            received: u32::try_from(received / 1024).map(f64::from)? * 1024.0 / elapsed,
        })
    }
}

/// Ticks of the whole machine: those in which it did something, and all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    busy: u64,
    all: u64,
}

impl Machine {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        // Guests' time is part of the users'.
        let times: Vec<u64> =
            line.split_whitespace().skip(1).take(8).filter_map(|time| time.parse().ok()).collect();
        let idle: u64 = times.iter().skip(3).take(2).sum();
        let all = times.iter().sum();
        Ok(Self { busy: all - idle, all })
    }

    /// The share of its CPUs' time that was used since.
    pub(crate) fn busy_since(self) -> anyhow::Result<f64> {
        let now = Self::now()?;
        let (busy, all) = (u32::try_from(now.busy - self.busy)?, u32::try_from((now.all - self.all).max(1))?);
        Ok(f64::from(busy) / f64::from(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_the_last_part_of_its_command() {
        for (command, expected) in [
            ("/usr/local/bin/ringmail-proxy\0", true),
            ("ringmail-proxy\0--data-plane\0", true),
            ("/bin/sh\0ringmail-proxy\0", false),
            ("/usr/local/bin/ringmail-proxyd\0", false),
            ("", false),
        ] {
            assert_eq!(is_run_as(command, "ringmail-proxy"), expected, "{command:?}");
        }
    }

    #[test]
    fn what_this_process_uses_is_seen() {
        let own = Processes::one(std::process::id());
        let look = Look::begin(&own).unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(200) {}
        let seen = look.end().unwrap();
        assert!(seen.cpu > 0.1 && seen.resident > 1000, "{seen:?}");
    }
}
