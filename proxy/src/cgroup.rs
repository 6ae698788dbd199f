//! What the container may take, and what the kernel did because it took more: the control groups that this process is in.
//!
//! Both versions of them are read. A group's limit holds for all below it, so the smallest on the way up is what counts. What is
//! mounted in a container may begin at the container's own group, whatever path the kernel names: a folder that is not there is
//! passed over, and the mount's own is the last.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::errno::Errno;

const MOUNTED: &str = "/sys/fs/cgroup";

const MEMBERSHIP: &str = "/proc/self/cgroup";

/// Version 1 says a number of this size where nothing is limited: the largest one, in whole pages.
const UNLIMITED: u64 = 1 << 62;

/// The files of a version.
struct Files {
    limit: &'static str,
    events: &'static str,
}

const VERSION_1: Files = Files { limit: "memory.limit_in_bytes", events: "memory.oom_control" };
const VERSION_2: Files = Files { limit: "memory.max", events: "memory.events" };

/// Bytes of memory that this process and those beside it may take together; `None` where nothing limits them, or the kernel does
/// not say.
pub fn memory_limit() -> Option<u64> {
    limit(&membership(), Path::new(MOUNTED))
}

/// How often the kernel has killed a process of this group because memory was used up; `None` where it does not say.
pub fn memory_kills() -> Option<u64> {
    kills(&membership(), Path::new(MOUNTED))
}

/// An error of the system, with what it means where a thread or a process was refused.
pub(crate) fn explain(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(Errno::EAGAIN as i32) {
        io::Error::other(format!(
            "{error}: no more threads and processes are allowed, raise the container's pids limit"
        ))
    } else {
        error
    }
}

fn membership() -> String {
    fs::read_to_string(MEMBERSHIP).unwrap_or_default()
}

fn limit(membership: &str, mounted: &Path) -> Option<u64> {
    let limits = groups(membership, mounted).into_iter().filter_map(|(folder, files)| {
        let text = fs::read_to_string(folder.join(files.limit)).ok()?;
        text.trim().parse::<u64>().ok().filter(|bytes| *bytes < UNLIMITED)
    });
    limits.min()
}

fn kills(membership: &str, mounted: &Path) -> Option<u64> {
    let texts = groups(membership, mounted).into_iter();
    let mut texts = texts.filter_map(|(folder, files)| fs::read_to_string(folder.join(files.events)).ok());
    let own = texts.next()?;
    own.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

/// The folders of the groups that count memory, from the own one up.
fn groups(membership: &str, mounted: &Path) -> Vec<(PathBuf, &'static Files)> {
    let mut found = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, files) = if controllers.is_empty() {
            (mounted.to_owned(), &VERSION_2)
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (mounted.join("memory"), &VERSION_1)
        } else {
            continue;
        };
        let below = Path::new(path.trim_start_matches('/'));
        found.extend(below.ancestors().map(|part| (root.join(part), files)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts_in_version_2() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "pods/one/sidecar/memory.max", "max\n");
        write(root.path(), "pods/one/memory.max", "268435456\n");
        write(root.path(), "pods/memory.max", "1073741824\n");
        assert_eq!(limit("0::/pods/one/sidecar\n", root.path()), Some(268_435_456));
        assert_eq!(limit("0::/elsewhere\n", root.path()), None);
    }

    #[test]
    fn version_1_says_a_limit_in_its_own_hierarchy_and_a_huge_number_where_there_is_none() {
        let root = tempfile::tempdir().unwrap();
        let membership = "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/a\n";
        write(root.path(), "memory/memory.limit_in_bytes", "9223372036854771712\n");
        write(root.path(), "cpu/a/memory.limit_in_bytes", "1\n");
        assert_eq!(limit(membership, root.path()), None);
        write(root.path(), "memory/a/b/memory.limit_in_bytes", "33554432\n");
        assert_eq!(limit(membership, root.path()), Some(33_554_432));
    }

    #[test]
    fn a_mount_that_begins_at_the_containers_own_group_is_read_at_its_root() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "memory/memory.limit_in_bytes", "33554432\n");
        write(root.path(), "memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
        let membership = "4:memory:/kubepods/pod1/2\n";
        assert_eq!(limit(membership, root.path()), Some(33_554_432));
        assert_eq!(kills(membership, root.path()), Some(3));
    }

    #[test]
    fn kills_are_those_of_the_own_group_alone() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "a/memory.events", "low 0\noom 9\noom_kill 2\noom_group_kill 0\n");
        write(root.path(), "memory.events", "oom_kill 7\n");
        assert_eq!(kills("0::/a\n", root.path()), Some(2));
        assert_eq!(kills("0::/gone\n", root.path()), Some(7));
        assert_eq!(kills("", root.path()), None);
    }
}
