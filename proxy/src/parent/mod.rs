//! The small process that outlives a crash of the data plane.
//!
//! It holds the listening sockets, so that connections which come while there is no data plane wait in
//! the backlog instead of being refused, the last credentials, so that the next data plane needs
//! neither the CA nor a renewal, and what discovery had said, so that it needs no server of that either. It looks into
//! none of them. It has one thread (beside the log's) and no runtime,
//! reads no network, and does nothing between a death and the next but wait, so that there is little to fail.
//!
//! - `handover`: what the two processes say to each other.
//! - `restarts`: how soon the next data plane is started.

pub(crate) mod handover;
mod restarts;

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid},
};
use tracing::{error, info, warn};

use crate::{cgroup, listen::Sockets, memory};
pub use handover::HandoverError;
use handover::{Greeting, Inbox, Kept, greet};
use restarts::Restarts;

/// The running binary itself, also when its file was replaced or removed.
const SELF: &str = "/proc/self/exe";
/// The name that process lists show.
const NAME: &str = "ringmail-proxy";
/// The argument that makes the binary a data plane.
pub const DATA_PLANE_FLAG: &str = "--data-plane";
/// A data plane reads its handover before anything else; one that does not is stuck.
const GREET_DEADLINE: Duration = Duration::from_secs(5);
/// Added to a signal's number where a process that died by it is reported as an exit code, as shells do.
const SIGNALLED: i32 = 128;

/// The signals that end the proxy. In both processes only one place takes them.
pub(crate) fn ending_signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

/// How a data plane ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Exited(i32),
    Killed(Signal),
}

impl End {
    fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => SIGNALLED + signal as i32,
        }
    }
}

/// The parent's state; see the module.
pub struct Parent {
    sockets: Sockets,
    config: String,
    arguments: Vec<OsString>,
    signals: SignalFd,
    kept: Kept,
    restarts: Restarts,
    stopping: bool,
}

impl Parent {
    /// A parent of data planes that are started with `arguments` and run by `config`, the text of the
    /// configuration file by which `sockets` were bound.
    ///
    /// # Errors
    /// What the system reports when signals cannot be taken.
    pub fn new(sockets: Sockets, config: String, arguments: Vec<OsString>) -> io::Result<Self> {
        let mut signals = ending_signals();
        signals.add(Signal::SIGCHLD);
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let restarts = Restarts::default();
        Ok(Self { sockets, config, arguments, signals, kept: Kept::default(), restarts, stopping: false })
    }

    /// Runs data planes until one ends of itself or was told to. Answers the exit code.
    ///
    /// # Errors
    /// What the system reports when the parent cannot wait. A data plane that cannot be started is
    /// tried again instead.
    pub fn run(mut self) -> io::Result<i32> {
        loop {
            let (started, kills) = (Instant::now(), cgroup::memory_kills());
            match self.start() {
                Ok((child, stream)) => {
                    let end = self.attend(child, &stream)?;
                    if self.stopping || end == End::Exited(0) {
                        return Ok(end.code());
                    }
                    if end == End::Killed(Signal::SIGKILL) && cgroup::memory_kills() > kills {
                        error!(
                            limit = cgroup::memory_limit(),
                            "the kernel killed the data plane because the container's memory is used up: raise its limit, \
                             or lower max_connections where it is set"
                        );
                    }
                    error!(?end, after = ?started.elapsed(), "data plane died: starting it again");
                }
                Err(error) => {
                    let error = cgroup::explain(error);
                    error!(%error, "data plane cannot be started: trying again");
                }
            }
            let pause = self.restarts.died(Instant::now());
            if !pause.is_zero() {
                warn!(?pause, "data plane dies too often: waiting");
                self.rest(pause)?;
                if self.stopping {
                    return Ok(0);
                }
            }
        }
    }

    fn start(&self) -> io::Result<(Pid, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_write_timeout(Some(GREET_DEADLINE))?;
        let child = Command::new(SELF)
            .arg0(NAME)
            .args(&self.arguments)
            .arg(DATA_PLANE_FLAG)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // A terminal's Ctrl-C reaches a whole group: the data plane shall hear it once, from here.
            .process_group(0)
            .spawn()?;
        let child = Pid::from_raw(child.id().cast_signed());
        let greeting =
            Greeting::new(getpid().as_raw(), self.restarts.total(), self.config.clone(), &self.sockets);
        if let Err(error) = greet(&ours, &greeting, &self.sockets, &self.kept) {
            error!(%error, "data plane did not take over: killing it");
            let _ = kill(child, Signal::SIGKILL);
        }
        info!(pid = child.as_raw(), restarts = self.restarts.total(), "data plane started");
        Ok((child, ours))
    }

    /// Forwards signals and keeps what is left until `child` ends.
    fn attend(&mut self, child: Pid, stream: &UnixStream) -> io::Result<End> {
        let mut inbox = Inbox::default();
        let mut listening = true;
        memory::give_back_all();
        loop {
            self.wait(listening.then_some(stream), PollTimeout::NONE)?;
            if listening {
                listening = self.receive(&mut inbox, stream);
                // It comes rarely, and what taking it needed would stay for as long as nothing else happens.
                memory::give_back_all();
            }
            if self.take_signals()? {
                let _ = kill(child, Signal::SIGTERM);
            }
            if let Some(end) = reap(child)? {
                // What it sent just before it died counts as well.
                if listening {
                    self.receive(&mut inbox, stream);
                }
                return Ok(end);
            }
        }
    }

    fn receive(&mut self, inbox: &mut Inbox, stream: &UnixStream) -> bool {
        inbox.read(stream, &mut self.kept).unwrap_or_else(|error| {
            warn!(%error, "what the data plane leaves is not kept");
            false
        })
    }

    fn wait(&self, stream: Option<&UnixStream>, timeout: PollTimeout) -> io::Result<()> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(stream.map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes all pending signals, and answers whether one of them ends the proxy.
    fn take_signals(&mut self) -> io::Result<bool> {
        let mut ending = false;
        while let Some(info) = self.signals.read_signal()? {
            let taken = Signal::try_from(info.ssi_signo.cast_signed())?;
            ending |= ending_signals().contains(taken);
        }
        self.stopping |= ending;
        Ok(ending)
    }

    /// Waits before the next start, and takes signals meanwhile.
    fn rest(&mut self, pause: Duration) -> io::Result<()> {
        let end = Instant::now() + pause;
        while !self.stopping {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Rounded up, so that the last wait is not spent in a spin.
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            self.wait(None, timeout)?;
            self.take_signals()?;
        }
        Ok(())
    }
}

/// Collects every child that ended (process 1 of a container inherits orphans) and answers how `child` did.
fn reap(child: Pid) -> io::Result<Option<End>> {
    let mut end = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => end = Some(End::Exited(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => end = Some(End::Killed(signal)),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(end),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
