//! `kubectl` against one cluster: the tests say what a user would.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::interrupt;

/// A command that waits is told how long by its own flag; this ends one that hangs all the same.
const LIMIT: Duration = Duration::from_secs(900);

/// `kubectl` with a cluster's kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Uses this program with this kubeconfig.
    pub fn new(program: impl Into<PathBuf>, kubeconfig: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), kubeconfig: kubeconfig.into() }
    }

    /// The kubeconfig.
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// The program.
    pub fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// Runs it and returns what it printed; an error carries its stderr.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        printed(args, self.output(args, None)?)
    }

    /// The same with text as its stdin (`apply -f -`).
    pub fn run_stdin(&self, args: &[&str], text: &str) -> Result<String> {
        printed(args, self.output(args, Some(text))?)
    }

    /// Runs it and returns how it ended and what it printed, which may be a refusal.
    pub fn output(&self, args: &[&str], stdin: Option<&str>) -> Result<Output> {
        interrupt::check()?;
        let limit = LIMIT.as_secs().to_string();
        let mut child = Command::new("timeout")
            .arg(limit)
            .arg(&self.program)
            .args(self.arguments(args))
            .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let input = child.stdin.take();
        thread::scope(|scope| {
            scope.spawn(|| {
                if let (Some(mut pipe), Some(text)) = (input, stdin) {
                    // One that ends before it has read everything says by itself why.
                    let _ = pipe.write_all(text.as_bytes());
                }
            });
            child.wait_with_output().with_context(|| format!("wait for kubectl {}", args.join(" ")))
        })
    }

    /// The command itself, for a caller that reads its output as it comes (`logs -f`, `port-forward`, `exec -i`), and ends it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments(args));
        command
    }

    fn arguments<'a>(&'a self, args: &'a [&str]) -> impl Iterator<Item = &'a OsStr> {
        let first = [OsStr::new("--kubeconfig"), self.kubeconfig.as_os_str()];
        first.into_iter().chain(args.iter().map(OsStr::new))
    }
}

fn printed(args: &[&str], output: Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "kubectl {} ended with {}: {}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
