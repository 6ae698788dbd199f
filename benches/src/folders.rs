//! Results without the folders of the machine that they were taken on: where its temporary files and the programs of its
//! user are is nothing that a reader could use, and does not belong on a page.

use std::collections::BTreeMap;

use crate::results::Results;

/// What stands for a folder.
const FOLDER: &str = "<folder>";

/// Where a system has what it came with: the same on every machine, and told.
const SYSTEM: [&str; 8] = ["/bin/", "/dev/", "/etc/", "/lib/", "/proc/", "/sbin/", "/sys/", "/usr/"];

/// What may stand before a path, beside white space.
const BEFORE: [char; 7] = ['=', '"', '\'', '`', '(', '[', ','];

/// What ends one, beside white space.
const AFTER: [char; 9] = ['"', '\'', '`', ')', ']', ',', ':', ';', '}'];

/// Replaces the folders of all absolute paths but the system's, in everything that is text.
pub(crate) fn without_folders(mut results: Results) -> Results {
    for texts in [&mut results.machine, &mut results.versions, &mut results.commands, &mut results.missing] {
        shorten_all(texts);
    }
    results
}

fn shorten_all(texts: &mut BTreeMap<String, String>) {
    for text in texts.values_mut() {
        *text = shortened(text);
    }
}

fn shortened(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(slash) = rest.find('/') {
        let (before, from) = rest.split_at(slash);
        short += before;
        let begins = short.chars().next_back().is_none_or(|c| c.is_whitespace() || BEFORE.contains(&c));
        let end = from.find(|c: char| c.is_whitespace() || AFTER.contains(&c)).unwrap_or(from.len());
        let (path, after) = if begins { from.split_at(end) } else { from.split_at(1) };
        match path.rsplit_once('/') {
            Some((folder, name)) if !folder.is_empty() && !is_system(path) => {
                short += FOLDER;
                short.push('/');
                short += name;
            }
            Some(_) | None => short += path,
        }
        rest = after;
    }
    short + rest
}

fn is_system(path: &str) -> bool {
    SYSTEM.iter().any(|system| path.starts_with(system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_left_out_and_the_system_s_stay() {
        for (text, expected) in [
            ("/usr/sbin/haproxy -f /tmp/bench-a/client.cfg", "/usr/sbin/haproxy -f <folder>/client.cfg"),
            ("XDS=/tmp/a/z.yaml /tmp/b/ztunnel proxy", "XDS=<folder>/z.yaml <folder>/ztunnel proxy"),
            ("/home/me/bench run --out=/home/me/r.json", "<folder>/bench run --out=<folder>/r.json"),
            ("proxy: /tmp/a/mesh/client.yaml:4: no such", "proxy: <folder>/client.yaml:4: no such"),
            ("copy \"/home/me/envoy\", twice", "copy \"<folder>/envoy\", twice"),
            ("target/release/ringmail-bench run", "target/release/ringmail-bench run"),
            ("HAProxy - https://haproxy.org/", "HAProxy - https://haproxy.org/"),
            ("spiffe://cluster.local/ns/a/sa/b", "spiffe://cluster.local/ns/a/sa/b"),
            ("CPU-s/GB, 1/s, /, /tmp", "CPU-s/GB, 1/s, /, /tmp"),
            ("/proc/<pid>/task/*/schedstat", "/proc/<pid>/task/*/schedstat"),
        ] {
            assert_eq!(shortened(text), expected);
        }
    }
}
