//! The cgroup that every process of a cluster is in: how all of them are found, whatever they were started by, and what they
//! cost together.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MOUNTED: &str = "/sys/fs/cgroup";

const PROCESSES: &str = "cgroup.procs";

/// Of version 1: where processes are looked for, and where their memory is counted.
const PIDS: &str = "pids";
const MEMORY: &str = "memory";

/// Killed processes are gone at once, unless the kernel is busy writing for them.
const KILL_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A cgroup by its path below the root of each hierarchy.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    path: String,
}

impl Cgroup {
    /// Names it; nothing is made yet.
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }

    /// One below it.
    pub(super) fn child(&self, name: &str) -> Self {
        Self { path: format!("{}/{name}", self.path) }
    }

    /// Makes it in every hierarchy, and returns the files that a process joins it by: those where processes are looked for
    /// and their memory is counted.
    pub(super) fn create(&self) -> Result<Vec<PathBuf>> {
        for hierarchy in hierarchies() {
            let folder = hierarchy.join(&self.path);
            fs::create_dir_all(&folder).with_context(|| format!("make cgroup {}", folder.display()))?;
        }
        let joined = if unified() { vec![""] } else { vec![PIDS, MEMORY] };
        Ok(joined.iter().map(|name| Path::new(MOUNTED).join(name).join(&self.path).join(PROCESSES)).collect())
    }

    /// What its processes hold, in bytes, without the files they have read.
    pub(super) fn memory(&self) -> Result<u64> {
        let (folder, name) = if unified() {
            (Path::new(MOUNTED).join(&self.path), "anon")
        } else {
            (Path::new(MOUNTED).join(MEMORY).join(&self.path), "total_rss")
        };
        let file = folder.join("memory.stat");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).with_context(|| format!("no {name} in {}", file.display()))
    }

    /// SIGKILL to every process in it and below, again and again until none is left; `reap` is called in between, for those
    /// that are this process's own children.
    pub(super) fn kill_all(&self, mut reap: impl FnMut()) -> Result<()> {
        let root = if unified() { PathBuf::from(MOUNTED) } else { Path::new(MOUNTED).join(PIDS) };
        let root = root.join(&self.path);
        let end = Instant::now() + KILL_DEADLINE;
        loop {
            let pids = processes_below(&root);
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!("processes {pids:?} in {} do not end", root.display());
            }
            for pid in pids {
                // It may have ended by itself since it was listed.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            reap();
            thread::sleep(POLL);
        }
    }

    /// Removes it from every hierarchy, with all below.
    pub(super) fn remove(&self) -> Result<()> {
        for hierarchy in hierarchies() {
            let folder = hierarchy.join(&self.path);
            if folder.is_dir() {
                remove_below(&folder).with_context(|| format!("remove cgroup {}", folder.display()))?;
            }
        }
        Ok(())
    }
}

/// Whether the machine has version 2 alone.
fn unified() -> bool {
    Path::new(MOUNTED).join("cgroup.controllers").exists()
}

/// Where each of them is mounted; what several of version 1 share is found by several names, which does no harm.
fn hierarchies() -> Vec<PathBuf> {
    if unified() {
        return vec![PathBuf::from(MOUNTED)];
    }
    folders_in(Path::new(MOUNTED)).into_iter().filter(|folder| folder.join(PROCESSES).exists()).collect()
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn processes_below(folder: &Path) -> Vec<i32> {
    let listed = fs::read_to_string(folder.join(PROCESSES)).unwrap_or_default();
    let mut pids: Vec<i32> = listed.lines().filter_map(|pid| pid.parse().ok()).collect();
    for below in folders_in(folder) {
        pids.extend(processes_below(&below));
    }
    pids
}

fn remove_below(folder: &Path) -> std::io::Result<()> {
    for below in folders_in(folder) {
        remove_below(&below)?;
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn processes_in_a_cgroup_and_below_are_killed_and_the_cgroup_goes_away() {
        let all = Cgroup::new(format!("ringmail-test-{}", std::process::id()));
        let joins = all.child("below").create().unwrap();
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        for file in &joins {
            fs::write(file, sleeper.id().to_string()).unwrap();
        }
        assert!(all.memory().is_ok());
        all.kill_all(|| drop(sleeper.try_wait())).unwrap();
        assert!(!sleeper.wait().unwrap().success());
        all.remove().unwrap();
        assert!(joins.iter().all(|file| !file.exists()));
    }
}
