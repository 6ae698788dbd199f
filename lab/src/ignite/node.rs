//! One server node: started in a pod, asked for its own view, ended in every way a node ends.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};

use super::event::{Event, EventKind, field, number};
use super::fetch::Installation;
use super::jvm::{Jvm, JvmStart};
use super::keystores::KeyStores;
use crate::network::Pod;
use crate::process::{Signal, wait_until};

/// A node on loaded cores was seen to need half a minute; four times that is a failure, not patience.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// A view is read from memory; a node that needs longer is stopped or stuck.
const VIEW_DEADLINE: Duration = Duration::from_secs(10);

/// A stop in order waits for nothing here: no persistence, no graceful policy.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// What a node is told; all else are Ignite's defaults.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The discovery address list, without ports.
    pub addresses: Vec<IpAddr>,
    /// Binds every address, as Ignite does when it is told nothing, instead of the pod's alone.
    pub bind_all: bool,
    /// Further flags of the JVM, such as `-DIGNITE_...`.
    pub jvm_flags: Vec<String>,
    /// The most that its data may take, in MiB; none leaves the lab's own.
    pub region_mib: Option<u32>,
    /// Ignite's own TLS on discovery, communication and thin clients.
    pub tls: Option<KeyStores>,
}

impl NodeSettings {
    /// A node that binds its pod's address and knows these pods.
    pub fn new<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Self {
        let addresses = pods.into_iter().map(Pod::ip).collect();
        Self { addresses, bind_all: false, jvm_flags: Vec::new(), region_mib: None, tls: None }
    }
}

/// What one node thinks of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The consistent ids of the servers, sorted: the names of their pods.
    pub servers: Vec<String>,
    /// The topology version.
    pub version: u64,
    /// The consistent id of the coordinator.
    pub coordinator: String,
}

impl View {
    fn parse(answer: &str) -> Result<Self> {
        Ok(Self {
            servers: field(answer, "servers")?.split(',').map(str::to_owned).collect(),
            version: number(answer, "version")?,
            coordinator: field(answer, "coordinator")?.to_owned(),
        })
    }
}

/// The share of a cache that a node was given when it joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Keys that it holds, as primary and as backup.
    pub entries: u64,
    /// From its first demand for a partition until it held the last.
    pub took: Duration,
}

impl Moved {
    fn parse(answer: &str) -> Result<Option<Self>> {
        let moment = |key| -> Result<Option<u64>> {
            let value = field(answer, key)?;
            if value == "-1" { Ok(None) } else { number(answer, key).map(Some) }
        };
        let entries = number(answer, "entries")?;
        Ok(match (moment("start_ms")?, moment("end_ms")?) {
            (Some(start), Some(end)) if end >= start => {
                Some(Self { entries, took: Duration::from_millis(end - start) })
            }
            (Some(_) | None, Some(_) | None) => None,
        })
    }
}

/// A server node in a JVM of its own, called after its pod. Dropping it kills it.
#[derive(Debug)]
pub struct IgniteNode {
    name: String,
    ip: IpAddr,
    jvm: Jvm,
}

impl IgniteNode {
    /// Starts the JVM and returns at once; [`Self::wait_started`] waits for the ring. Its log is `<folder>/<pod>.log`, which a
    /// restart continues; its work directory is made anew.
    pub fn start(
        installation: &Installation,
        pod: &Pod,
        settings: &NodeSettings,
        folder: &Path,
    ) -> Result<Self> {
        let work = folder.join(format!("{}-work", pod.name()));
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| format!("empty {}", work.display()))?;
        }
        let addresses: Vec<_> = settings.addresses.iter().map(IpAddr::to_string).collect();
        let mut arguments = vec![
            format!("name={}", pod.name()),
            format!("addresses={}", addresses.join(",")),
            format!("work={}", work.display()),
        ];
        arguments.extend(settings.region_mib.map(|mib| format!("region_mib={mib}")));
        arguments.extend(settings.tls.iter().flat_map(KeyStores::arguments));
        let mut flags = settings.jvm_flags.clone();
        flags.push("-Djava.net.preferIPv4Stack=true".to_owned());
        if settings.bind_all {
            flags.push("-DIGNITE_JETTY_HOST=0.0.0.0".to_owned());
        } else {
            arguments.push(format!("host={}", pod.ip()));
        }
        let log = folder.join(format!("{}.log", pod.name()));
        let jvm = Jvm::start(pod, &JvmStart { installation, program: "Node", flags, arguments, log })?;
        Ok(Self { name: pod.name().to_owned(), ip: pod.ip(), jvm })
    }

    /// Its consistent id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pod's address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.jvm.pid()
    }

    /// Waits until it is part of a ring, of whatever size; the error says why it is not.
    pub fn wait_started(&self) -> Result<Event> {
        self.jvm.wait_started(START_DEADLINE)
    }

    /// Waits until it sees so many servers, and returns that view.
    pub fn wait_joined(&self, servers: usize, deadline: Duration) -> Result<View> {
        self.wait_started()?;
        let what = format!("{} sees {servers} servers", self.name);
        wait_until(deadline, &what, || {
            let view = self.view()?;
            anyhow::ensure!(view.servers.len() == servers, "it sees {view:?}");
            Ok(Some(view))
        })
    }

    /// What it thinks of the ring now.
    pub fn view(&self) -> Result<View> {
        let answer = self.jvm.ask("view", VIEW_DEADLINE)?;
        View::parse(&answer).with_context(|| format!("view of {}", self.name))
    }

    /// Whether it holds every partition that the ring as it is now wants it to hold.
    pub fn is_rebalanced(&self) -> Result<bool> {
        Ok(self.jvm.ask("rebalanced", VIEW_DEADLINE)?.trim() == "true")
    }

    /// What it holds of a cache, and how long its share took to be moved to it; none while it is not there yet.
    pub fn moved(&self, cache: &str) -> Result<Option<Moved>> {
        Moved::parse(&self.jvm.ask(&format!("moved cache={cache}"), VIEW_DEADLINE)?)
    }

    /// Everything it has reported so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.jvm.events()
    }

    /// Waits for an event, which may have happened before.
    pub fn wait_event(
        &self,
        deadline: Duration,
        what: &str,
        wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Event> {
        self.jvm.wait_event(deadline, what, wanted)
    }

    /// Waits until it reports that `node` has failed.
    pub fn wait_failed(&self, node: &str, deadline: Duration) -> Result<Event> {
        let what = format!("{} reports that {node} failed", self.name);
        self.wait_event(
            deadline,
            &what,
            |event| matches!(&event.kind, EventKind::Failed { node: failed, .. } if failed == node),
        )
    }

    /// Whether it has found itself outside the ring.
    pub fn is_segmented(&self) -> bool {
        self.events().iter().any(|event| matches!(event.kind, EventKind::Segmented { .. }))
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> Result<bool> {
        self.jvm.is_running()
    }

    /// Sends a signal to its process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.jvm.signal(signal)
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.jvm.kill9()
    }

    /// SIGTERM, as Kubernetes sends it, and waits until the process is gone.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.jvm.signal(Signal::SIGTERM)?;
        self.jvm.wait(STOP_DEADLINE)
    }

    /// Waits until the process ends by itself. A segmented node ends with code 130: Ignite's own failure handler halts it.
    pub fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.jvm.wait(deadline)
    }

    /// The log of Ignite.
    pub fn log_text(&self) -> String {
        self.jvm.log_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_moved_when_both_moments_are_known() {
        for (answer, expected) in [
            ("entries=9 start_ms=100 end_ms=350", Some((9, 250))),
            ("entries=9 start_ms=100 end_ms=-1", None),
            ("entries=0 start_ms=-1 end_ms=-1", None),
        ] {
            let expected =
                expected.map(|(entries, millis)| Moved { entries, took: Duration::from_millis(millis) });
            assert_eq!(Moved::parse(answer).unwrap(), expected, "{answer}");
        }
        assert!(Moved::parse("entries=9 start_ms=x end_ms=1").is_err());
    }

    #[test]
    fn a_view_is_read_whole_or_not_at_all() {
        let view = View::parse("version=3 coordinator=n1 servers=n1,n2").unwrap();
        assert_eq!(
            view,
            View { servers: vec!["n1".into(), "n2".into()], version: 3, coordinator: "n1".into() }
        );
        assert!(View::parse("version=3 servers=n1").unwrap_err().to_string().contains("coordinator"));
    }
}
