//! A load that stays until it is told to go on: connections that are held while memory is read, messages that are sent
//! while system calls are counted.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{ChildStdin, ChildStdout};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, poll};
use ringmail_lab::interrupt;
use ringmail_lab::process::Child;

use crate::load::HELD;

/// What a load may take beyond its own time: connections to open, answers to wait for.
pub(super) const LOAD_GRACE: Duration = Duration::from_secs(90);

/// How often a load that takes its time is left for a look at whether the run was interrupted, in milliseconds.
const POLL_MS: u8 = 100;

/// A load that stays.
pub struct Held {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Held {
    /// Waits until a load that was started with pipes is there.
    pub(super) fn begin(mut child: Child) -> Result<Self> {
        let (stdin, stdout) = child.take_pipes()?;
        let mut held = Self { child, stdin: Some(stdin), stdout: BufReader::new(stdout) };
        held.wait()?;
        Ok(held)
    }

    /// Lets it do its part once more, and waits until it has.
    pub fn again(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the load was let go")?;
        stdin.write_all(b"\n").context("tell the load to go on")?;
        self.wait()
    }

    /// Ends it, and with it its connections.
    pub fn release(mut self) -> Result<()> {
        self.stdin = None;
        let status = self.child.wait(LOAD_GRACE)?;
        ensure!(status.success(), "the load ended with {status}: {}", self.child.log_tail());
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        // Nothing of an earlier line is left in the buffer: a load says one word and waits.
        let mut word = [PollFd::new(self.stdout.get_ref().as_fd(), PollFlags::POLLIN)];
        while poll(&mut word, POLL_MS).context("wait for the load")? == 0 {
            interrupt::check()?;
        }
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("read what the load says")?;
        ensure!(line.trim() == HELD, "{}", last_line(&self.child.log_text()).unwrap_or("the load ended"));
        Ok(())
    }
}

/// What a log ends with.
pub(super) fn last_line(text: &str) -> Option<&str> {
    text.lines().rev().find(|line| !line.is_empty())
}
