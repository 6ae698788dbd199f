//! One process of a cluster: in its node's namespace and the cluster's cgroup, its output in a file.
//!
//! It may outlive the program that started it, so it is known by a file with its process id, and another program can stop it
//! and start it again.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::plan::Plan;
use crate::cgroup::{Cgroup, JOIN_AND_EXEC};
use crate::netns::Namespace;
use crate::process::{open_log, tail, wait_until};

/// Each of them ends within a second of being asked, but for the API server, which lets everyone's watches end first: up to a
/// minute that nobody has to wait.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How a component is started.
#[derive(Clone, Debug)]
pub(super) struct Blueprint {
    /// What it is called in errors and by its files.
    pub(super) name: String,
    /// The number of the node it runs beside or on.
    pub(super) node: usize,
    /// The program.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) args: Vec<String>,
}

/// A component that was started, by this process or another.
#[derive(Debug)]
pub(super) struct Component {
    name: String,
    log: PathBuf,
    pid_file: PathBuf,
    child: Option<Child>,
}

impl Component {
    /// Starts it.
    pub(super) fn start(plan: &Plan, blueprint: &Blueprint) -> Result<Self> {
        let mut component = Self::of_running(plan, blueprint);
        let joins = Cgroup::new(plan.slot.cgroup()).child("system").create()?;
        let log = open_log(&component.log)?;
        let mut command = Command::new("sh");
        command.args(["-c", JOIN_AND_EXEC, "sh"]).args(joins).arg("--");
        command.arg(&blueprint.program).args(&blueprint.args);
        // A group of its own: an interrupt typed at a terminal is for the lab alone.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let namespace = Namespace::existing(&plan.slot.namespace(blueprint.node));
        let child =
            namespace.enter(|| command.spawn())?.with_context(|| format!("start {}", blueprint.name))?;
        fs::write(&component.pid_file, child.id().to_string())
            .with_context(|| format!("write {}", component.pid_file.display()))?;
        component.child = Some(child);
        Ok(component)
    }

    /// One that was started earlier, maybe by another process.
    pub(super) fn of_running(plan: &Plan, blueprint: &Blueprint) -> Self {
        Self {
            name: blueprint.name.clone(),
            log: plan.file(&format!("logs/{}.log", blueprint.name)),
            pid_file: plan.file(&format!("run/{}.pid", blueprint.name)),
            child: None,
        }
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The last lines of its output.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text))
    }

    /// An error with the last lines of its output once it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        if self.has_ended()? {
            bail!("{} has ended; the last it said ({}):\n{}", self.name, self.log.display(), self.log_tail());
        }
        Ok(())
    }

    /// SIGTERM, then SIGKILL where that is not enough, and waits for its end.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.signal_and_wait(Signal::SIGTERM, STOP_PATIENCE)
            .or_else(|_| self.signal_and_wait(Signal::SIGKILL, KILL_DEADLINE))
    }

    fn signal_and_wait(&mut self, signal: Signal, deadline: Duration) -> Result<()> {
        if self.has_ended()? {
            return Ok(());
        }
        kill(Pid::from_raw(self.pid()?), signal).with_context(|| format!("stop {}", self.name))?;
        let what = format!("{} ends after {signal}", self.name);
        wait_until(deadline, &what, || Ok(self.has_ended()?.then_some(())))
    }

    /// Waits for a process of this one that has ended, so that it is no zombie.
    pub(super) fn reap(&mut self) {
        if let Some(child) = &mut self.child {
            // The only error is that it was waited for already.
            let _ = child.try_wait();
        }
    }

    fn has_ended(&mut self) -> Result<bool> {
        if let Some(child) = &mut self.child {
            return Ok(child.try_wait().with_context(|| format!("look at {}", self.name))?.is_some());
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).unwrap_or_default();
        // The word after the name is the state; a process whose parent does not wait for it has ended all the same.
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().starts_with('Z'));
        Ok(state.unwrap_or(true))
    }

    fn pid(&self) -> Result<i32> {
        let text = fs::read_to_string(&self.pid_file)
            .with_context(|| format!("read {}", self.pid_file.display()))?;
        text.parse().with_context(|| format!("{}: {text:?} is no process id", self.pid_file.display()))
    }
}
