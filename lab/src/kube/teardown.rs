//! Takes a cluster away: processes, mounts, namespaces, link, cgroups, folder.
//!
//! It works from what is on the machine alone, so it does the same for a cluster that ends as for one whose process was killed
//! in the middle of anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};

use super::slot::{Lock, Slot};
use crate::cgroup::Cgroup;
use crate::netns;

/// Where the library of the network plugins remembers what it has made, by the network's name.
const CNI_RESULTS: &str = "/var/lib/cni/results";

/// Where every kubelet links the logs of its containers.
const CONTAINER_LOGS: &str = "/var/log/containers";

/// The kernel takes its time to let go of a namespace's last mounts.
const FOLDER_DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Removes everything of the clusters whose processes are no more.
pub(super) fn sweep(lock: &Lock) -> Result<()> {
    for slot in Slot::orphans(lock)? {
        let what = format!("take away the cluster left behind in {}", slot.folder().display());
        remove(&slot, || {}).context(what)?;
    }
    Ok(())
}

/// Removes everything of one cluster. `reap` waits for its processes that are children of this one.
pub(super) fn remove(slot: &Slot, reap: impl FnMut()) -> Result<()> {
    let cgroup = Cgroup::new(slot.cgroup());
    cgroup.kill_all(reap)?;
    let folder = slot.folder();
    let sockets = shim_sockets(&folder);
    unmount_below(&folder)?;
    for name in named(slot)? {
        netns::remove(&name)?;
    }
    remove_link(&slot.uplink())?;
    remove_traces(slot, &sockets)?;
    cgroup.remove()?;
    remove_folder(&folder)
}

/// The namespaces of this cluster, however many nodes it has.
fn named(slot: &Slot) -> Result<Vec<String>> {
    let prefix = slot.namespace(0).trim_end_matches("node0").to_owned();
    let Ok(entries) = fs::read_dir(netns::NAMED) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The link goes with the switch's namespace; it is still there when that never came to be.
fn remove_link(name: &str) -> Result<()> {
    if Path::new("/sys/class/net").join(name).exists() {
        let done = Command::new("ip").args(["link", "del", name]).output().context("start ip")?;
        let gone = !Path::new("/sys/class/net").join(name).exists();
        ensure!(gone, "link {name} stays: {}", String::from_utf8_lossy(&done.stderr).trim_end());
    }
    Ok(())
}

/// Detaches what is mounted below a folder, the latest first.
fn unmount_below(folder: &Path) -> Result<()> {
    for target in mounts_below(folder)?.iter().rev() {
        umount2(target, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", target.display()))?;
    }
    Ok(())
}

fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read what is mounted")?;
    // The fifth word is where; spaces in it are written as octal, and no path of a cluster has any.
    let targets = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    Ok(targets.filter(|target| target.starts_with(folder)).collect())
}

/// The sockets that containerd's shims listen on, which lie beside those of every other containerd.
fn shim_sockets(folder: &Path) -> Vec<PathBuf> {
    let Ok(nodes) = fs::read_dir(folder) else { return Vec::new() };
    let tasks =
        nodes.flatten().map(|node| node.path().join("containerd-state/io.containerd.runtime.v2.task/k8s.io"));
    let bundles = tasks.filter_map(|tasks| fs::read_dir(tasks).ok()).flatten().flatten();
    let addresses = bundles.filter_map(|bundle| fs::read_to_string(bundle.path().join("address")).ok());
    addresses.filter_map(|address| Some(PathBuf::from(address.trim_end().strip_prefix("unix://")?))).collect()
}

/// What could not be kept in the cluster's folder.
fn remove_traces(slot: &Slot, sockets: &[PathBuf]) -> Result<()> {
    let mut traces = sockets.to_vec();
    let prefix = slot.namespace(0).trim_end_matches('0').to_owned();
    if let Ok(entries) = fs::read_dir(CNI_RESULTS) {
        let of_ours = |name: &str| name.starts_with(&prefix);
        traces.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_str().is_some_and(of_ours))
                .map(|entry| entry.path()),
        );
    }
    if let Ok(entries) = fs::read_dir(CONTAINER_LOGS) {
        let into_ours = |link: &PathBuf| fs::read_link(link).is_ok_and(|to| to.starts_with(slot.folder()));
        traces.extend(entries.flatten().map(|entry| entry.path()).filter(into_ours));
    }
    for trace in traces {
        match fs::remove_file(&trace) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("remove {}", trace.display())),
        }
    }
    Ok(())
}

/// Nothing may be mounted below any more: what is removed through a mount would be somebody else's.
fn remove_folder(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let left = mounts_below(folder)?;
    if !left.is_empty() {
        bail!("{} still has mounts: {left:?}", folder.display());
    }
    // Not the lab's own waiting, which ends when the run is interrupted.
    let end = Instant::now() + FOLDER_DEADLINE;
    while let Err(error) = fs::remove_dir_all(folder) {
        if Instant::now() >= end {
            return Err(error).with_context(|| format!("remove {}", folder.display()));
        }
        thread::sleep(POLL);
    }
    Ok(())
}
