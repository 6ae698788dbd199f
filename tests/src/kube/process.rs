//! Processes of containers, as the machine sees them: what no `kubectl` can do to them can be done from there.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ringmail_lab::{origin::Origin, sidecar::children_of};

use super::{place::Place, stage::Stage};

/// The first process of a container. Plain processes alone have theirs on this machine.
pub fn main_of(place: &Place, pod: &str, container: &str) -> Result<u32> {
    main_in(place.stage(), place.name(), pod, container)
}

/// The same in a namespace that is no scenario's.
pub fn main_in(stage: &Stage, namespace: &str, pod: &str, container: &str) -> Result<u32> {
    let path = format!(
        "{{.status.containerStatuses[?(@.name=='{container}')].containerID}}\
         {{.status.initContainerStatuses[?(@.name=='{container}')].containerID}}"
    );
    let id = stage.kubectl(&["get", "-n", namespace, "pod", pod, "-o", &format!("jsonpath={path}")])?;
    let id = id.rsplit('/').next().unwrap_or_default();
    ensure!(!id.is_empty(), "{pod} has no running container {container}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let Ok(pid) = entry.context("read /proc")?.file_name().to_string_lossy().parse() else { continue };
        // A process may end while it is looked at.
        let is_in = fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup.contains(id));
        found.extend(is_in.then(|| Origin::of(pid)).flatten());
    }
    Origin::first(&found)
        .with_context(|| format!("no process of {container} of {pod} ({id}) on this machine"))
}

/// SIGKILL to the first process of a container, which the kubelet then starts again.
pub fn kill_main(place: &Place, pod: &str, container: &str) -> Result<()> {
    let pid = main_of(place, pod, container)?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL).with_context(|| format!("kill {pid}"))
}

/// The data plane of a sidecar: the child of its first process.
pub fn data_plane(place: &Place, pod: &str, container: &str) -> Result<u32> {
    let parent = main_of(place, pod, container)?;
    children_of(parent)?.first().copied().with_context(|| format!("{pod}: {parent} has no child"))
}

/// SIGABRT to the data plane, and waits until there is another one.
pub fn abort_data_plane(place: &Place, pod: &str, container: &str) -> Result<()> {
    let old = data_plane(place, pod, container)?;
    kill(Pid::from_raw(i32::try_from(old)?), Signal::SIGABRT).with_context(|| format!("abort {old}"))?;
    place.until(Duration::from_secs(10), &format!("{pod} has another data plane than {old}"), || {
        sleep(Duration::from_millis(50));
        Ok(data_plane(place, pod, container).ok().filter(|new| *new != old).map(drop))
    })
}
