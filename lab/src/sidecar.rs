//! What runs beside an application: `ringmail-init` once as root, then `ringmail-proxy` as the mesh's own user.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::ca::Ca;
use crate::cgroup::Cgroup;
use crate::http::{Response, get};
use crate::mesh::{MeshFiles, WORKLOAD_NAMESPACE, write_whole};
use crate::network::{IPV4_RANGE, IPV6_RANGE, Network, Pod};
use crate::process::{Child, Launch, Signal, is_over, wait_until};

/// The user and group of the proxy, whose own connections are not captured.
pub const PROXY_UID: u32 = 1337;
/// The admin port, on loopback.
pub const ADMIN_PORT: u16 = 15000;
/// Where captured outbound connections go.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where captured inbound connections go.
pub const INBOUND_PORT: u16 = 15006;
/// The readiness port.
pub const HEALTH_PORT: u16 = 15021;

/// Ready takes a certificate from the CA; on a loaded machine the first try may fail and be tried again after a pause.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// The proxy drains for 25 s by default before it ends on SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

/// For one question to the admin or health port.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// What a sidecar is told.
#[derive(Clone, Debug)]
pub struct SidecarSettings {
    /// The service account of its identity `spiffe://cluster.local/ns/ignite/sa/<service account>`.
    pub service_account: String,
    /// Further settings of the proxy, by key, each value written as YAML; they win over the lab's own.
    pub proxy: BTreeMap<String, String>,
    /// Further flags of `ringmail-init`.
    pub init_flags: Vec<String>,
    /// Variables of the proxy's environment.
    pub environment: BTreeMap<String, String>,
    /// The cgroup of the proxy's processes; none leaves the lab's own.
    pub cgroup: Option<Cgroup>,
    /// Descriptors that each of the proxy's processes may have open; none leaves the lab's limit.
    pub descriptors: Option<u32>,
}

/// The variable that has every sidecar run on the record layer of this name, as it has the proxy's own tests.
const RECORD_LAYER: &str = "RINGMAIL_RECORD_LAYER";

impl SidecarSettings {
    /// The defaults under this service account, on the record layer under test.
    pub fn new(service_account: &str) -> Self {
        let layer = std::env::var(RECORD_LAYER).map(|layer| ("record_layer".to_owned(), layer));
        Self {
            service_account: service_account.to_owned(),
            proxy: layer.into_iter().collect(),
            init_flags: Vec::new(),
            environment: BTreeMap::new(),
            cgroup: None,
            descriptors: None,
        }
    }

    /// The same with one more setting of the proxy.
    #[must_use]
    pub fn with(mut self, key: &str, yaml: &str) -> Self {
        self.proxy.insert(key.to_owned(), yaml.to_owned());
        self
    }
}

/// The sidecar of one pod. Dropping it kills the proxy; the rules end with the pod.
#[derive(Debug)]
pub struct Sidecar {
    pod: String,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    settings: BTreeMap<String, String>,
    told: SidecarSettings,
    proxy: Option<Child>,
}

impl Sidecar {
    /// Announces the pod in the mesh, gives it a token, puts its rules in place, and starts its proxy, without waiting: see
    /// [`Self::wait_ready`]. The proxy's log, with its access log, is `<folder>/<pod>-proxy.log`, which a restart continues.
    pub fn start(
        pod: &Pod,
        files: &MeshFiles,
        ca: &Ca,
        settings: &SidecarSettings,
        folder: &Path,
    ) -> Result<Self> {
        let token = files.grant_token(pod, &settings.service_account)?;
        make_state_folder(&state_folder(pod, files))?;
        files.announce(pod, &settings.service_account, true)?;
        let mut all = proxy_settings(pod, files, ca, &token);
        all.insert("service_account".to_owned(), settings.service_account.clone());
        all.extend(settings.proxy.clone());
        install_rules(pod, &files.program("ringmail-init"), &settings.init_flags)?;
        let mut sidecar = Self {
            pod: pod.name().to_owned(),
            program: files.program("ringmail-proxy"),
            config: files.file(&format!("{}.yaml", pod.name())),
            log: folder.join(format!("{}-proxy.log", pod.name())),
            settings: all,
            told: settings.clone(),
            proxy: None,
        };
        sidecar.write_config()?;
        sidecar.start_proxy(pod)?;
        Ok(sidecar)
    }

    /// Starts the proxy of a sidecar whose own has ended.
    pub fn start_proxy(&mut self, pod: &Pod) -> Result<()> {
        if let Some(running) = &mut self.proxy {
            ensure!(running.try_wait()?.is_some(), "the proxy of {} still runs", self.pod);
        }
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).envs(&self.told.environment);
        let launch = Launch::new(format!("proxy {}", self.pod), &self.log)
            .user(PROXY_UID)
            .confined(self.told.cgroup.clone(), self.told.descriptors);
        self.proxy = Some(pod.spawn(&mut command, &launch)?);
        Ok(())
    }

    /// Waits until the proxy says that it is ready; the error carries its reason or the tail of its log.
    pub fn wait_ready(&mut self, pod: &Pod) -> Result<()> {
        let what = format!("the proxy of {} is ready", self.pod);
        wait_until(READY_DEADLINE, &what, || {
            if let Some(status) = self.running()?.try_wait()? {
                return Ok(Some(Some(status)));
            }
            let answer = self.readiness(pod)?;
            ensure!(answer.status == 200, "it says {}: {}", answer.status, answer.body.trim_end());
            Ok(Some(None))
        })
        .and_then(|ended| match ended {
            None => Ok(()),
            Some(status) => bail!("the proxy of {} ended with {status}", self.pod),
        })
        .with_context(|| self.log_tail())
    }

    /// The name of its pod.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// What the readiness port says, asked on the pod's own address from inside, as nothing passes the bridge then.
    pub fn readiness(&self, pod: &Pod) -> Result<Response> {
        get(pod.namespace(), SocketAddr::new(pod.ip(), HEALTH_PORT), "/healthz/ready", ASK_DEADLINE)
    }

    /// Asks the admin port, which listens on loopback alone: `/stats/prometheus`, `/connections`, `/certs`, `/config_dump`.
    pub fn admin(&self, pod: &Pod, path: &str) -> Result<Response> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ADMIN_PORT);
        get(pod.namespace(), address, path, ASK_DEADLINE)
    }

    /// Changes a setting in the proxy's file; a running proxy applies those that need no restart.
    pub fn configure(&mut self, key: &str, yaml: &str) -> Result<()> {
        self.settings.insert(key.to_owned(), yaml.to_owned());
        self.write_config()
    }

    /// The process id of the proxy.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.proxy.as_ref().context("no proxy was started")?.pid())
    }

    /// The processes of the proxy beside its first: the data plane that the first one keeps alive.
    pub fn data_plane(&self) -> Result<Vec<u32>> {
        children_of(self.pid()?)
    }

    /// Whether the proxy runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.running()?.try_wait()?.is_none())
    }

    /// Sends a signal to all processes of the proxy, as stopping or killing a container does. The data plane is in a group of
    /// its own.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let data_plane = self.data_plane()?;
        self.proxy.as_ref().context("no proxy was started")?.signal_group(signal)?;
        for pid in data_plane {
            // It may have died with its parent.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
        Ok(())
    }

    /// Sends a signal to the data plane alone, which the first process stays to see.
    pub fn signal_data_plane(&self, signal: Signal) -> Result<()> {
        for pid in self.data_plane()? {
            kill(Pid::from_raw(pid.cast_signed()), signal).with_context(|| format!("{signal} to {pid}"))?;
        }
        Ok(())
    }

    /// SIGKILL to all processes of the proxy, and waits until they are gone.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        let data_plane = self.data_plane()?;
        self.signal(Signal::SIGKILL)?;
        let status = self.running()?.wait(STOP_DEADLINE)?;
        // A container is over with the last of its processes: until then its ports are taken.
        wait_until(STOP_DEADLINE, "the data plane has ended", || {
            Ok(data_plane.iter().all(|pid| is_over(*pid)).then_some(()))
        })?;
        Ok(status)
    }

    /// SIGTERM to the first process, as Kubernetes sends it, without waiting.
    pub fn begin_stop(&self) -> Result<()> {
        self.proxy.as_ref().context("no proxy was started")?.signal(Signal::SIGTERM)
    }

    /// Waits until the proxy has ended.
    pub fn wait_stopped(&mut self) -> Result<ExitStatus> {
        self.running()?.wait(STOP_DEADLINE)
    }

    /// What the proxy has printed, its access log among it.
    pub fn log_text(&self) -> String {
        self.proxy.as_ref().map(Child::log_text).unwrap_or_default()
    }

    /// Takes the pod's rules away and ends the proxy: the pod leaves the mesh.
    pub fn remove(mut self, pod: &Pod, files: &MeshFiles, service_account: &str) -> Result<()> {
        files.announce(pod, service_account, false)?;
        let init = files.program("ringmail-init");
        pod.namespace().run(&init.to_string_lossy(), &["--remove"]).context("remove the rules")?;
        self.begin_stop()?;
        self.wait_stopped().map(drop)
    }

    fn running(&mut self) -> Result<&mut Child> {
        self.proxy.as_mut().context("no proxy was started")
    }

    fn log_tail(&self) -> String {
        self.proxy.as_ref().map(Child::log_tail).unwrap_or_default()
    }

    fn write_config(&self) -> Result<()> {
        let mut text = String::new();
        for (key, value) in &self.settings {
            writeln!(text, "{key}: {value}")?;
        }
        write_whole(&self.config, &text)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Fails only when all of them have ended; the first process is waited for by its own handle.
        let _ = self.signal(Signal::SIGKILL);
    }
}

/// Starts a sidecar in each pod of these names, all under one service account, and waits until all are ready.
pub fn start_sidecars(
    network: &Network,
    names: &[&str],
    mesh: (&MeshFiles, &Ca),
    settings: &SidecarSettings,
    folder: &Path,
) -> Result<Vec<Sidecar>> {
    let (files, ca) = mesh;
    let mut sidecars = Vec::with_capacity(names.len());
    for name in names {
        sidecars.push(Sidecar::start(network.pod(name)?, files, ca, settings, folder)?);
    }
    for sidecar in &mut sidecars {
        let pod = network.pod(&sidecar.pod)?;
        sidecar.wait_ready(pod)?;
    }
    Ok(sidecars)
}

/// Puts the rules in place that lead a pod's traffic through a proxy, by the program at `init`. It need not be Ringmail's: any serves
/// that listens on [`OUTBOUND_PORT`] and [`INBOUND_PORT`] and runs as [`PROXY_UID`].
pub fn install_rules(pod: &Pod, init: &Path, flags: &[String]) -> Result<()> {
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let said = pod.namespace().run(&init.to_string_lossy(), &flags);
    said.map(drop).with_context(|| format!("put the rules of {} in place", pod.name()))
}

fn proxy_settings(pod: &Pod, files: &MeshFiles, ca: &Ca, token: &Path) -> BTreeMap<String, String> {
    let name = pod.name();
    BTreeMap::from(
        [
            ("namespace", WORKLOAD_NAMESPACE.to_owned()),
            ("pod_name", name.to_owned()),
            ("workload", name.to_owned()),
            ("labels", format!("{{app: {name}}}")),
            ("ca_address", format!("https://{}", ca.address())),
            ("ca_root_file", files.bundle_file().display().to_string()),
            ("token_file", token.display().to_string()),
            ("policy_dir", files.policies().display().to_string()),
            ("state_dir", state_folder(pod, files).display().to_string()),
            ("mesh_ranges", format!("['{IPV4_RANGE}', '{IPV6_RANGE}']")),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    )
}

/// What the proxy of a pod notes for its own next start, as an `emptyDir` would keep it.
fn state_folder(pod: &Pod, files: &MeshFiles) -> PathBuf {
    files.file(&format!("{}-state", pod.name()))
}

fn make_state_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .and_then(|()| chown(folder, Some(PROXY_UID), Some(PROXY_UID)))
        .with_context(|| format!("make {} and give it to the proxy's user", folder.display()))
}

/// The living children of a process, from the table of processes.
pub fn children_of(parent: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // One that has ended meanwhile is no child any more.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // The name in brackets may hold anything; after it come the state and the parent.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let state = fields.next();
        if state != Some("Z") && fields.next() == Some(parent.to_string().as_str()) {
            children.push(pid);
        }
    }
    Ok(children)
}
