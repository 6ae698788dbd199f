//! A place: the pods of one candidate, its proxies, and the load's server, all its own, so that no candidate finds
//! the connections, the ports or the remembered flows of another.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ringmail_lab::network::{Network, Pod};
use ringmail_lab::pcap::Capture;
use ringmail_lab::process::{Child, Launch, wait_until};
use ringmail_lab::sidecar::{Sidecar, children_of};
use ringmail_lab::wire;
use tempfile::TempDir;

use super::choice::{TlsChoice, check, is_full};
use super::held::{Held, LOAD_GRACE, last_line};
use super::start::{Ground, Started, start};
use super::{Candidate, Programs, Setup, open_folder};
use crate::cost::{Cgroup, CpuClock, Memory, memory_of};
use crate::load::{LISTENING, Measured, Shape, ports};

/// The pod that the load comes from.
pub const CLIENT: &str = "client";
/// The pod that the load goes to.
pub const SERVER: &str = "server";
/// The pod of what proxies need beside them, which has no proxy itself.
pub const AUTHORITY: &str = "ca";

/// A control plane that answers, certificates that are issued, filters that are compiled.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// Connections of the check beside those that waiting for readiness has made: the last ones could resume.
const CHECKED_CONNECTIONS: usize = 3;

/// Settings of the pods' network that keep 28,000 ports and two minutes of memory for closed connections from being
/// what is measured. Those that a kernel does not have, or a container may not write, stay.
const NETWORK_SETTINGS: [(&str, &str); 4] = [
    ("/proc/sys/net/ipv4/ip_local_port_range", "10240 65535"),
    ("/proc/sys/net/ipv4/tcp_tw_reuse", "1"),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1"),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", "1"),
];

/// The place of one candidate. Dropping it ends and removes everything in it.
pub struct Place {
    started: Started,
    server: Child,
    network: Network,
    cgroup: Option<Cgroup>,
    folder: TempDir,
    bench: PathBuf,
    setup: Setup,
    tls: Option<TlsChoice>,
}

impl Place {
    /// Sets a candidate up and checks that what passes between its pods is what its name says. `programs` must be where
    /// every user reaches them: [`Programs::copied_to`].
    pub fn prepare(setup: Setup, programs: &Programs) -> Result<Self> {
        let name = setup.candidate.name();
        let folder = open_folder()?;
        let network = Network::create(&[CLIENT, SERVER, AUTHORITY])?;
        for pod in network.pods() {
            pod.namespace().enter(apply_network_settings)?;
        }
        let server = start_server(&network, &programs.bench, folder.path())?;
        let capture = Capture::start(&network)?;
        let ground = Ground { network: &network, folder: folder.path(), programs, setup };
        let started = start(&ground).with_context(|| format!("start {name}"))?;
        let bench = programs.bench.clone();
        let mut place = Self { started, server, network, cgroup: None, folder, bench, setup, tls: None };
        place.wait_ready().map_err(|error| anyhow!("{error:#}{}", place.last_words()))?;
        place.tls = place.checked(capture).with_context(|| format!("check {name}"))?;
        if setup.candidate != Candidate::Plain {
            place.enter_cgroup()?;
        }
        Ok(place)
    }

    /// How it is set up.
    pub fn setup(&self) -> Setup {
        self.setup
    }

    /// What its proxies agreed on, where there is TLS.
    pub fn tls(&self) -> Option<&TlsChoice> {
        self.tls.as_ref()
    }

    /// The commands of its processes.
    pub fn commands(&self) -> &[String] {
        &self.started.commands
    }

    /// Where the CPU time of both proxies is read; none without proxies.
    pub fn cpu_clock(&self) -> Result<Option<CpuClock>> {
        if self.setup.candidate == Candidate::Plain {
            return Ok(None);
        }
        Ok(Some(match &self.cgroup {
            Some(cgroup) => CpuClock::Cgroup(cgroup.folder().to_owned()),
            None => CpuClock::Processes(self.proxies()?.concat()),
        }))
    }

    /// The cgroup of its proxies, where the machine lets one be made.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// One of its pods: [`CLIENT`], [`SERVER`] or [`AUTHORITY`].
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.network.pod(name)
    }

    /// Ringmail's sidecar in the pod of this name.
    pub fn sidecar(&self, pod: &str) -> Result<&Sidecar> {
        let found = self.started.sidecars.iter().find(|sidecar| sidecar.pod() == pod);
        found.with_context(|| format!("no sidecar of Ringmail's in {pod}"))
    }

    /// The memory of both proxies.
    pub fn memory(&self) -> Result<Memory> {
        let each = self.proxies()?.iter().map(|pids| memory_of(pids)).collect::<Result<Vec<_>>>()?;
        Ok(each.into_iter().fold(Memory::default(), |sum, one| sum + one))
    }

    /// The processes of each proxy.
    pub fn proxies(&self) -> Result<Vec<Vec<u32>>> {
        let mut all = Vec::new();
        for pid in self.started.proxies.iter().map(Child::pid) {
            all.push(with_descendants(pid)?);
        }
        for sidecar in &self.started.sidecars {
            all.push(with_descendants(sidecar.pid()?)?);
        }
        Ok(all)
    }

    /// Puts a load on it and waits for its end.
    pub fn load(&self, shape: &Shape, warm_up: Duration, measure: Duration) -> Result<Measured> {
        let mut child = self.start_load(shape, warm_up, measure)?;
        let (stdin, mut stdout) = child.take_pipes()?;
        drop(stdin);
        let status = child.wait(warm_up + measure + LOAD_GRACE)?;
        let mut printed = String::new();
        stdout.read_to_string(&mut printed).context("read what the load printed")?;
        ensure!(
            status.success(),
            "{}",
            last_line(&child.log_text()).unwrap_or("the load ended without a word")
        );
        Measured::parse(&printed)
    }

    /// Starts a load that stays until it is told to go on, and waits until it is there.
    pub fn hold(&self, shape: &Shape) -> Result<Held> {
        Held::begin(self.start_load(shape, Duration::ZERO, Duration::ZERO)?)
    }

    fn start_load(&self, shape: &Shape, warm_up: Duration, measure: Duration) -> Result<Child> {
        let client = self.network.pod(CLIENT)?;
        let mut command = Command::new(&self.bench);
        command.args(["load", "run", "--to", &self.network.pod(SERVER)?.ip().to_string()]);
        command.args(["--warm-up-ms", &warm_up.as_millis().to_string()]);
        command.args(["--measure-ms", &measure.as_millis().to_string()]);
        if let Some(clock) = self.cpu_clock()? {
            command.args(["--cpu", &clock.to_string()]);
        }
        command.args(shape.words());
        client.spawn(&mut command, &Launch::new("the load", self.folder.path().join("load.log")).piped())
    }

    /// Waits until a byte goes through and comes back.
    fn wait_ready(&mut self) -> Result<()> {
        for sidecar in &mut self.started.sidecars {
            sidecar.wait_ready(self.network.pod(sidecar.pod())?)?;
        }
        let mut ended = None;
        wait_until(READY_DEADLINE, "a byte comes back", || {
            for child in self.started.proxies.iter_mut().chain([&mut self.server]) {
                if let Some(status) = child.try_wait()? {
                    ended = Some(format!("{} ended with {status}", child.name()));
                    return Ok(Some(()));
                }
            }
            exchange(&self.network).map(Some)
        })?;
        ended.map_or(Ok(()), |ended| bail!(ended))
    }

    fn checked(&self, capture: Capture) -> Result<Option<TlsChoice>> {
        for _ in 0..CHECKED_CONNECTIONS {
            exchange(&self.network)?;
        }
        let (client, server) = (self.network.pod(CLIENT)?.ip(), self.network.pod(SERVER)?.ip());
        let mut conversations = capture.finish()?.conversations();
        // Attempts before the proxies were there carried nothing.
        conversations.retain(|one| {
            one.client.ip() == client && one.server.ip() == server && !one.to_server.bytes.is_empty()
        });
        let tls = check(&conversations, self.setup.candidate.wire())?;
        if let (Some(tls), Some(exchange)) = (&tls, self.setup.exchange) {
            is_full(tls, exchange)?;
        }
        Ok(tls)
    }

    fn enter_cgroup(&mut self) -> Result<()> {
        // Without one the scheduler's numbers serve: the run says which.
        if let Ok(cgroup) = Cgroup::create() {
            cgroup.join(&self.proxies()?.concat())?;
            self.cgroup = Some(cgroup);
        }
        Ok(())
    }

    /// What its processes said last, of those that said anything.
    fn last_words(&self) -> String {
        let mut words = String::new();
        for child in self.started.proxies.iter().chain(&self.started.helpers) {
            if let Some(line) = last_line(&child.log_text()) {
                words += &format!("; {} said: {line}", child.name());
            }
        }
        words
    }
}

fn start_server(network: &Network, bench: &Path, folder: &Path) -> Result<Child> {
    let mut command = Command::new(bench);
    command.args(["load", "serve"]);
    let mut server =
        network.pod(SERVER)?.spawn(&mut command, &Launch::new("load server", folder.join("server.log")))?;
    wait_until(READY_DEADLINE, "the load's server listens", || {
        if let Some(status) = server.try_wait()? {
            bail!("it ended with {status}: {}", server.log_tail());
        }
        Ok(server.log_text().contains(LISTENING).then_some(()))
    })?;
    Ok(server)
}

/// One byte there and back on a connection of its own.
fn exchange(network: &Network) -> Result<()> {
    let address = SocketAddr::new(network.pod(SERVER)?.ip(), ports::ECHO[0].0);
    wire::exchange(network.pod(CLIENT)?.namespace(), address, &[0], 1).map(drop)
}

fn apply_network_settings() {
    for (path, value) in NETWORK_SETTINGS {
        // One that cannot be written is one of a container, and costs only that many connections wait longer.
        let _ = std::fs::write(path, value);
    }
}

fn with_descendants(pid: u32) -> Result<Vec<u32>> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(parent) = all.get(next) {
        all.extend(children_of(*parent)?);
        next += 1;
    }
    Ok(all)
}
