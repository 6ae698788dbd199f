//! Load through a real Java thin client, with values that tell whether they are what was put.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::event::{Event, EventKind, field, number};
use super::fetch::Installation;
use super::jvm::{Jvm, JvmStart};
use super::keystores::KeyStores;
use crate::network::Pod;

/// The client itself starts in about a second; see the same deadline of a node.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Filling and reading back the largest sets of the tests takes seconds; a hung operation must still be told from a slow one.
const WORK_DEADLINE: Duration = Duration::from_secs(180);

/// Longer than Ignite needs to give up a dead node, so that an operation fails by Ignite's decision and not by ours.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How a cache keeps its promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomicity {
    /// One key at a time.
    Atomic,
    /// Two-phase commit between the nodes.
    Transactional,
}

/// What came back of the keys that were put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Keys with the value that was put.
    pub found: u64,
    /// Keys that are gone, or older than an acknowledged put.
    pub lost: u64,
    /// Keys whose value is not what was put.
    pub corrupt: u64,
}

impl Verified {
    /// Reads the answer of `verify` and `check`.
    pub fn parse(answer: &str) -> Result<Self> {
        let (found, lost) = (number(answer, "found")?, number(answer, "lost")?);
        Ok(Self { found, lost, corrupt: number(answer, "corrupt")? })
    }
}

/// The continuous load so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Puts and gets that were answered.
    pub operations: u64,
    /// Those that failed.
    pub errors: u64,
    /// Gets that showed less than an acknowledged put.
    pub stale: u64,
    /// The slowest put and get together since the last [`ThinLoad::mark`].
    pub slowest: Duration,
    /// The first error, with `_` for blanks, or `none`.
    pub first_error: String,
    /// The first stale get, or `none`: its key, the version that was acknowledged, what was shown, and after what time the
    /// acknowledged version was.
    pub first_stale: String,
}

impl Progress {
    /// Reads the answer of `progress`, `mark` and `halt`.
    pub fn parse(answer: &str) -> Result<Self> {
        Ok(Self {
            operations: number(answer, "operations")?,
            errors: number(answer, "errors")?,
            stale: number(answer, "stale")?,
            slowest: Duration::from_micros(number(answer, "slowest_us")?),
            first_error: field(answer, "first_error")?.to_owned(),
            first_stale: field(answer, "first_stale")?.to_owned(),
        })
    }
}

/// One large value, put and read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BigValue {
    /// Whether every byte came back.
    pub equal: bool,
    /// How long the put took.
    pub put: Duration,
    /// How long the get took.
    pub get: Duration,
}

/// The shape of a continuous load.
#[derive(Clone, Copy, Debug)]
pub struct LoadShape {
    /// Threads, each with keys of its own.
    pub threads: u32,
    /// Keys per thread.
    pub keys: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
}

impl Default for LoadShape {
    /// Enough to keep every connection of a small ring busy without taking a machine of two cores for itself.
    fn default() -> Self {
        Self { threads: 2, keys: 200, value_bytes: 1024 }
    }
}

/// A thin client in a JVM and a pod of its own. Dropping it kills it.
#[derive(Debug)]
pub struct ThinLoad {
    jvm: Jvm,
}

impl ThinLoad {
    /// Starts the client's JVM; its log is `<folder>/<pod>-load.log`.
    pub fn start(installation: &Installation, pod: &Pod, folder: &Path) -> Result<Self> {
        Self::start_with(installation, pod, &[], folder)
    }

    /// The same with further flags of the JVM, which win over the lab's own.
    pub fn start_with(
        installation: &Installation,
        pod: &Pod,
        jvm_flags: &[String],
        folder: &Path,
    ) -> Result<Self> {
        let mut flags = vec!["-Djava.net.preferIPv4Stack=true".to_owned()];
        flags.extend_from_slice(jvm_flags);
        let start = JvmStart {
            installation,
            program: "Load",
            flags,
            arguments: Vec::new(),
            log: folder.join(format!("{}-load.log", pod.name())),
        };
        let jvm = Jvm::start(pod, &start)?;
        jvm.wait_started(START_DEADLINE)?;
        Ok(Self { jvm })
    }

    /// Connects, or connects anew, to these addresses. With `aware` the client dials every node it learns of and sends each key
    /// to the node that holds it.
    pub fn connect(&self, addresses: &[SocketAddr], aware: bool) -> Result<()> {
        self.connect_over(addresses, aware, None)
    }

    /// The same by Ignite's own TLS, where there are key stores for it.
    pub fn connect_over(&self, addresses: &[SocketAddr], aware: bool, tls: Option<&KeyStores>) -> Result<()> {
        let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        let timeout = REQUEST_TIMEOUT.as_millis();
        let mut request =
            format!("connect addresses={} timeout={timeout} aware={aware}", addresses.join(","));
        for argument in tls.map(KeyStores::arguments).unwrap_or_default() {
            request.push(' ');
            request.push_str(&argument);
        }
        self.ask(&request).map(drop)
    }

    /// Makes a cache, unless it is there, that writes to the primary and all backups before it answers.
    pub fn create_cache(&self, cache: &str, backups: u32, atomicity: Atomicity) -> Result<()> {
        let mode = match atomicity {
            Atomicity::Atomic => "ATOMIC",
            Atomicity::Transactional => "TRANSACTIONAL",
        };
        self.ask(&format!("create cache={cache} backups={backups} mode={mode}")).map(drop)
    }

    /// Puts the keys from 0 to `count`, each with `value_bytes` bytes.
    pub fn fill(&self, cache: &str, count: u64, value_bytes: u32) -> Result<()> {
        self.ask(&format!("fill cache={cache} from=0 count={count} bytes={value_bytes}")).map(drop)
    }

    /// Reads the keys from 0 to `count` back.
    pub fn verify(&self, cache: &str, count: u64) -> Result<Verified> {
        Verified::parse(&self.ask(&format!("verify cache={cache} from=0 count={count}"))?)
    }

    /// Puts one value of `bytes` bytes, reads it back and removes it.
    pub fn big_value(&self, cache: &str, bytes: u32) -> Result<BigValue> {
        let answer = self.ask(&format!("big cache={cache} bytes={bytes}"))?;
        let millis = |key| number(&answer, key).map(Duration::from_millis);
        Ok(BigValue {
            equal: field(&answer, "equal")? == "true",
            put: millis("put_ms")?,
            get: millis("get_ms")?,
        })
    }

    /// Starts the continuous load, on keys that [`Self::fill`] does not touch.
    pub fn run(&self, cache: &str, shape: LoadShape) -> Result<()> {
        let LoadShape { threads, keys, value_bytes } = shape;
        self.ask(&format!("run cache={cache} threads={threads} keys={keys} bytes={value_bytes}")).map(drop)
    }

    /// What the continuous load has done so far.
    pub fn progress(&self) -> Result<Progress> {
        Progress::parse(&self.ask("progress")?)
    }

    /// The same, and the slowest operation is counted anew from here.
    pub fn mark(&self) -> Result<Progress> {
        Progress::parse(&self.ask("mark")?)
    }

    /// Ends the continuous load after the operations under way.
    pub fn halt(&self) -> Result<Progress> {
        Progress::parse(&self.ask("halt")?)
    }

    /// After [`Self::halt`]: compares every key of the continuous load with what was acknowledged.
    pub fn check(&self) -> Result<Verified> {
        Verified::parse(&self.ask("check")?)
    }

    /// How many servers the client sees.
    pub fn servers(&self) -> Result<u64> {
        let answer = self.ask("nodes")?;
        answer.parse().with_context(|| format!("{answer:?} is no number of servers"))
    }

    /// The progress of every second so far, with the wall clock in milliseconds.
    pub fn seconds(&self) -> Result<Vec<(u64, Progress)>> {
        let mut seconds = Vec::new();
        for event in self.events() {
            if let EventKind::Load(fields) = &event.kind {
                seconds.push((event.at_ms, Progress::parse(fields)?));
            }
        }
        Ok(seconds)
    }

    /// Everything the client has reported so far.
    pub fn events(&self) -> Vec<Event> {
        self.jvm.events()
    }

    /// What the client has logged.
    pub fn log_text(&self) -> String {
        self.jvm.log_text()
    }

    pub(super) fn ask(&self, request: &str) -> Result<String> {
        self.ask_for(request, Duration::ZERO)
    }

    /// Asks for something that goes on for this long by itself.
    pub(super) fn ask_for(&self, request: &str, time: Duration) -> Result<String> {
        self.jvm.ask(request, time + WORK_DEADLINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_with_its_first_error_and_its_first_stale_get() {
        let answer = "operations=10 errors=1 stale=1 slowest_us=1500 first_error=a:_b first_stale=7:2:1:shown_after_3_ms";
        let progress = Progress::parse(answer).unwrap();
        assert_eq!((progress.operations, progress.errors), (10, 1));
        assert_eq!(progress.slowest, Duration::from_micros(1500));
        assert_eq!((&*progress.first_error, &*progress.first_stale), ("a:_b", "7:2:1:shown_after_3_ms"));
        assert!(Progress::parse("operations=10").is_err());
    }
}
