//! What a JVM of the lab reports by itself, stamped with its clock, which is the lab's own: they run on one machine.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds since the Unix epoch, comparable with [`now_ms`].
    pub at_ms: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened. `node` is the consistent id of the node that it happened to: the name of its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A node joined; the ring has this version since.
    Joined {
        /// Who joined.
        node: String,
        /// The topology version after it.
        version: u64,
    },
    /// A node said goodbye.
    Left {
        /// Who left.
        node: String,
        /// The topology version after it.
        version: u64,
    },
    /// A node was thrown out or vanished.
    Failed {
        /// Who failed.
        node: String,
        /// The topology version after it.
        version: u64,
    },
    /// This node found that the ring goes on without it.
    Segmented {
        /// The node itself.
        node: String,
        /// The topology version it saw last.
        version: u64,
    },
    /// The node is part of a ring, or the load's client can be asked.
    Started,
    /// The node could not start; the innermost reason.
    StartFailed(String),
    /// Ignite's own state of the instance: `STARTED`, `STOPPED`, `STOPPED_ON_SEGMENTATION`.
    State(String),
    /// A second of load has passed; the fields of its progress.
    Load(String),
    /// A line that this reader does not know.
    Unknown(String),
}

impl Event {
    /// Reads `EVENT <ms> <name> <rest>`.
    pub(super) fn parse(line: &str) -> Self {
        Self::parse_known(line)
            .unwrap_or_else(|_| Self { at_ms: now_ms(), kind: EventKind::Unknown(line.to_owned()) })
    }

    fn parse_known(line: &str) -> Result<Self> {
        let rest = line.strip_prefix("EVENT ").context("no EVENT")?;
        let (at, rest) = rest.split_once(' ').context("no time")?;
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let kind = match name {
            "STARTED" => EventKind::Started,
            "START_FAILED" => EventKind::StartFailed(rest.to_owned()),
            "STATE" => EventKind::State(rest.to_owned()),
            "LOAD" => EventKind::Load(rest.to_owned()),
            _ => membership(name, rest)?,
        };
        Ok(Self { at_ms: at.parse()?, kind })
    }
}

fn membership(name: &str, rest: &str) -> Result<EventKind> {
    let (node, version) = rest.rsplit_once(' ').context("no version")?;
    let (node, version) = (node.to_owned(), version.parse()?);
    Ok(match name {
        "NODE_JOINED" => EventKind::Joined { node, version },
        "NODE_LEFT" => EventKind::Left { node, version },
        "NODE_FAILED" => EventKind::Failed { node, version },
        "NODE_SEGMENTED" => EventKind::Segmented { node, version },
        other => anyhow::bail!("unknown event {other}"),
    })
}

/// The wall clock in milliseconds since the Unix epoch: what the events of the JVMs are stamped with.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The value of `key=` among fields separated by blanks.
pub(super) fn field<'a>(fields: &'a str, key: &str) -> Result<&'a str> {
    fields
        .split(' ')
        .find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
        .with_context(|| format!("no field {key} in {fields:?}"))
}

/// The same as a number.
pub(super) fn number(fields: &str, key: &str) -> Result<u64> {
    let value = field(fields, key)?;
    value.parse().with_context(|| format!("field {key}={value:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_what_is_unknown_is_kept() {
        let node = || "n2".to_owned();
        for (line, expected) in [
            ("EVENT 7 NODE_JOINED n2 3", EventKind::Joined { node: node(), version: 3 }),
            ("EVENT 7 NODE_FAILED n2 4", EventKind::Failed { node: node(), version: 4 }),
            ("EVENT 7 NODE_LEFT n2 4", EventKind::Left { node: node(), version: 4 }),
            ("EVENT 7 NODE_SEGMENTED n2 4", EventKind::Segmented { node: node(), version: 4 }),
            ("EVENT 7 STARTED 00-11", EventKind::Started),
            ("EVENT 7 START_FAILED a: b", EventKind::StartFailed("a: b".into())),
            ("EVENT 7 STATE STOPPED_ON_SEGMENTATION", EventKind::State("STOPPED_ON_SEGMENTATION".into())),
        ] {
            assert_eq!(Event::parse(line), Event { at_ms: 7, kind: expected }, "{line}");
        }
        for line in ["EVENT x STARTED", "hello", "EVENT 7 NODE_FAILED n2", "EVENT 7 OTHER n2 4"] {
            assert_eq!(Event::parse(line).kind, EventKind::Unknown(line.into()));
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let fields = "slowest_us=12 operations=5";
        assert_eq!(number(fields, "operations").unwrap(), 5);
        assert!(field(fields, "slowest").is_err());
        assert!(number("operations=x", "operations").unwrap_err().to_string().contains("is no number"));
    }
}
