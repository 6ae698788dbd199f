//! Real processes inside namespaces: started under a user, logged to a file, signalled, and never left behind.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use nix::sys::signal::Signal;
use nix::sys::signal::{kill, killpg};
use nix::unistd::Pid;

use crate::cgroup::{Cgroup, JOIN_AND_EXEC};
use crate::interrupt;
use crate::netns::Namespace;

/// How often a condition that has no event of its own is looked at.
const POLL: Duration = Duration::from_millis(10);

/// How many of the last lines of a log an error carries.
const TAIL_LINES: usize = 15;

/// How a process is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What the process is called in errors.
    pub name: String,
    /// Where its output goes; appended to, so that a restart keeps what was said before.
    pub log: PathBuf,
    /// User and group id; none means root's.
    pub user: Option<u32>,
    /// Whether stdin and stdout are pipes of the lab instead of nothing and the log.
    pub piped: bool,
    /// Descriptors that it may have open, and not raise; none leaves the lab's own limit.
    pub descriptors: Option<u32>,
    /// The cgroup that it and all that it starts are in; none leaves the lab's own.
    pub cgroup: Option<Cgroup>,
}

impl Launch {
    /// A process run as root whose output goes to `log`.
    pub fn new(name: impl Into<String>, log: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), log: log.into(), user: None, piped: false, descriptors: None, cgroup: None }
    }

    /// The same under a user id, which is also taken as the group id.
    #[must_use]
    pub fn user(self, id: u32) -> Self {
        Self { user: Some(id), ..self }
    }

    /// The same in a cgroup, and with no more open descriptors than these.
    #[must_use]
    pub fn confined(self, cgroup: Option<Cgroup>, descriptors: Option<u32>) -> Self {
        Self { cgroup, descriptors, ..self }
    }

    /// What becomes the program once it is confined as this says: what a process may take is set before it begins, by
    /// programs that end by becoming the next.
    fn confining(&self, command: &Command) -> Result<Command> {
        let mut confining = Command::new("sh");
        confining.args(["-c", JOIN_AND_EXEC, "sh"]);
        if let Some(cgroup) = &self.cgroup {
            confining.args(cgroup.create()?);
        }
        confining.arg("--");
        if let Some(descriptors) = self.descriptors {
            confining.args(["prlimit", &format!("--nofile={descriptors}:{descriptors}"), "--"]);
        }
        if let Some(id) = self.user {
            confining.args([
                "setpriv",
                &format!("--reuid={id}"),
                &format!("--regid={id}"),
                "--clear-groups",
                "--",
            ]);
        }
        confining.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => confining.env(name, value),
                None => confining.env_remove(name),
            };
        }
        Ok(confining)
    }

    /// The same with stdin and stdout as pipes.
    #[must_use]
    pub fn piped(self) -> Self {
        Self { piped: true, ..self }
    }
}

/// A running process. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Child {
    name: String,
    log: PathBuf,
    inner: std::process::Child,
}

impl Child {
    /// Starts a process inside a namespace, in a process group of its own, so that an interrupt typed at the terminal reaches
    /// the lab alone, which then takes everything down in order.
    pub fn spawn(namespace: &Namespace, command: &mut Command, launch: &Launch) -> Result<Self> {
        let log = open_log(&launch.log)?;
        let mut confining;
        let command = if launch.cgroup.is_some() || launch.descriptors.is_some() {
            confining = launch.confining(command)?;
            &mut confining
        } else {
            if let Some(id) = launch.user {
                command.uid(id).gid(id);
            }
            command
        };
        command.process_group(0).stderr(log.try_clone()?);
        if launch.piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(log);
        }
        let inner = namespace
            .enter(|| command.spawn())?
            .with_context(|| format!("start {} ({:?})", launch.name, command.get_program()))?;
        Ok(Self { name: launch.name.clone(), log: launch.log.clone(), inner })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.inner.id()
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds its output.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has printed so far.
    pub fn log_text(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of its output, for an error.
    pub fn log_tail(&self) -> String {
        tail(&self.log_text())
    }

    /// The pipes of a process that was launched with them; each can be taken once.
    pub fn take_pipes(&mut self) -> Result<(ChildStdin, ChildStdout)> {
        match (self.inner.stdin.take(), self.inner.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok((stdin, stdout)),
            _ => bail!("{} has no pipes left to take", self.name),
        }
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.inner.id().cast_signed()), signal)
            .with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Sends a signal to the process and its descendants: the group that it leads.
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        killpg(Pid::from_raw(self.inner.id().cast_signed()), signal)
            .with_context(|| format!("send {signal} to all of {}", self.name))
    }

    /// How it ended, or none while it runs.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.inner.try_wait().with_context(|| format!("look at {}", self.name))
    }

    /// Waits for its end; an error after `deadline` carries the tail of its log.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            interrupt::check()?;
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} still runs after {deadline:?}:\n{}", self.name, self.log_tail());
            }
            thread::sleep(POLL);
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.inner.kill().with_context(|| format!("kill {}", self.name))?;
        self.inner.wait().with_context(|| format!("wait for {}", self.name))
    }

    /// SIGTERM, and waits until it is gone.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(deadline)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and was waited for already.
        let _ = self.inner.kill();
        let _ = self.inner.wait();
    }
}

/// Whether a process holds nothing any more: it is gone, or waits to be asked for its status with its last thread.
pub fn is_over(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The name may hold anything; the state comes after it.
    let is_zombie = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    is_zombie && threads <= 1
}

/// Waits until `condition` gives a value; after `deadline` the error says what was waited for and what was seen last.
pub fn wait_until<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        interrupt::check()?;
        let seen = condition();
        if let Ok(Some(value)) = seen {
            return Ok(value);
        }
        if Instant::now() >= end {
            return match seen {
                Err(error) => Err(error.context(format!("{what}: not within {deadline:?}"))),
                Ok(_) => bail!("{what}: not within {deadline:?}"),
            };
        }
        thread::sleep(POLL);
    }
}

pub(crate) fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open log {}", path.display()))
}

pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Confinement;

    fn launched(namespace: &Namespace, folder: &Path, script: &str, user: Option<u32>) -> Child {
        let launch = Launch { user, ..Launch::new("script", folder.join("log")) };
        Child::spawn(namespace, Command::new("sh").args(["-c", script]), &launch).unwrap()
    }

    #[test]
    fn a_process_runs_under_its_user_inside_the_namespace_and_logs_to_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let namespace = Namespace::create("process").unwrap();
        let mut child = launched(
            &namespace,
            folder.path(),
            "id -u; ls /sys/class/net >/dev/null; ip -o link",
            Some(1337),
        );
        assert!(child.wait(Duration::from_secs(5)).unwrap().success());
        let log = child.log_text();
        assert!(log.starts_with("1337\n"), "{log}");
        assert_eq!(log.lines().count(), 2, "a new namespace has the loopback alone: {log}");
    }

    #[test]
    fn a_confined_process_is_its_users_in_its_cgroup_with_its_descriptors_from_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let namespace = Namespace::create("confined").unwrap();
        let confinement = Confinement::create("confined").unwrap();
        confinement.cgroup().limit_memory(16 << 20).unwrap();
        confinement.cgroup().limit_processes(Some(5)).unwrap();
        let launch = Launch::new("confined", folder.path().join("log")).user(1337);
        let launch = launch.confined(Some(confinement.cgroup().clone()), Some(77));
        let script = "id -u; id -g; ulimit -n; ulimit -Hn; cat /proc/self/cgroup; echo $VARIABLE";
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("VARIABLE", "is there");
        let mut child = Child::spawn(&namespace, &mut command, &launch).unwrap();
        assert!(child.wait(Duration::from_secs(5)).unwrap().success(), "{}", child.log_text());
        let log = child.log_text();
        assert!(log.starts_with("1337\n1337\n77\n77\n"), "{log}");
        assert!(log.contains(&format!("ringmail-confined-{}", std::process::id())), "{log}");
        assert!(log.ends_with("is there\n"), "{log}");
        assert_eq!(confinement.cgroup().memory_kills().unwrap(), 0);
    }

    #[test]
    fn a_deadline_that_passes_carries_the_tail_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let namespace = Namespace::create("deadline").unwrap();
        let mut child = launched(&namespace, folder.path(), "echo last words; exec sleep 60", None);
        wait_until(Duration::from_secs(5), "words", || Ok(child.log_text().contains("words").then_some(())))
            .unwrap();
        let error = child.wait(Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("still runs after 50ms") && error.contains("last words"), "{error}");
        assert!(!child.terminate(Duration::from_secs(5)).unwrap().success());
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let namespace = Namespace::create("dropped").unwrap();
        let child = launched(&namespace, folder.path(), "exec sleep 60", None);
        let proc = PathBuf::from(format!("/proc/{}", child.pid()));
        assert!(proc.exists());
        drop(child);
        assert!(!proc.exists());
    }

    #[test]
    fn waiting_in_vain_names_what_was_waited_for_and_the_last_error() {
        let error =
            wait_until::<()>(Duration::from_millis(20), "rain", || bail!("the sky is blue")).unwrap_err();
        assert_eq!(format!("{error:#}"), "rain: not within 20ms: the sky is blue");
    }
}
