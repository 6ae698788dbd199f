//! The cluster that the tests run against, whichever it is.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::kubectl::Kubectl;
use super::local::Local;
use super::plan::Shape;
use super::report;
use crate::netns::Namespace;
use crate::process::wait_until;

/// A command line that loads the archive named by its last argument into the cluster of KUBECONFIG.
const LOAD_VARIABLE: &str = "RINGMAIL_KUBE_LOAD_IMAGE";

/// Each look is a `kubectl` that starts.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A cluster, with what the tests do to it. One that was started for them is taken away by its drop.
#[derive(Debug)]
pub struct Cluster {
    kubectl: Kubectl,
    provider: Provider,
}

#[derive(Debug)]
enum Provider {
    /// Plain processes of this machine.
    Local(Box<Local>),
    /// Somebody's own, with the command that loads an image into it.
    Given { load: Option<String> },
}

impl Cluster {
    /// Starts one or two nodes of plain processes, with both address families. Needs root, and what
    /// `scripts/install-deps.sh kube` installs.
    pub fn start(nodes: usize) -> Result<Self> {
        Self::start_shape(Shape::nodes(nodes))
    }

    /// The same in a shape of the caller's.
    pub fn start_shape(shape: Shape) -> Result<Self> {
        Ok(Self::of_local(Local::start(shape)?))
    }

    /// Starts a cluster that stays when this program ends, under a number below [`KEPT_CLUSTERS`](super::KEPT_CLUSTERS).
    pub fn start_kept(number: u8, shape: Shape) -> Result<Self> {
        Ok(Self::of_local(Local::start_kept(number, shape)?))
    }

    /// The cluster that stays under this number.
    pub fn kept(number: u8) -> Result<Self> {
        Ok(Self::of_local(Local::kept(number)?))
    }

    /// Takes a cluster that stays away, whatever is left of it.
    pub fn remove_kept(number: u8) -> Result<()> {
        Local::remove_kept(number)
    }

    /// The cluster that KUBECONFIG names, reached by the `kubectl` on the path.
    pub fn from_kubeconfig() -> Result<Self> {
        let kubeconfig = std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?;
        let load = std::env::var(LOAD_VARIABLE).ok();
        Ok(Self { kubectl: Kubectl::new("kubectl", kubeconfig), provider: Provider::Given { load } })
    }

    fn of_local(local: Local) -> Self {
        Self { kubectl: local.kubectl(), provider: Provider::Local(Box::new(local)) }
    }

    /// Which cluster it is, for what the tests print.
    pub fn description(&self) -> &'static str {
        match &self.provider {
            Provider::Local(_) => "Kubernetes as plain processes",
            Provider::Given { .. } => "the cluster of KUBECONFIG",
        }
    }

    /// `kubectl` against it.
    pub fn client(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Runs `kubectl` and returns what it printed; an error carries its stderr.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(args)
    }

    /// The same with text as its stdin.
    pub fn kubectl_stdin(&self, args: &[&str], text: &str) -> Result<String> {
        self.kubectl.run_stdin(args, text)
    }

    /// Runs a command in a container and returns its output.
    pub fn exec(&self, namespace: &str, pod: &str, container: &str, command: &[&str]) -> Result<String> {
        let mut args = vec!["exec", "-n", namespace, pod, "-c", container, "--"];
        args.extend(command);
        self.kubectl.run(&args)
    }

    /// Puts the images of a docker-archive into every node.
    pub fn load_image(&self, tar: &Path) -> Result<()> {
        match &self.provider {
            Provider::Local(local) => local.load_image(tar),
            Provider::Given { load: Some(command) } => {
                let status = Command::new("sh").args(["-c", &format!("{command} \"$0\"")]).arg(tar).status();
                let status = status.with_context(|| format!("start {command}"))?;
                ensure!(status.success(), "{command} {} ended with {status}", tar.display());
                Ok(())
            }
            Provider::Given { load: None } => bail!(
                "{} cannot be loaded: {LOAD_VARIABLE} names no command that loads an archive into the cluster",
                tar.display()
            ),
        }
    }

    /// Waits until `condition` gives a value, which is looked at four times a second. After `deadline` the error says what
    /// was waited for and what was seen last, and carries what the cluster looks like.
    pub fn wait_for<T>(
        &self,
        deadline: Duration,
        what: &str,
        mut condition: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut looked = false;
        let waited = wait_until(deadline, what, || {
            if std::mem::replace(&mut looked, true) {
                thread::sleep(LOOK_EVERY);
            }
            condition(self)
        });
        waited.map_err(|error| error.context(self.report()))
    }

    /// `kubectl wait` for a condition (`pod/a`, `condition=Ready`), with what the cluster looks like where it fails.
    pub fn wait_condition(
        &self,
        namespace: &str,
        object: &str,
        condition: &str,
        deadline: Duration,
    ) -> Result<()> {
        let (condition, limit) = (format!("--for={condition}"), format!("--timeout={}s", deadline.as_secs()));
        let waited = self.kubectl(&["wait", "-n", namespace, &condition, &limit, object]);
        waited.map(drop).map_err(|error| error.context(self.report()))
    }

    /// What the cluster looks like: nodes, pods, events, logs of pods that are not ready, and the components' own.
    pub fn report(&self) -> String {
        let mut text = report::resources(&self.kubectl);
        if let Provider::Local(local) = &self.provider {
            text += &local.log_tails();
        }
        text
    }

    /// The network namespace of a node, from which pods and Services are reached; nodes count from one. Plain processes alone
    /// have one that can be entered.
    pub fn node_namespace(&self, node: usize) -> Result<Namespace> {
        self.local()?.namespace(node)
    }

    /// What all processes of the cluster hold, pods among them, in bytes.
    pub fn memory(&self) -> Result<u64> {
        self.local()?.memory()
    }

    /// Stops a node's kubelet and containerd, starts them again, and waits until the node is ready.
    pub fn restart_node(&mut self, node: usize) -> Result<()> {
        self.local_mut()?.restart_node(node)
    }

    /// Whether no pod of `node` has `address`. Plain processes alone say so.
    pub fn has_free(&self, node: &str, address: IpAddr) -> Result<bool> {
        self.local()?.pod_addresses(node)?.is_free(address)
    }

    /// Has the next pod of `node` get `addresses`, one of each family. They have to be free. Plain processes alone do so.
    pub fn give_next(&self, node: &str, addresses: &[IpAddr]) -> Result<()> {
        self.local()?.pod_addresses(node)?.give_next(addresses)
    }

    /// Stops the API server.
    pub fn stop_api(&mut self) -> Result<()> {
        self.local_mut()?.stop_api()
    }

    /// Starts the API server again and waits until it answers.
    pub fn start_api(&mut self) -> Result<()> {
        self.local_mut()?.start_api()
    }

    /// Stops the cluster's DNS.
    pub fn stop_dns(&mut self) -> Result<()> {
        self.local_mut()?.stop_dns()
    }

    /// Starts the cluster's DNS again.
    pub fn start_dns(&mut self) -> Result<()> {
        self.local_mut()?.start_dns()
    }

    /// The folder of the components' logs.
    pub fn logs(&self) -> Result<std::path::PathBuf> {
        Ok(self.local()?.logs())
    }

    fn local(&self) -> Result<&Local> {
        match &self.provider {
            Provider::Local(local) => Ok(local),
            Provider::Given { .. } => bail!("{}", self.not_ours()),
        }
    }

    fn local_mut(&mut self) -> Result<&mut Local> {
        let refusal = self.not_ours();
        match &mut self.provider {
            Provider::Local(local) => Ok(local),
            Provider::Given { .. } => bail!("{refusal}"),
        }
    }

    fn not_ours(&self) -> String {
        format!("{}: its processes and namespaces cannot be reached from here", self.description())
    }
}
