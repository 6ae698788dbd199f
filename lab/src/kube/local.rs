//! A real Kubernetes as plain processes, where there is no Docker: started, looked after, and parts of it stopped and started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::addresses::PodAddresses;
use super::binaries::Binaries;
use super::component::{Blueprint, Component};
use super::kubectl::Kubectl;
use super::plan::{Plan, Shape, node_name};
use super::slot::{Lock, Slot};
use super::{control_plane, network, node, pki, teardown};
use crate::cgroup::Cgroup;
use crate::netns::Namespace;
use crate::process::wait_until;

/// Seven seconds on an idle machine with two cores, several times that where a build runs beside it.
const API_DEADLINE: Duration = Duration::from_secs(90);
const NODE_DEADLINE: Duration = Duration::from_secs(90);
const SOCKET_DEADLINE: Duration = Duration::from_secs(30);

/// Each look at a cluster is a program that starts: this is often enough.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// The cluster of this machine.
#[derive(Debug)]
pub(super) struct Local {
    plan: Plan,
    components: BTreeMap<String, Component>,
    kept: bool,
}

impl Local {
    /// Starts a cluster that ends with this value.
    pub(super) fn start(shape: Shape) -> Result<Self> {
        Self::start_in(shape, Slot::claim, false)
    }

    /// Starts one that stays, or says that there is one of this number.
    pub(super) fn start_kept(number: u8, shape: Shape) -> Result<Self> {
        Self::start_in(shape, |all| Slot::claim_kept(number, all), true)
    }

    /// One that stays and was started earlier.
    pub(super) fn kept(number: u8) -> Result<Self> {
        let plan = Plan::of_running(Slot::kept(number)?, Binaries::locate()?)?;
        let mut local = Self { plan, components: BTreeMap::new(), kept: true };
        for blueprint in local.blueprints()? {
            local.components.insert(blueprint.name.clone(), Component::of_running(&local.plan, &blueprint));
        }
        Ok(local)
    }

    /// Takes away one that stays; nothing happens when there is none.
    pub(super) fn remove_kept(number: u8) -> Result<()> {
        let slot = Slot::kept(number)?;
        let _lock = Lock::take()?;
        teardown::remove(&slot, || {})
    }

    fn start_in(shape: Shape, claim: impl FnOnce(&Lock) -> Result<Slot>, kept: bool) -> Result<Self> {
        shape.check()?;
        let binaries = Binaries::locate()?;
        let slot = {
            let lock = Lock::take()?;
            teardown::sweep(&lock)?;
            claim(&lock)?
        };
        // Whatever fails from here on, what was made of it is taken away by the drop of this.
        let mut local =
            Self { plan: Plan::new(slot, shape, binaries), components: BTreeMap::new(), kept: false };
        local.bring_up()?;
        local.kept = kept;
        Ok(local)
    }

    fn bring_up(&mut self) -> Result<()> {
        self.plan.prepare()?;
        network::create(&self.plan)?;
        pki::create(&self.plan)?;
        self.launch(&control_plane::etcd(&self.plan))?;
        self.launch(&control_plane::api_server(&self.plan))?;
        for number in self.plan.nodes() {
            let [containerd, _, _] = node::blueprints(&self.plan, number)?;
            self.launch(&containerd)?;
        }
        for number in self.plan.nodes() {
            self.wait_for_containerd(number)?;
            self.import(number, &self.plan.binaries.path("pause.tar"))?;
        }
        self.wait_for_api()?;
        self.launch(&control_plane::controller_manager(&self.plan))?;
        self.launch(&control_plane::scheduler(&self.plan))?;
        self.launch(&control_plane::dns(&self.plan)?)?;
        for number in self.plan.nodes() {
            let [_, kubelet, proxy] = node::blueprints(&self.plan, number)?;
            self.launch(&kubelet)?;
            self.launch(&proxy)?;
        }
        self.kubectl().run_stdin(&["apply", "-f", "-"], &control_plane::dns_manifest(&self.plan))?;
        self.wait_for_nodes()?;
        self.wait_for_accounts()
    }

    /// The way in.
    pub(super) fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.plan.binaries.path("kubectl"), self.plan.kubeconfig())
    }

    /// The network namespace of a node, from which pods and Services are reached; nodes count from one.
    pub(super) fn namespace(&self, node: usize) -> Result<Namespace> {
        self.check_number(node)?;
        Ok(Namespace::existing(&self.plan.slot.namespace(node)))
    }

    /// The addresses of the pods on the node of this name.
    pub(super) fn pod_addresses(&self, name: &str) -> Result<PodAddresses> {
        let node = self.plan.nodes().find(|number| node_name(*number) == name);
        let node = node.with_context(|| format!("there is no node {name}"))?;
        let folder = self.plan.file(&node::addresses_folder(node));
        Ok(PodAddresses::of(folder.join(node::network_name(&self.plan, node))))
    }

    /// Where the components' logs are.
    pub(super) fn logs(&self) -> PathBuf {
        self.plan.file("logs")
    }

    /// What all its processes hold, in bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        Cgroup::new(self.plan.slot.cgroup()).memory()
    }

    /// Puts the images of an archive into every node.
    pub(super) fn load_image(&self, tar: &Path) -> Result<()> {
        self.plan.nodes().try_for_each(|node| self.import(node, tar))
    }

    /// Stops a node's kubelet and containerd, and starts them again; its pods go on. Returns when the node is ready.
    pub(super) fn restart_node(&mut self, node: usize) -> Result<()> {
        self.check_number(node)?;
        let [containerd, kubelet, _] = node::blueprints(&self.plan, node)?;
        self.stop(&kubelet)?;
        self.stop(&containerd)?;
        self.launch(&containerd)?;
        self.wait_for_containerd(node)?;
        // Its pods make the node look ready until the kubelet reports: what counts is what it says after its start.
        let before = self.heartbeat(node)?;
        self.launch(&kubelet)?;
        let what = format!("{} reports again", node_name(node));
        self.wait_for(NODE_DEADLINE, &what, |local| Ok((local.heartbeat(node)? != before).then_some(())))?;
        self.wait_for_nodes()?;
        self.wait_for_pods(node)
    }

    /// Stops the API server.
    pub(super) fn stop_api(&mut self) -> Result<()> {
        self.stop(&control_plane::api_server(&self.plan))
    }

    /// Starts the API server again, and waits until it answers.
    pub(super) fn start_api(&mut self) -> Result<()> {
        self.launch(&control_plane::api_server(&self.plan))?;
        self.wait_for_api()
    }

    /// An error that names a component that has ended, with the last lines of its log.
    pub(super) fn check(&mut self) -> Result<()> {
        self.components.values_mut().try_for_each(Component::check)
    }

    /// The last lines of every component's log.
    pub(super) fn log_tails(&self) -> String {
        let tail = |component: &Component| format!("-- {}:\n{}\n", component.name(), component.log_tail());
        self.components.values().map(tail).collect()
    }

    fn blueprints(&self) -> Result<Vec<Blueprint>> {
        let mut all = vec![
            control_plane::etcd(&self.plan),
            control_plane::api_server(&self.plan),
            control_plane::controller_manager(&self.plan),
            control_plane::scheduler(&self.plan),
            control_plane::dns(&self.plan)?,
        ];
        for number in self.plan.nodes() {
            all.extend(node::blueprints(&self.plan, number)?);
        }
        Ok(all)
    }

    fn launch(&mut self, blueprint: &Blueprint) -> Result<()> {
        let component = Component::start(&self.plan, blueprint)?;
        self.components.insert(blueprint.name.clone(), component);
        Ok(())
    }

    fn stop(&mut self, blueprint: &Blueprint) -> Result<()> {
        let component = self.components.remove(&blueprint.name);
        component.with_context(|| format!("{} is stopped already", blueprint.name))?.stop()
    }

    fn check_number(&self, node: usize) -> Result<()> {
        let nodes = self.plan.nodes();
        ensure!(nodes.contains(&node), "there is no node {node}: nodes count from 1 to {}", nodes.end());
        Ok(())
    }

    fn import(&self, node: usize, tar: &Path) -> Result<()> {
        let output = Command::new("ctr")
            .args(["--address", &node::socket(&self.plan, node), "--namespace", "k8s.io", "images", "import"])
            .arg(tar)
            .output()
            .context("start ctr")?;
        ensure!(
            output.status.success(),
            "load {} into {}: {}",
            tar.display(),
            node_name(node),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(())
    }

    fn wait_for_containerd(&mut self, node: usize) -> Result<()> {
        let socket = node::socket(&self.plan, node);
        let what = format!("containerd of {} answers", node_name(node));
        self.wait_for(SOCKET_DEADLINE, &what, |_| {
            let asked = Command::new("ctr").args(["--address", &socket, "version"]).output();
            Ok(asked.context("start ctr")?.status.success().then_some(()))
        })
    }

    fn wait_for_api(&mut self) -> Result<()> {
        self.wait_for(API_DEADLINE, "kube-apiserver is ready", |local| {
            local.kubectl().run(&["get", "--raw=/readyz"]).map(Some)
        })
        .map(drop)
    }

    fn wait_for_nodes(&mut self) -> Result<()> {
        for node in self.plan.nodes() {
            let name = node_name(node);
            self.wait_for(NODE_DEADLINE, &format!("{name} is ready"), |local| {
                let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
                let status = local.kubectl().run(&["get", "node", &name, "-o", path])?;
                ensure!(status == "True", "its condition Ready is {status:?}");
                Ok(Some(()))
            })?;
            self.tell_pod_range(node)?;
        }
        Ok(())
    }

    /// A kubelet that has just started is ready before it knows its pods, and until then refuses to run anything in them.
    fn wait_for_pods(&mut self, node: usize) -> Result<()> {
        let name = node_name(node);
        let on_node = format!("spec.nodeName={name}");
        let from_kubelet = format!("/api/v1/nodes/{name}/proxy/pods");
        self.wait_for(NODE_DEADLINE, &format!("the kubelet of {name} knows its pods"), |local| {
            let kubectl = local.kubectl();
            let bound = kubectl.run(&["get", "pods", "-A", "-o", "json", "--field-selector", &on_node])?;
            let known = kubectl.run(&["get", "--raw", &from_kubelet])?;
            Ok((count_items(&known)? >= count_items(&bound)?).then_some(()))
        })
    }

    /// Nobody allocates ranges here, so that each node has a known one; those who look at the Node find it all the same.
    fn tell_pod_range(&self, node: usize) -> Result<()> {
        let (v4, v6) = (self.plan.pods_v4(node), self.plan.pods_v6(node));
        let all = if self.plan.shape.dual_stack { format!("\"{v4}\",\"{v6}\"") } else { format!("\"{v4}\"") };
        let patch = format!("{{\"spec\":{{\"podCIDR\":\"{v4}\",\"podCIDRs\":[{all}]}}}}");
        self.kubectl().run(&["patch", "node", &node_name(node), "-p", &patch]).map(drop)
    }

    /// Without its service account a pod is refused, and the controller makes it a moment after the start.
    fn wait_for_accounts(&mut self) -> Result<()> {
        self.wait_for(API_DEADLINE, "namespace default has its service account", |local| {
            local.kubectl().run(&["get", "serviceaccount/default", "configmap/kube-root-ca.crt"]).map(Some)
        })
        .map(drop)
    }

    /// When the kubelet last said how its node is.
    fn heartbeat(&self, node: usize) -> Result<String> {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].lastHeartbeatTime}";
        self.kubectl().run(&["get", "node", &node_name(node), "-o", path])
    }

    /// Waits, and fails at once when a component ends; any error carries the last lines of the components' logs.
    fn wait_for<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        mut condition: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut looked = false;
        let waited = wait_until(deadline, what, || {
            if std::mem::replace(&mut looked, true) {
                thread::sleep(LOOK_EVERY);
            }
            if let Err(ended) = self.check() {
                return Ok(Some(Err(ended)));
            }
            condition(self).map(|seen| seen.map(Ok))
        });
        match waited {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(ended)) => Err(ended.context(format!("waited for: {what}"))),
            Err(error) => Err(error.context(self.log_tails())),
        }
    }
}

fn count_items(list: &str) -> Result<usize> {
    let list: serde_json::Value = serde_json::from_str(list).context("read a list of pods")?;
    Ok(list["items"].as_array().map_or(0, Vec::len)) // the kubelet writes an empty list as null
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let removed = Lock::take().and_then(|_lock| {
            teardown::remove(&self.plan.slot, || self.components.values_mut().for_each(Component::reap))
        });
        if let Err(error) = removed {
            eprintln!("lab: the cluster in {} stays behind: {error:#}", self.plan.slot.folder().display());
        }
    }
}
