//! The memory of processes, from the kernel's account of their pages.

use std::fs;
use std::ops::{Add, Sub};

use anyhow::{Context, Result};

/// Memory, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pages of its own making: heap, stacks, written data.
    pub anonymous: i64,
    /// All pages that are resident, those of the program's file among them.
    pub resident: i64,
}

impl Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { anonymous: self.anonymous + other.anonymous, resident: self.resident + other.resident }
    }
}

impl Sub for Memory {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { anonymous: self.anonymous - other.anonymous, resident: self.resident - other.resident }
    }
}

/// What the processes of one proxy hold together.
///
/// The pages of their files are counted once, as those of the process that has most of them: a proxy of several
/// processes runs the same program in each, and a container is charged for its file once.
pub fn memory_of(pids: &[u32]) -> Result<Memory> {
    let mut each = Vec::with_capacity(pids.len());
    for pid in pids {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        each.push(parse(&text).with_context(|| format!("read {file}"))?);
    }
    Ok(together(&each))
}

fn together(each: &[Memory]) -> Memory {
    let anonymous: i64 = each.iter().map(|one| one.anonymous).sum();
    let files = each.iter().map(|one| one.resident - one.anonymous).max().unwrap_or_default();
    Memory { anonymous, resident: anonymous + files }
}

fn parse(rollup: &str) -> Result<Memory> {
    let field = |name: &str| -> Result<i64> {
        let value =
            rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.strip_suffix("kB"));
        let value = value.and_then(|value| value.trim().parse().ok());
        value.with_context(|| format!("no {name} in kB"))
    };
    Ok(Memory { anonymous: field("Anonymous")?, resident: field("Rss")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_a_process_is_read() {
        let text = "5580-7ffe ---p 00000000 00:00 0 [rollup]\nRss:   12345 kB\nPss:  3000 kB\nAnonymous:   2000 kB\n";
        assert_eq!(parse(text).unwrap(), Memory { anonymous: 2000, resident: 12345 });
        assert!(parse("Rss: 1 kB\n").unwrap_err().to_string().contains("Anonymous"));
    }

    #[test]
    fn the_file_of_two_processes_of_a_proxy_counts_once() {
        let parent = Memory { anonymous: 500, resident: 2500 };
        let child = Memory { anonymous: 1500, resident: 6500 };
        assert_eq!(together(&[parent, child]), Memory { anonymous: 2000, resident: 7000 });
        assert_eq!(together(&[]), Memory::default());
    }

    #[test]
    fn this_process_holds_memory() {
        let memory = memory_of(&[std::process::id()]).unwrap();
        assert!(memory.anonymous > 0 && memory.resident > memory.anonymous, "{memory:?}");
    }
}
