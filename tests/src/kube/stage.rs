//! The cluster with the mesh in it, one for all scenarios of a run.

use std::{fs, path::Path, process::Command, sync::OnceLock, time::Duration};

use anyhow::{Context, Result, ensure};
use ringmail_lab::kube::{Cluster, KEPT_CLUSTERS, Kubectl};

/// The namespace of the mesh's own parts.
pub const SYSTEM: &str = "ringmail-system";

/// The version whose images were loaded, which is the one that the manifests name.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the next version calls itself, and its images are tagged with (`scripts/e2e-kube.sh`).
pub const NEXT_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-next");

/// A pod of the mesh's own starts within seconds; images may have to be unpacked first.
const ROLLED_OUT_WITHIN: &str = "--timeout=120s";

/// The mesh's own deployments.
pub const DEPLOYMENTS: [&str; 2] = ["ringmail-ca", "ringmail-control"];

/// What makes a pod the webhook's.
const INJECT: &str = "sidecar.istio.io/inject: 'true'";

/// The least that a pod can be.
const NOTHING: &str = "spec: {containers: [{name: main, image: none}]}";

/// What all scenarios share.
pub struct Stage {
    cluster: Cluster,
}

/// The stage, set when it is first asked for.
///
/// # Panics
///
/// Where it cannot be set: no scenario means anything then.
pub fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        Stage::set().unwrap_or_else(|error| panic!("the mesh cannot be installed: {error:#}"))
    })
}

impl Stage {
    fn set() -> Result<Self> {
        let stage = Self { cluster: named()? };
        stage.install()?;
        Ok(stage)
    }

    /// What README says: `kubectl apply -k manifests/ringmail`, and waits until it is there.
    pub fn install(&self) -> Result<()> {
        self.kubectl(&["apply", "-k", &manifests("ringmail")])?;
        self.rolled_out()
    }

    /// Waits until every part of the mesh is as its manifest says.
    pub fn rolled_out(&self) -> Result<()> {
        for deployment in DEPLOYMENTS {
            let deployment = format!("deployment/{deployment}");
            self.kubectl(&["rollout", "status", "-n", SYSTEM, ROLLED_OUT_WITHIN, &deployment])
                .map_err(|error| error.context(self.cluster.report()))?;
        }
        // Where the Service leads is a matter of kube-proxy, and comes a moment later.
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: asks, labels: {{{INJECT}}}}}, {NOTHING}}}"
        );
        let ask = ["apply", "-n", "default", "--dry-run=server", "-f", "-"];
        self.cluster.wait_for(Duration::from_secs(30), "the webhook answers", |cluster| {
            Ok(cluster.kubectl_stdin(&ask, &pod).ok().map(drop))
        })
    }

    /// Sets how many replicas a part of the mesh has, and waits until it has so many.
    pub fn scale(&self, deployment: &str, replicas: usize) -> Result<()> {
        let name = format!("deployment/{deployment}");
        self.kubectl(&["scale", "-n", SYSTEM, &name, &format!("--replicas={replicas}")])?;
        let selector = format!("app.kubernetes.io/name={deployment}");
        let what = format!("{deployment} has {replicas} replicas");
        self.cluster.wait_for(Duration::from_secs(60), &what, |cluster| {
            let ready = "jsonpath={.items[*].status.containerStatuses[0].ready}";
            let pods = cluster.kubectl(&["get", "pods", "-n", SYSTEM, "-l", &selector, "-o", ready])?;
            let words: Vec<_> = pods.split_whitespace().collect();
            Ok((words.len() == replicas && words.iter().all(|ready| *ready == "true")).then_some(()))
        })
    }

    /// Names the image of a part of the mesh as `kubectl set image` does, and does not wait for it.
    pub fn set_version(&self, deployment: &str, version: &str) -> Result<()> {
        let image = deployment.replace("ringmail-", "ringmail/");
        let (name, image) = (format!("deployment/{deployment}"), format!("{deployment}={image}:{version}"));
        self.kubectl(&["set", "image", "-n", SYSTEM, &name, &image]).map(drop)
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs `kubectl` and returns what it printed; an error carries its stderr.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(args)
    }

    /// `kubectl apply -f -` of `text`.
    pub fn apply(&self, text: &str) -> Result<String> {
        self.cluster.kubectl_stdin(&["apply", "-f", "-"], text)
    }

    /// `kubectl delete -f -` of `text`.
    pub fn delete(&self, text: &str) -> Result<String> {
        self.cluster.kubectl_stdin(&["delete", "-f", "-"], text)
    }

    /// Runs a line as a user types it, with `kubectl` on the path.
    pub fn shell(&self, line: &str) -> Result<String> {
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-c", line])
            .env("KUBECONFIG", self.client().kubeconfig())
            .env("PATH", path_with(self.client().program())?)
            .output()
            .with_context(|| format!("run {line}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{line} ended with {}: {said}{complaint}", output.status);
        Ok(said)
    }

    /// `kubectl` itself.
    pub fn client(&self) -> &Kubectl {
        self.cluster.client()
    }
}

/// The kept cluster of plain processes that KUBECONFIG names, since more can be done to that one; else whose it is.
///
/// # Errors
///
/// Where it names none.
pub fn named() -> Result<Cluster> {
    // A user who is not root has a copy of it.
    let named = std::env::var_os("KUBECONFIG").and_then(|file| fs::read(file).ok());
    let names = |kept: &Cluster| named.is_some() && named == fs::read(kept.client().kubeconfig()).ok();
    let kept = (0..KEPT_CLUSTERS).find_map(|number| Cluster::kept(number).ok().filter(names));
    kept.map_or_else(Cluster::from_kubeconfig, Ok)
}

/// A folder of the manifests.
pub fn manifests(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(name).display().to_string()
}

fn path_with(program: &Path) -> Result<std::ffi::OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let folder = program.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folders = folder.map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&old));
    std::env::join_paths(folders).context("put kubectl on the path")
}
