//! Ctrl-C: a run that is interrupted must still take its namespaces and processes with it.
//!
//! Nothing is done in a signal handler. The signals are blocked and waited for by a thread; every wait of the lab then ends
//! with an error, which travels up as any other does and drops what was made on its way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};

/// What a terminal, a service manager and a closed window send.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Turns the three signals that ask a program to end into errors of the lab's waits. To be called once, from the main thread
/// before any other is started: a thread inherits what is blocked. Processes started in a namespace do not.
pub fn catch() -> Result<()> {
    let signals: SigSet = SIGNALS.into_iter().collect();
    signals.thread_block().context("block the signals that end a program")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(())
}

/// An error once a signal was caught.
pub fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
