//! A JVM that runs one of the lab's programs, and the line protocol to it: requests and answers by number, events in between.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::event::{Event, EventKind};
use super::fetch::Installation;
use crate::interrupt;
use crate::network::Pod;
use crate::process::{Child, Launch, Signal};

/// What every JVM of the lab gets: small, quick to start, and the doors into the JDK that Ignite needs from Java 15 on (the
/// list of its own start script).
pub(super) const JVM_FLAGS: [&str; 32] = [
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-DIGNITE_UPDATE_NOTIFIER=false",
    "-DIGNITE_QUIET=false",
    "-DIGNITE_PERFORMANCE_SUGGESTIONS_DISABLED=true",
    "-DIGNITE_NO_ASCII=true",
    "--add-opens=java.base/jdk.internal.access=ALL-UNNAMED",
    "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/sun.util.calendar=ALL-UNNAMED",
    "--add-opens=java.base/sun.reflect.generics.reflectiveObjects=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/java.net=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.lang.invoke=ALL-UNNAMED",
    "--add-opens=java.base/java.lang.reflect=ALL-UNNAMED",
    "--add-opens=java.base/java.math=ALL-UNNAMED",
    "--add-opens=java.base/java.time=ALL-UNNAMED",
    "--add-opens=java.base/java.text=ALL-UNNAMED",
    "--add-opens=java.base/java.security.cert=ALL-UNNAMED",
    "--add-opens=java.management/com.sun.jmx.mbeanserver=ALL-UNNAMED",
    "--add-opens=java.management/sun.management=ALL-UNNAMED",
    "--add-opens=jdk.internal.jvmstat/sun.jvmstat.monitor=ALL-UNNAMED",
    "--add-opens=jdk.management/com.sun.management.internal=ALL-UNNAMED",
    "--add-opens=java.sql/java.sql=ALL-UNNAMED",
    "--add-opens=java.desktop/java.awt.font=ALL-UNNAMED",
];

/// How often a wait for a JVM looks whether the run was interrupted.
const WAKE: Duration = Duration::from_millis(100);

/// What a JVM is started with.
pub(super) struct JvmStart<'a> {
    pub(super) installation: &'a Installation,
    pub(super) program: &'a str,
    pub(super) flags: Vec<String>,
    pub(super) arguments: Vec<String>,
    pub(super) log: PathBuf,
}

/// A running JVM. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Jvm {
    child: Child,
    requests: Mutex<ChildStdin>,
    next: AtomicU64,
    said: Arc<Said>,
}

/// What the JVM has said, shared with the thread that reads it.
#[derive(Debug, Default)]
struct Said {
    state: Mutex<SaidState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SaidState {
    events: Vec<Event>,
    replies: HashMap<u64, String>,
    ended: bool,
}

impl Jvm {
    pub(super) fn start(pod: &Pod, start: &JvmStart<'_>) -> Result<Self> {
        let mut command = start.installation.java(start.program, &start.flags);
        command.args(&start.arguments);
        let name = format!("{} {}", start.program.to_lowercase(), pod.name());
        let mut child = pod.spawn(&mut command, &Launch::new(name, &start.log).piped())?;
        let (stdin, stdout) = child.take_pipes()?;
        let said = Arc::new(Said::default());
        let heard = Arc::clone(&said);
        thread::Builder::new().name(format!("read {}", pod.name())).spawn(move || heard.read(stdout))?;
        Ok(Self { child, requests: Mutex::new(stdin), next: AtomicU64::new(1), said })
    }

    /// Sends a request and waits for its answer; the JVM's own error is this one's.
    pub(super) fn ask(&self, request: &str, deadline: Duration) -> Result<String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(requests, "{id} {request}").with_context(|| self.broken(request))?;
        }
        let reply = self.said.wait(deadline, |state| state.replies.remove(&id));
        if reply.is_none() {
            interrupt::check()?;
        }
        let reply =
            reply.with_context(|| format!("no answer within {deadline:?}: {}", self.broken(request)))?;
        match reply.split_once(' ') {
            Some(("OK", answer)) => Ok(answer.to_owned()),
            _ => bail!("{}: {request}: {reply}", self.child.name()),
        }
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.said.lock().events.clone()
    }

    /// Waits for an event, which may have happened before.
    pub(super) fn wait_event(
        &self,
        deadline: Duration,
        what: &str,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Event> {
        let event =
            self.said.wait(deadline, |state| state.events.iter().find(|event| wanted(event)).cloned());
        interrupt::check()?;
        event.with_context(|| format!("{}: not within {deadline:?}: {}", what, self.broken("wait")))
    }

    /// Waits until the program says that it is ready, or why it is not.
    pub(super) fn wait_started(&self, deadline: Duration) -> Result<Event> {
        let event = self.wait_event(deadline, "start", |event| {
            matches!(event.kind, EventKind::Started | EventKind::StartFailed(_))
        })?;
        if let EventKind::StartFailed(reason) = &event.kind {
            bail!("{} did not start: {reason}", self.child.name());
        }
        Ok(event)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        self.child.signal(signal)
    }

    pub(super) fn kill9(&mut self) -> Result<ExitStatus> {
        self.child.kill9()
    }

    pub(super) fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.child.wait(deadline)
    }

    pub(super) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    pub(super) fn log_text(&self) -> String {
        self.child.log_text()
    }

    fn broken(&self, request: &str) -> String {
        format!("{} asked {request:?}; its log ends with:\n{}", self.child.name(), self.child.log_tail())
    }
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, SaidState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds something; none when the time is up or the JVM has said its last.
    fn wait<T>(&self, deadline: Duration, mut look: impl FnMut(&mut SaidState) -> Option<T>) -> Option<T> {
        let end = Instant::now() + deadline;
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended || interrupt::check().is_err() {
                return None;
            }
            state =
                self.changed.wait_timeout(state, left.min(WAKE)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn read(&self, stdout: ChildStdout) {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let mut state = self.lock();
            match reply(&line) {
                Some((id, answer)) => {
                    state.replies.insert(id, answer);
                }
                None => state.events.push(Event::parse(&line)),
            }
            self.changed.notify_all();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

fn reply(line: &str) -> Option<(u64, String)> {
    let (id, answer) = line.strip_prefix("REPLY ")?.split_once(' ')?;
    Some((id.parse().ok()?, answer.to_owned()))
}
