//! What a run ran on: what a reader needs to judge its figures.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;
use ringmail_lab::network::Network;
use socket2::SockRef;

use crate::cost::Cgroup;

/// Two pods on one bridge reach each other at once.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The machine by name and value; what a kernel does not tell is left out.
pub(crate) fn machine() -> BTreeMap<String, String> {
    let cores = std::thread::available_parallelism().ok().map(|cores| cores.to_string());
    let facts = [
        ("processor", fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| field(&text, "model name"))),
        ("cores", cores),
        ("memory", fs::read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, "MemTotal"))),
        ("kernel", line("/proc/sys/kernel/osrelease")),
        ("congestion control", Some(congestion_control())),
        ("cgroup of version 2", Some(cgroups())),
        ("load before", line("/proc/loadavg")),
        ("network", Some("one bridge, a veth and a namespace for each pod".to_owned())),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// What the machine's CPUs have done since it started, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuTicks {
    all: u64,
    stolen: u64,
}

impl CpuTicks {
    /// Until now; none where the kernel does not say.
    pub(super) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // user, nice, system, idle, iowait, irq, softirq, steal: the guests' time that follows is in the first two already.
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> =
            line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { all: ticks.iter().sum(), stolen: *ticks.get(7)? })
    }

    /// The share of the time since `before`, in percent, in which the hypervisor ran others instead of this machine.
    pub(super) fn stolen_since(self, before: Self) -> f64 {
        100.0 * (self.stolen - before.stolen) as f64 / (self.all - before.all).max(1) as f64
    }
}

fn cgroups() -> String {
    match Cgroup::create() {
        Ok(cgroup) if cgroup.kernel_memory().is_some() => "CPU time and memory of the kernel".to_owned(),
        Ok(_) => "CPU time alone: the memory controller is not on".to_owned(),
        Err(error) => format!("none: {error:#}"),
    }
}

/// As a connection between two pods has it, whatever their routes ask for.
fn congestion_control() -> String {
    let own = line("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_else(|| "unknown".to_owned());
    match congestion_between_pods() {
        Ok(between) => format!("{between} between the pods, the machine's own is {own}"),
        Err(error) => format!("unknown between the pods ({error:#}), the machine's own is {own}"),
    }
}

fn congestion_between_pods() -> Result<String> {
    let network = Network::create(&["a", "b"])?;
    let (a, b) = (network.pod("a")?, network.pod("b")?);
    let listener = b.namespace().enter(|| TcpListener::bind((b.ip(), 0)))??;
    let address = listener.local_addr()?;
    let connection = a.namespace().enter(|| TcpStream::connect_timeout(&address, CONNECT_DEADLINE))??;
    let name = SockRef::from(&connection).tcp_congestion()?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

fn line(file: &str) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hypervisor_took_is_told_in_percent() {
        let before = CpuTicks::parse("cpu  10 0 10 80 0 0 0 0 5 0\ncpu0 1\n").unwrap();
        let after = CpuTicks::parse("cpu  20 0 20 150 0 0 0 10 9 0\n").unwrap();
        assert_eq!(after.stolen_since(before), 10.0);
        assert_eq!(before.stolen_since(before), 0.0);
        assert_eq!(CpuTicks::parse("intr 1"), None);
        assert!(CpuTicks::now().is_some());
    }

    #[test]
    fn a_field_of_the_kernel_s_tables_is_found() {
        assert_eq!(field("a: 1\nmodel name\t: EPYC 9\n", "model name"), Some("EPYC 9".to_owned()));
        assert_eq!(field("a: 1\n", "model name"), None);
        assert!(machine().contains_key("kernel"));
    }

    #[test]
    fn the_congestion_control_is_that_of_a_connection_between_pods() {
        assert_eq!(congestion_between_pods().unwrap(), "cubic");
    }
}
