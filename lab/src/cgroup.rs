//! Cgroups of either version: how all processes of a cluster are found, whatever they were started by, what they cost together,
//! and how a sidecar is given as little as a container would give it.

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
pub struct Cgroup {
    path: String,
}

impl Cgroup {
    /// Names it; nothing is made yet.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }

    /// One below it.
    pub fn child(&self, name: &str) -> Self {
        Self { path: format!("{}/{name}", self.path) }
    }

    /// Makes it in every hierarchy, and returns the files that a process joins it by: those where processes are looked for
    /// and their memory is counted.
    pub fn create(&self) -> Result<Vec<PathBuf>> {
        if unified() {
            // Where a service manager has not done so; one that has does not mind.
            let _ = fs::write(Path::new(MOUNTED).join("cgroup.subtree_control"), "+memory +pids");
        }
        for hierarchy in hierarchies() {
            let folder = hierarchy.join(&self.path);
            fs::create_dir_all(&folder).with_context(|| format!("make cgroup {}", folder.display()))?;
        }
        let joined = if unified() { vec![""] } else { vec![PIDS, MEMORY] };
        Ok(joined.iter().map(|name| self.folder(name).join(PROCESSES)).collect())
    }

    /// What its processes hold, in bytes, without the files they have read.
    pub fn memory(&self) -> Result<u64> {
        let name = if unified() { "anon" } else { "total_rss" };
        let text = self.read(MEMORY, "memory.stat")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).with_context(|| format!("no {name} in memory.stat"))
    }

    /// Bounds what its processes may hold of memory, in bytes, without swap beside it.
    pub fn limit_memory(&self, bytes: u64) -> Result<()> {
        let name = if unified() { "memory.max" } else { "memory.limit_in_bytes" };
        self.write(MEMORY, name, bytes)
    }

    /// Bounds how many processes and threads may be in it; none for no bound.
    pub fn limit_processes(&self, most: Option<u32>) -> Result<()> {
        self.write(PIDS, "pids.max", most.map_or_else(|| "max".to_owned(), |most| most.to_string()))
    }

    /// How often the kernel has killed one of its processes because memory was used up.
    pub fn memory_kills(&self) -> Result<u64> {
        let name = if unified() { "memory.events" } else { "memory.oom_control" };
        let text = self.read(MEMORY, name)?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|value| value.parse().ok()).with_context(|| format!("no oom_kill in {text:?}"))
    }

    /// The bytes in the buffers of its sockets. Version 1 counts them beside its memory, where it was asked to before.
    pub fn socket_buffers(&self) -> Result<u64> {
        if unified() {
            let text = self.read(MEMORY, "memory.stat")?;
            let line = text.lines().find_map(|line| line.strip_prefix("sock "));
            return line.and_then(|value| value.parse().ok()).context("no sock in memory.stat");
        }
        let text = self.read(MEMORY, "memory.kmem.tcp.usage_in_bytes")?;
        text.trim().parse().with_context(|| format!("bytes of sockets: {text:?}"))
    }

    /// Has version 1 count the buffers of sockets, which version 2 does anyway. It has no effect on sockets that are there.
    pub fn count_socket_buffers(&self) -> Result<()> {
        const MORE_THAN_ANY: u64 = 1 << 40;
        if unified() { Ok(()) } else { self.write(MEMORY, "memory.kmem.tcp.limit_in_bytes", MORE_THAN_ANY) }
    }

    /// What its processes hold of all that is bounded, in bytes: also of the kernel, and of files that could be dropped.
    pub fn charged(&self) -> Result<u64> {
        let name = if unified() { "memory.current" } else { "memory.usage_in_bytes" };
        let text = self.read(MEMORY, name)?;
        text.trim().parse().with_context(|| format!("bytes of memory: {text:?}"))
    }

    fn read(&self, hierarchy: &str, name: &str) -> Result<String> {
        let file = self.folder(hierarchy).join(name);
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    }

    fn write(&self, hierarchy: &str, name: &str, value: impl ToString) -> Result<()> {
        let file = self.folder(hierarchy).join(name);
        fs::write(&file, value.to_string()).with_context(|| format!("write {}", file.display()))
    }

    /// Its folder in the hierarchy of version 1 that has this name, or in the only one of version 2.
    fn folder(&self, hierarchy: &str) -> PathBuf {
        let mounted = Path::new(MOUNTED);
        if unified() { mounted.join(&self.path) } else { mounted.join(hierarchy).join(&self.path) }
    }

    /// SIGKILL to every process in it and below, again and again until none is left; `reap` is called in between, for those
    /// that are this process's own children.
    pub fn kill_all(&self, mut reap: impl FnMut()) -> Result<()> {
        let root = self.folder(PIDS);
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
    pub fn remove(&self) -> Result<()> {
        for hierarchy in hierarchies() {
            let folder = hierarchy.join(&self.path);
            if folder.is_dir() {
                remove_below(&folder).with_context(|| format!("remove cgroup {}", folder.display()))?;
            }
        }
        Ok(())
    }
}

/// Joins the cgroups whose files come first, then becomes the program after `--`: so all that it starts is in them too. To be
/// run by `sh -c`, as root.
pub(crate) const JOIN_AND_EXEC: &str =
    "while [ \"$1\" != -- ]; do echo $$ > \"$1\" || exit 126; shift; done; shift; exec \"$@\"";

/// A cgroup of one test, which takes itself away with the processes in it.
#[derive(Debug)]
pub struct Confinement(Cgroup);

impl Confinement {
    /// Makes one.
    pub fn create(label: &str) -> Result<Self> {
        let cgroup = Cgroup::new(format!("ringmail-{label}-{}", std::process::id()));
        cgroup.create()?;
        Ok(Self(cgroup))
    }

    /// The cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.0
    }
}

impl Drop for Confinement {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill_all(|| {}).and_then(|()| self.0.remove()) {
            eprintln!("lab: a cgroup stays behind: {error:#}");
        }
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
