//! What processes cost: the CPU time they have used and the memory they hold.
//!
//! CPU is read where the kernel counts it to the microsecond: from a cgroup of version 2, or from the scheduler's own
//! numbers of each thread. The ticks of `/proc/<pid>/stat` are 10 ms long, more than a short sample uses.

mod cgroup;
mod memory;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use cgroup::{Cgroup, KernelMemory};
pub use memory::{Memory, memory_of};

/// Where the CPU time of some processes is read. Written and parsed as `cgroup:<path>` or `pids:<pid>,<pid>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuClock {
    /// The folder of a cgroup of version 2 that holds them and nothing else.
    Cgroup(PathBuf),
    /// Their ids; all their threads count, but a thread that ends takes its time with it: the relay, with its threads for
    /// each connection, then seems to cost less than it does where connections come and go.
    Processes(Vec<u32>),
}

impl CpuClock {
    /// The CPU time used so far. Only differences mean something.
    pub fn read(&self) -> Result<Duration> {
        match self {
            Self::Cgroup(folder) => cgroup::cpu_time(folder),
            Self::Processes(pids) => {
                let mut sum = Duration::ZERO;
                for pid in pids {
                    sum += scheduled(*pid)?;
                }
                Ok(sum)
            }
        }
    }
}

impl fmt::Display for CpuClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(folder) => write!(f, "cgroup:{}", folder.display()),
            Self::Processes(pids) => {
                let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
                write!(f, "pids:{}", pids.join(","))
            }
        }
    }
}

impl FromStr for CpuClock {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("cgroup", folder)) if folder.starts_with('/') => Ok(Self::Cgroup(folder.into())),
            Some(("pids", pids)) => {
                let pids = pids.split(',').map(str::parse).collect::<Result<_, _>>();
                Ok(Self::Processes(pids.with_context(|| format!("read process ids from {text:?}"))?))
            }
            _ => bail!("{text:?}: expected cgroup:<absolute path> or pids:<pid>,<pid>"),
        }
    }
}

/// The CPU time of all threads of a process, from the scheduler.
fn scheduled(pid: u32) -> Result<Duration> {
    let folder = Path::new("/proc").join(pid.to_string()).join("task");
    let mut sum = 0;
    for thread in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let file = thread?.path().join("schedstat");
        // A thread that has ended since it was listed takes its time with it; proxies keep their threads.
        if let Ok(text) = fs::read_to_string(&file) {
            sum += running_time(&text).with_context(|| format!("read {}", file.display()))?;
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// The first of the three numbers of `schedstat`: nanoseconds on a CPU.
fn running_time(schedstat: &str) -> Result<u64> {
    let first = schedstat.split_whitespace().next();
    first.and_then(|text| text.parse().ok()).with_context(|| format!("no running time in {schedstat:?}"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_clock_is_read_back_as_it_was_written() {
        for text in ["cgroup:/sys/fs/cgroup/a b", "pids:1", "pids:1,22"] {
            assert_eq!(text.parse::<CpuClock>().unwrap().to_string(), text);
        }
        for wrong in ["", "cgroup:relative", "pids:", "pids:x", "ticks:1"] {
            assert!(wrong.parse::<CpuClock>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_scheduler_s_numbers_grow_with_the_work_of_a_process() {
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let clock = CpuClock::Processes(vec![busy.id()]);
        let before = clock.read().unwrap();
        let patience = Instant::now() + Duration::from_secs(10);
        while clock.read().unwrap() < before + Duration::from_millis(20) && Instant::now() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        let after = clock.read().unwrap();
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(after >= before + Duration::from_millis(20), "{before:?} {after:?}");
        assert!(clock.read().is_err(), "the process is gone");
    }

    #[test]
    fn the_running_time_is_the_first_of_the_scheduler_s_numbers() {
        assert_eq!(running_time("1234 5 6\n").unwrap(), 1234);
        assert!(running_time("").is_err());
    }
}
