//! A cluster's place on the machine: a number, and what is named after it.
//!
//! Everything that a cluster leaves on the machine (a folder with all its state, namespaces, a link, cgroups) carries its
//! number, so that another process can find and remove all of it when the one that made it was killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::origin::Origin;

/// Where clusters keep their state: short, since sockets live below it.
const STATE: &str = "/var/lib/ringmail-kube";

/// How many clusters may stay when the program that started them ends: their numbers are below this one, those of the others
/// are not. One is enough for most; two run what wants a cluster for itself beside the rest.
pub const KEPT_CLUSTERS: u8 = 4;

/// More clusters than this do not fit on a machine, and every number is one subnet.
const HIGHEST: u8 = 200;

/// Who a cluster belongs to: `kept`, or a process by its id and the time of its start.
const OWNER: &str = "owner";

/// A number that is one cluster's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    number: u8,
}

impl Slot {
    /// Takes the first free number for this process.
    pub(super) fn claim(_all: &Lock) -> Result<Self> {
        for number in KEPT_CLUSTERS..=HIGHEST {
            let slot = Self { number };
            if !slot.folder().exists() {
                slot.occupy(&Owner::this_process()?)?;
                return Ok(slot);
            }
        }
        bail!("{} clusters run already, see {STATE}", HIGHEST - KEPT_CLUSTERS + 1)
    }

    /// Takes the number of a kept cluster, which has to be free.
    pub(super) fn claim_kept(number: u8, _all: &Lock) -> Result<Self> {
        let slot = Self::kept(number)?;
        if slot.folder().exists() {
            bail!("a cluster is kept already in {}", slot.folder().display());
        }
        slot.occupy(&Owner::Kept)?;
        Ok(slot)
    }

    /// A kept cluster's number, whether there is one or not.
    pub(super) fn kept(number: u8) -> Result<Self> {
        ensure!(number < KEPT_CLUSTERS, "cluster {number}: those that are kept are below {KEPT_CLUSTERS}");
        Ok(Self { number })
    }

    /// Those whose process has ended, those that are kept never among them.
    pub(super) fn orphans(_all: &Lock) -> Result<Vec<Self>> {
        let mut orphans = Vec::new();
        for entry in fs::read_dir(STATE).with_context(|| format!("list {STATE}"))? {
            let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let slot = Self { number };
            // A folder without an owner was made by a process that died in the middle of it: the lock is ours.
            let owner = fs::read_to_string(slot.folder().join(OWNER)).unwrap_or_default();
            if !Owner::parse(&owner).is_some_and(|owner| owner.lives()) {
                orphans.push(slot);
            }
        }
        Ok(orphans)
    }

    fn occupy(&self, owner: &Owner) -> Result<()> {
        let folder = self.folder();
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let file = folder.join(OWNER);
        fs::write(&file, owner.to_string()).with_context(|| format!("write {}", file.display()))
    }

    /// The folder that holds everything.
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(STATE).join(self.number.to_string())
    }

    /// The number itself, one byte of every address.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// The network namespace that the nodes' bridge lives in.
    pub(super) fn switch(&self) -> String {
        format!("rk{}-switch", self.number)
    }

    /// A node's network namespace; nodes count from one.
    pub(super) fn namespace(&self, node: usize) -> String {
        format!("rk{}-node{node}", self.number)
    }

    /// The link from the machine's own namespace to the bridge.
    pub(super) fn uplink(&self) -> String {
        format!("rk{}", self.number)
    }

    /// The cgroup of all processes, pods among them, below the root of each hierarchy.
    pub(super) fn cgroup(&self) -> String {
        format!("ringmail-kube-{}", self.number)
    }
}

/// Held while numbers are taken and given back.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until no other process takes or gives back a number.
    pub(super) fn take() -> Result<Self> {
        fs::create_dir_all(STATE).with_context(|| format!("make {STATE} (needs root)"))?;
        let file = File::create(Path::new(STATE).join("lock")).with_context(|| format!("lock {STATE}"))?;
        file.lock().with_context(|| format!("lock {STATE}"))?;
        Ok(Self { _file: file })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Kept,
    /// The start time tells a process from a later one with the same id.
    Process {
        pid: u32,
        started: u64,
    },
}

impl Owner {
    fn this_process() -> Result<Self> {
        let pid = std::process::id();
        let started = start_time(pid).context("read when this process started")?;
        Ok(Self::Process { pid, started })
    }

    fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            None => (text == "kept").then_some(Self::Kept),
            Some((pid, started)) => {
                Some(Self::Process { pid: pid.parse().ok()?, started: started.parse().ok()? })
            }
        }
    }

    fn lives(&self) -> bool {
        match self {
            Self::Kept => true,
            Self::Process { pid, started } => start_time(*pid) == Some(*started),
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kept => f.write_str("kept"),
            Self::Process { pid, started } => write!(f, "{pid} {started}"),
        }
    }
}

/// When a process started, in clock ticks since the machine did; none when there is no such process.
fn start_time(pid: u32) -> Option<u64> {
    Origin::of(pid).map(|origin| origin.started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_as_it_is_written_and_anything_else_is_nobody() {
        for owner in [Owner::Kept, Owner::Process { pid: 7, started: 9 }] {
            assert_eq!(Owner::parse(&owner.to_string()), Some(owner));
        }
        for text in ["", "keep", "7", "7 x", "x 9"] {
            assert_eq!(Owner::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_cluster_that_is_kept_has_a_number_that_no_other_is_given() {
        assert_eq!(Slot::kept(KEPT_CLUSTERS - 1).unwrap().number(), KEPT_CLUSTERS - 1);
        let error = Slot::kept(KEPT_CLUSTERS).unwrap_err().to_string();
        assert_eq!(error, "cluster 4: those that are kept are below 4");
    }

    #[test]
    fn a_process_lives_until_its_id_is_anothers() {
        let Owner::Process { pid, started } = Owner::this_process().unwrap() else { panic!("a process") };
        assert!(Owner::Process { pid, started }.lives());
        assert!(!Owner::Process { pid, started: started + 1 }.lives());
        assert!(!Owner::Process { pid: u32::MAX, started }.lives());
    }
}
