//! Where processes come from: which of a container's began it.

use std::fs;

/// A process, its parent, and when it started, in clock ticks since the machine did.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pid: u32,
    parent: u32,
    pub(crate) started: u64,
}

impl Origin {
    /// That of a process, while it lives.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything; fields 4 and 22 of proc_pid_stat(5) come after it.
        let words: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self { pid, parent: words.get(1)?.parse().ok()?, started: words.get(19)?.parse().ok()? })
    }

    /// The oldest of a container's processes whose parent is none of them: an `exec` has such a parent too, and comes later.
    /// The smallest number says nothing, since numbers begin anew once all have been used.
    pub fn first(found: &[Self]) -> Option<u32> {
        let is_child = |one: &Self| found.iter().any(|other| other.pid == one.parent);
        found.iter().filter(|one| !is_child(one)).min_by_key(|one| one.started).map(|one| one.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_is_found_also_where_numbers_have_begun_anew() {
        let of = |pid, parent, started| Origin { pid, parent, started };
        let (main, child, executed) = (of(31_860, 9, 100), of(12, 31_860, 100), of(14, 9, 101));
        assert_eq!(Origin::first(&[child, executed, main]), Some(31_860));
        assert_eq!(Origin::first(&[]), None);
    }

    #[test]
    fn this_process_began_after_its_parent() {
        let own = Origin::of(std::process::id()).unwrap();
        assert!(Origin::of(own.parent).unwrap().started <= own.started);
    }
}
