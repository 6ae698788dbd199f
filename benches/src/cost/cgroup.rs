//! A cgroup of version 2 for the proxies of one candidate: their CPU time, and what the kernel holds for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Where version 2 is mounted: alone, or beside version 1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The file that only version 2 has.
const MARK: &str = "cgroup.controllers";

/// Killed processes leave their cgroup within moments; until then it cannot be removed.
const REMOVE_TRIES: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// What every cgroup of a run begins with.
const PREFIX: &str = "ringmail-bench-";

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A cgroup of this process's making. Dropping it removes it, once its processes have ended.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// Makes one called `ringmail-bench-<pid>-<number>`; an error says what the machine lacks.
    pub fn create() -> Result<Self> {
        let root = ROOTS.iter().map(Path::new).find(|root| root.join(MARK).exists());
        let root = root.with_context(|| format!("no cgroup of version 2 at {}", ROOTS.join(" or ")))?;
        sweep(root);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = root.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("make cgroup {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes processes in. What they have used before stays where they were, as only differences are read.
    pub fn join(&self, pids: &[u32]) -> Result<()> {
        let file = self.folder.join("cgroup.procs");
        for pid in pids {
            fs::write(&file, pid.to_string())
                .with_context(|| format!("move process {pid} to {}", self.folder.display()))?;
        }
        Ok(())
    }

    /// What the kernel holds for its processes; `None` where the memory controller is not on.
    pub fn kernel_memory(&self) -> Option<KernelMemory> {
        kernel_memory(&fs::read_to_string(self.folder.join("memory.stat")).ok()?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..REMOVE_TRIES {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(REMOVE_PAUSE);
        }
        eprintln!("bench: cgroup {} stays behind", self.folder.display());
    }
}

/// Removes what runs that were killed have left behind: those of processes that are no more.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let gone = |pid: u32| !Path::new("/proc").join(pid.to_string()).exists();
        if owner(&entry.file_name().to_string_lossy()).is_some_and(gone) {
            // Refused while something still runs in it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The process that made a cgroup of this name, if a run did.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// What the kernel holds for processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelMemory {
    /// All of its own: sockets' structures, files, page tables.
    pub kernel: u64,
    /// What lies in sockets' buffers.
    pub sock: u64,
}

fn kernel_memory(stat: &str) -> Option<KernelMemory> {
    Some(KernelMemory { kernel: field(stat, "kernel")?, sock: field(stat, "sock")? })
}

pub(super) fn cpu_time(folder: &Path) -> Result<Duration> {
    let file = folder.join("cpu.stat");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let used = field(&text, "usage_usec").with_context(|| format!("no usage_usec in {}", file.display()))?;
    Ok(Duration::from_micros(used))
}

/// The number of the line `name number`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cgroups_of_runs_have_an_owner() {
        for (name, expected) in
            [("ringmail-bench-12-3", Some(12)), ("ringmail-bench-x-3", None), ("user.slice", None)]
        {
            assert_eq!(owner(name), expected, "{name}");
        }
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let stat = "anon 7\nkernel_stack 1\nkernel 4096\nsock 12\nsock_throttled 3\n";
        assert_eq!(kernel_memory(stat), Some(KernelMemory { kernel: 4096, sock: 12 }));
        assert_eq!(kernel_memory("anon 7\n"), None);
        assert_eq!(field("usage_usec x\n", "usage_usec"), None);
    }
}
