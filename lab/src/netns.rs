//! Network namespaces that belong to this process and end with it.
//!
//! A namespace is a property of a thread: work inside one runs on a thread of its own that has entered it, and a process
//! started by that thread stays inside. Names begin with `rm-<pid>-`, so that what a killed run left behind is told apart
//! from what a living one still uses.

use std::any::Any;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// Where `ip netns` keeps the named namespaces.
pub(crate) const NAMED: &str = "/run/netns";

/// What every namespace of the lab begins with.
const PREFIX: &str = "rm-";

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A named network namespace with its loopback up. Dropping it kills the processes still inside and deletes it, unless it
/// belongs to something that outlives this process.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    owned: bool,
}

impl Namespace {
    /// Makes a namespace called `rm-<pid>-<number>-<label>`. Needs root.
    pub fn create(label: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        Self::add(name, true)
    }

    /// Makes a namespace of just this name, which stays when this is dropped: [`remove`] takes it away. Needs root.
    pub(crate) fn create_named(name: &str) -> Result<Self> {
        Self::add(name.to_owned(), false)
    }

    /// A namespace that is there already, and stays when this is dropped.
    pub(crate) fn existing(name: &str) -> Self {
        Self { name: name.to_owned(), owned: false }
    }

    fn add(name: String, owned: bool) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let namespace = Self { name, owned };
        namespace.ip_batch("link set lo up\n")?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMED).join(&self.name)
    }

    /// Runs `work` on a thread inside this namespace and waits for it.
    ///
    /// Sockets made there stay in the namespace wherever they are used later. Processes spawned there stay in it, and start
    /// with no signal blocked whatever the caller has blocked. A panic of `work` goes on in the caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("open namespace {}", self.name))?;
        let entered = thread::scope(|scope| {
            scope
                .spawn(|| -> Result<T> {
                    setns(&file, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("enter namespace {}", self.name))?;
                    SigSet::empty().thread_set_mask().context("unblock signals")?;
                    Ok(work())
                })
                .join()
        });
        entered.unwrap_or_else(|panic| panic_again(&*panic))
    }

    /// Runs a command inside to its end and returns what it printed; an error carries its stderr.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        self.enter(|| capture_output(Command::new(program).args(args)))?
    }

    /// Runs lines of `ip -batch` inside.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        ip_batch(Some(&self.name), lines)
    }

    /// The processes inside, by id.
    pub fn processes(&self) -> Result<Vec<i32>> {
        pids_in(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if let Err(error) = remove(&self.name) {
            eprintln!("lab: namespace {} stays behind: {error:#}", self.name);
        }
    }
}

/// Removes the namespaces, with the processes inside, of lab processes that are no more. Returns their names.
pub fn sweep_leftovers() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    let Ok(entries) = std::fs::read_dir(NAMED) else {
        return Ok(swept); // no namespace was ever named on this machine
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            match remove(&name) {
                Ok(()) => swept.push(name),
                // Another process may sweep at the same time.
                Err(error) => ensure!(!Path::new(NAMED).join(&name).exists(), error),
            }
        }
    }
    Ok(swept)
}

/// The id of the process that made a namespace of this name, if the lab did.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// Kills the processes inside a namespace and deletes it.
pub(crate) fn remove(name: &str) -> Result<()> {
    for pid in pids_in(name)? {
        // It may have ended by itself since it was listed.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    ip(&["netns", "del", name])
}

fn pids_in(name: &str) -> Result<Vec<i32>> {
    let listed = capture_output(Command::new("ip").args(["netns", "pids", name]))?;
    listed.split_whitespace().map(|pid| pid.parse().with_context(|| format!("process id {pid:?}"))).collect()
}

fn ip(args: &[&str]) -> Result<()> {
    capture_output(Command::new("ip").args(args)).map(drop)
}

/// Runs lines of `ip -batch` in the namespace of this name, or in the machine's own.
pub(crate) fn ip_batch(namespace: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start ip")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes()).context("write to ip -batch")?;
    }
    let output = child.wait_with_output().context("wait for ip")?;
    if !output.status.success() {
        bail!("ip -batch ended with {}: {}\n{lines}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn capture_output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Panics for what another thread panicked for: to whoever watches panics, this thread's test fails too, which it would not hear of
/// one that is only resumed.
pub(crate) fn panic_again(panic: &(dyn Any + Send)) -> ! {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    panic!("{}", text.unwrap_or("a thread of this test panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_lab_have_an_owner() {
        for (name, expected) in [
            ("rm-123-1-n1", Some(123)),
            ("rm-x-1", None),
            ("rm-", None),
            ("cni-123-1", None),
            ("rm-123", None),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }

    #[test]
    fn a_namespace_goes_away_with_its_processes_when_dropped() {
        let namespace = Namespace::create("drop").unwrap();
        let path = namespace.path();
        let mut sleeper = namespace.enter(|| Command::new("sleep").arg("60").spawn().unwrap()).unwrap();
        assert_eq!(namespace.processes().unwrap(), [sleeper.id().cast_signed()]);
        drop(namespace);
        assert!(!path.exists());
        assert!(!sleeper.wait().unwrap().success());
    }

    #[test]
    fn a_namespace_goes_away_after_a_panic() {
        let path = std::sync::Mutex::new(PathBuf::new());
        let panicked = std::panic::catch_unwind(|| {
            let namespace = Namespace::create("panic").unwrap();
            *path.lock().unwrap() = namespace.path();
            assert!(namespace.path().exists());
            namespace.enter(|| panic!("inside")).unwrap();
        });
        assert!(panicked.is_err());
        assert!(!path.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).exists());
    }

    #[test]
    fn leftovers_of_a_dead_process_are_swept_and_those_of_a_living_one_stay() {
        let mine = Namespace::create("alive").unwrap();
        let mut ended = Command::new("true").spawn().unwrap();
        let dead = ended.id();
        ended.wait().unwrap();
        let leftover = format!("rm-{dead}-1-left");
        ip(&["netns", "add", &leftover]).unwrap();
        sweep_leftovers().unwrap();
        assert!(!Path::new(NAMED).join(&leftover).exists());
        assert!(mine.path().exists());
    }
}
