//! How long a good client waits: what every fault and flood is measured by, beside the same client in quiet times.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ringmail_lab::network::Pod;

use crate::streams::{OWN_PORT, cpu, pair};

/// Calls of a window. Their 99th percentile is the slowest but one.
const CALLS: usize = 100;

/// Between two calls, so that a caller is no load itself.
const PAUSE: Duration = Duration::from_millis(2);

/// Bytes of a question and of its answer.
const SIZE: usize = 128;

/// A client that asks and waits for the answer, again and again, on one established connection.
#[derive(Debug)]
pub struct Caller {
    near: TcpStream,
}

impl Caller {
    /// Connects from one pod to a listener in another, where a thread answers from now on.
    pub fn between(from: &Pod, to: &Pod, listener: &TcpListener) -> Result<Self> {
        let (near, far) = pair(from, to, listener)?;
        // It ends with the connection.
        thread::spawn(move || answer(far));
        Ok(Self { near })
    }

    /// Asks once, and gives how long the answer took.
    pub fn call(&mut self) -> Result<Duration> {
        let (mut bytes, began) = ([7; SIZE], Instant::now());
        self.near.write_all(&bytes).context("ask")?;
        self.near.read_exact(&mut bytes).context("read the answer")?;
        Ok(began.elapsed())
    }

    /// The 99th percentile of each of so many windows, the smallest first.
    pub fn percentiles_99(&mut self, windows: usize) -> Result<Vec<Duration>> {
        let mut all = Vec::with_capacity(windows);
        for _ in 0..windows {
            let mut times = Vec::with_capacity(CALLS);
            for _ in 0..CALLS {
                times.push(self.call()?);
                sleep(PAUSE);
            }
            times.sort_unstable();
            all.push(times[CALLS * 99 / 100 - 1]);
        }
        all.sort_unstable();
        Ok(all)
    }
}

/// The one in the middle of windows that are sorted.
pub fn median(windows: &[Duration]) -> Duration {
    windows.get(windows.len() / 2).copied().unwrap_or_default()
}

/// How many times as long a call takes as without: of the windows in the middle, those of quiet times before and after together.
pub fn times_as_long(before: Vec<Duration>, during: &[Duration], after: Vec<Duration>) -> f64 {
    let mut quiet: Vec<_> = before.into_iter().chain(after).collect();
    quiet.sort_unstable();
    println!("p99 of windows: quiet {quiet:.0?}, meanwhile {during:.0?}");
    median(during).as_secs_f64() / median(&quiet).as_secs_f64()
}

/// Echoes until the other side ends.
fn answer(mut far: TcpStream) {
    let mut bytes = [0; SIZE];
    while far.read_exact(&mut bytes).is_ok() && far.write_all(&bytes).is_ok() {}
}

/// So many connections from a pod to [`OWN_PORT`] of another, made one after the other. Nothing is said on them.
pub fn crowd(from: &Pod, to: &Pod, count: usize) -> Result<Vec<TcpStream>> {
    let address = SocketAddr::new(to.ip(), OWN_PORT);
    let connect = || (0..count).map(|_| TcpStream::connect(address)).collect::<Result<Vec<_>, _>>();
    from.namespace().enter(connect)?.with_context(|| format!("{count} connections to {address}"))
}

/// Says that something is to end when it is dropped, so also where a step fails: threads that waited for the word would hold up the
/// failure for ever.
#[derive(Debug)]
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How much of a core a process takes while `work` runs.
pub fn share_of_a_core<T>(pid: u32, work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let (before, began) = (cpu(pid)?, Instant::now());
    let done = work()?;
    Ok(((cpu(pid)? - before).as_secs_f64() / began.elapsed().as_secs_f64(), done))
}
