//! Where the programs of a cluster come from: what the repository's script has built, and what Debian packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Builds what is missing and prints the folder; it returns within a second when all is there.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/kube-binaries.sh");

/// Names a folder with everything that the script would build, for a machine without Go.
const FOLDER_VARIABLE: &str = "RINGMAIL_KUBE_BINARIES";

/// The plugins of Debian's containernetworking-plugins.
pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// What has to be installed, each with the package that has it.
const INSTALLED: [(&str, &str); 5] = [
    ("etcd", "etcd-server"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
];

/// The folder of the programs that were built.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Finds everything, and has built what is not there yet: minutes of work the first time on a machine.
    pub(super) fn locate() -> Result<Self> {
        for (program, package) in INSTALLED {
            let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output();
            let found = found.context("start sh")?.status.success();
            ensure!(found, "{program} is not installed (Debian: {package}): scripts/install-deps.sh kube");
        }
        let plugin = Path::new(CNI_PLUGINS).join("ptp");
        ensure!(plugin.exists(), "{} is not installed: scripts/install-deps.sh kube", plugin.display());
        Ok(Self { folder: Self::folder()? })
    }

    fn folder() -> Result<PathBuf> {
        if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
            return Ok(folder.into());
        }
        let output = Command::new(SCRIPT).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("start {SCRIPT}"))?;
        if !output.status.success() {
            bail!("{SCRIPT} ended with {}", output.status);
        }
        let printed = String::from_utf8(output.stdout).context("read what the script printed")?;
        let folder = printed.lines().last().with_context(|| format!("{SCRIPT} printed no folder"))?;
        Ok(folder.into())
    }

    /// One of the programs, or the archive of the pause image.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
