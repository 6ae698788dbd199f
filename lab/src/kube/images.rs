//! The images, built by the repository's script from the programs that are there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Builds what has changed, and prints the path of each archive.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/images.sh");

/// Builds these images (`proxy`, `proxy-distroless`, `init`, `ca`, `control`, `ignite-test`, `toolbox`) under a tag, from the
/// programs in a folder, and returns their archives in the same order. What has not changed since is not built again.
///
/// Where Docker answers they are built on the bases that a release is built on; else on bases of Debian's packages.
pub fn build(images: &[&str], tag: &str, programs: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new(SCRIPT);
    if !kind_available() {
        command.arg("--local-bases");
    }
    command.args(["--tag", tag]).arg("--binaries").arg(programs).args(images);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("start {SCRIPT}"))?;
    ensure!(output.status.success(), "{SCRIPT} {} ended with {}", images.join(" "), output.status);
    let printed = String::from_utf8(output.stdout).context("read what the script printed")?;
    let archives: Vec<PathBuf> = printed.lines().map(PathBuf::from).collect();
    ensure!(archives.len() == images.len(), "{SCRIPT} named {archives:?} for {images:?}");
    Ok(archives)
}

/// Whether Docker answers and `kind` is installed.
fn kind_available() -> bool {
    let answers = |program: &str, args: &[&str]| {
        let run = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    answers("docker", &["info"]) && answers("kind", &["version"])
}
