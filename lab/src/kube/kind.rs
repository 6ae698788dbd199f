//! A cluster of kind's, for machines with Docker.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::interrupt;

/// kind waits this long for its nodes by itself.
const WAIT: &str = "180s";

/// A running cluster. Dropping it deletes it.
#[derive(Debug)]
pub(super) struct Kind {
    name: String,
    kubeconfig: PathBuf,
}

/// Whether Docker answers and `kind` is installed.
pub(super) fn available() -> bool {
    let answers = |program: &str, args: &[&str]| {
        let run = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    answers("docker", &["info"]) && answers("kind", &["version"])
}

impl Kind {
    /// Starts a cluster with this many nodes, the first of which runs the control plane and pods alike.
    pub(super) fn start(nodes: usize) -> Result<Self> {
        let name = format!("ringmail-{}", std::process::id());
        let kubeconfig = std::env::temp_dir().join(format!("{name}.kubeconfig"));
        let kind = Self { name, kubeconfig };
        let mut config = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n\
                          networking: {ipFamily: dual}\nnodes:\n- role: control-plane\n"
            .to_owned();
        for _ in 1..nodes {
            writeln!(config, "- role: worker")?;
        }
        let file = kind.kubeconfig.with_extension("yaml");
        std::fs::write(&file, config).with_context(|| format!("write {}", file.display()))?;
        kind.run(&["create", "cluster", "--wait", WAIT, "--config", &file.display().to_string()])?;
        Ok(kind)
    }

    /// The way in.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Puts the images of an archive into every node.
    pub(super) fn load_image(&self, tar: &Path) -> Result<()> {
        self.run(&["load", "image-archive", &tar.display().to_string()])
    }

    fn run(&self, args: &[&str]) -> Result<()> {
        interrupt::check()?;
        self.run_always(args)
    }

    fn run_always(&self, args: &[&str]) -> Result<()> {
        let output = Command::new("kind")
            .args(args)
            .args(["--name", &self.name])
            .env("KUBECONFIG", &self.kubeconfig)
            .output()
            .context("start kind")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kind {} ended with {}: {}",
            args.join(" "),
            output.status,
            said.trim_end()
        );
        Ok(())
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        if let Err(error) = self.run_always(&["delete", "cluster"]) {
            eprintln!("lab: kind's cluster {} stays behind: {error:#}", self.name);
        }
        for file in [self.kubeconfig.clone(), self.kubeconfig.with_extension("yaml")] {
            // They were never written where the start failed early.
            let _ = std::fs::remove_file(file);
        }
    }
}
