//! The outer process of the demo: it starts the inner one, waits, and cleans up whatever the end was.
//!
//! An interrupt may come while the inner process waits for a JVM, a proxy or a download. So it is not asked to stop: it is
//! killed with all it runs, and the namespaces it has left, with the processes inside, are removed by their names.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;
use ringmail_lab::{mesh::shared_temporary_place, netns::sweep_leftovers};

use crate::command_line::DemoArgs;
use crate::{Answer, output};

/// What ends the demo early.
const INTERRUPTS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

/// How the inner process ended.
enum End {
    Exited(ExitStatus),
    Interrupted(Signal),
}

/// Runs the demo in a process of its own and cleans up after it.
pub(super) fn run(args: &DemoArgs) -> Result<Answer> {
    let mut signals = SigSet::empty();
    INTERRUPTS.into_iter().chain([Signal::SIGCHLD]).for_each(|signal| signals.add(signal));
    // Before anything is started: from here on an interrupt waits until somebody looks.
    signals.thread_block().context("block signals")?;
    let scratch = tempfile::Builder::new()
        .prefix("ringmail-demo-")
        .tempdir_in(shared_temporary_place()?)
        .context("make a folder")?;
    let folder = match &args.keep {
        Some(keep) => keep_folder(keep)?,
        None => scratch.path().to_owned(),
    };
    // The proxies run as a user of their own and read their settings here.
    std::fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
    let mut inner = start(args, &folder)?;
    let end = wait(&mut inner, &signals);
    // Whatever came of it: nothing of it may go on.
    let _ = killpg(pid_of(&inner), Signal::SIGKILL);
    let _ = inner.wait();
    let swept = sweep_leftovers().context("clean up")?;
    scratch.close().context("remove the folder of the demo")?;
    match end? {
        End::Exited(status) if status.success() && swept.is_empty() => Ok(Answer::Yes),
        End::Exited(status) if status.success() => {
            bail!("demo: it left namespaces behind: {}", swept.join(", "))
        }
        End::Exited(_) if args.keep.is_some() => {
            bail!("demo: it did not hold; everything is taken down, the logs are in {}", folder.display())
        }
        End::Exited(_) => {
            bail!(
                "demo: it did not hold; everything is taken down (--keep DIRECTORY keeps the logs of another run)"
            )
        }
        End::Interrupted(signal) => {
            output::print("\n")?; // the line of the step that was under way
            bail!("demo: ended by {signal}; everything is taken down")
        }
    }
}

/// Ties the inner process to the outer one: it ends with it, and it takes signals again.
pub(super) fn follow_outer() -> Result<()> {
    SigSet::empty().thread_set_mask().context("unblock signals")?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("follow the outer process")
}

fn keep_folder(keep: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(keep).with_context(|| format!("make {}", keep.display()))?;
    keep.canonicalize().with_context(|| format!("find {}", keep.display()))
}

/// In a process group of its own, so that an interrupt at the terminal reaches the outer process alone.
fn start(args: &DemoArgs, folder: &Path) -> Result<Child> {
    Command::new(std::env::current_exe().context("find the running program")?)
        .args(["demo", "--ignite", args.ignite.as_str(), "--inside"])
        .arg(folder)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start the demo")
}

fn wait(inner: &mut Child, signals: &SigSet) -> Result<End> {
    loop {
        let signal = signals.wait().context("wait for a signal")?;
        if INTERRUPTS.contains(&signal) {
            return Ok(End::Interrupted(signal));
        }
        if let Some(status) = inner.try_wait().context("look at the demo")? {
            return Ok(End::Exited(status));
        }
    }
}

fn pid_of(inner: &Child) -> Pid {
    Pid::from_raw(inner.id().cast_signed())
}
