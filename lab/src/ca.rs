//! `ringmail-ca` in a pod of its own, with a root that it makes, and tokens from the mesh's files.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::http::{Response, get};
use crate::mesh::MeshFiles;
use crate::network::{Network, Pod};
use crate::process::{Child, Launch, Signal, wait_until};

/// Where certificates are asked for.
pub const CA_PORT: u16 = 15012;

/// Where metrics and readiness are served.
const METRICS_PORT: u16 = 15014;

/// A root is made and a port bound within milliseconds, on a loaded machine within seconds.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// For one question to the health port.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// Where the CA has its signing key from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SigningKey {
    /// A root of its own, made when it first starts.
    #[default]
    OwnRoot,
    /// What others put into [`MeshFiles::ca_mount`], with the roots of [`MeshFiles::extra_roots`] trusted too.
    Mounted,
}

/// What a CA is told.
#[derive(Clone, Debug, Default)]
pub struct CaSettings {
    /// Its signing key.
    pub key: SigningKey,
    /// Further flags (`--ttl 60s`).
    pub flags: Vec<&'static str>,
}

/// A running CA. Dropping it kills it.
#[derive(Debug)]
pub struct Ca {
    pod: String,
    address: SocketAddr,
    child: Child,
}

impl Ca {
    /// Starts it in the pod of this name and waits until it is ready. Its log is `<folder>/<pod>.log`, which a restart
    /// continues; its root is kept in the mesh's files.
    pub fn start(
        network: &Network,
        pod: &str,
        files: &MeshFiles,
        settings: &CaSettings,
        folder: &Path,
    ) -> Result<Self> {
        let home = network.pod(pod)?;
        let mut command = Command::new(files.program("ringmail-ca"));
        match settings.key {
            SigningKey::OwnRoot => command.arg("--state-dir").arg(files.ca_state()),
            SigningKey::Mounted => {
                command.arg("--ca-dir").arg(files.ca_mount()).arg("--extra-roots").arg(files.extra_roots())
            }
        };
        command
            .arg("--static-tokens")
            .arg(files.tokens_file())
            .arg("--bundle-out")
            .arg(files.bundle_file())
            .args(["--serving-name", &home.ip().to_string()])
            .args(&settings.flags);
        let launch = Launch::new(format!("ca {pod}"), folder.join(format!("{pod}.log")));
        let child = home.spawn(&mut command, &launch)?;
        let mut ca = Self { pod: pod.to_owned(), address: SocketAddr::new(home.ip(), CA_PORT), child };
        ca.wait_ready(home)?;
        Ok(ca)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Where sidecars reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name of its pod.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Its metrics in Prometheus' form.
    pub fn metrics(&self, network: &Network) -> Result<Response> {
        self.ask(network.pod(&self.pod)?, "/metrics")
    }

    /// What it has printed, the audit line of each decision among it.
    pub fn log_text(&self) -> String {
        self.child.log_text()
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.child.signal(signal)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.child.kill9()
    }

    fn wait_ready(&mut self, home: &Pod) -> Result<()> {
        let what = format!("the ca in {} is ready", self.pod);
        let ready = wait_until(READY_DEADLINE, &what, || {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(Err(status)));
            }
            let answer = self.ask(home, "/healthz/ready")?;
            ensure!(answer.status == 200, "it says {}: {}", answer.status, answer.body.trim_end());
            Ok(Some(Ok(())))
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => anyhow::bail!("the ca ended with {status}:\n{}", self.child.log_tail()),
            Err(error) => Err(error.context(self.child.log_tail())),
        }
    }

    fn ask(&self, home: &Pod, path: &str) -> Result<Response> {
        get(home.namespace(), SocketAddr::new(home.ip(), METRICS_PORT), path, ASK_DEADLINE)
    }
}
