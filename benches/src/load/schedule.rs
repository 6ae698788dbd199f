//! Messages in an open loop: each is sent at its time, whether or not answers have come.
//!
//! So a proxy that stalls is asked all the same, and its stall is in every time that it made longer. What the generator
//! itself is late by is recorded apart: it is no fault of a candidate, and a run in which it is much says nothing.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use nix::unistd::gettid;

use super::measured::{Measured, histogram, latency, note, percentile_us};
use super::request::{Caller, nanoseconds, open};
use super::socket;
use super::window::Window;

/// The kernel's default of 50 us would be added to each sleep.
const TIMER_SLACK_NS: std::ffi::c_ulong = 1;

/// What is spun instead of slept at the end of each wait: on a virtual machine an idle core takes about as long to wake up.
const SPIN: Duration = Duration::from_micros(100);

/// Any of them runs before all that is not of real time.
const LOWEST_REAL_TIME: &str = "1";

/// Events taken at once.
const EVENTS: usize = 64;

/// An answer that is missing for so long is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Bytes of a message and of its answer.
    pub(super) size: usize,
    /// Messages per second.
    pub(super) rate: u64,
    /// Connections, taken in turn.
    pub(super) connections: usize,
}

/// How many messages, and how many of them come before those that count.
#[derive(Clone, Copy, Debug)]
struct Messages {
    warm_up: u64,
    all: u64,
}

/// A message on its way.
struct Sent {
    at: Instant,
    counts: bool,
}

/// Sends every message at its time and waits for all answers.
pub(super) fn run(to: SocketAddr, plan: Plan, mut window: Window) -> Result<Measured> {
    ensure!(plan.rate > 0 && plan.connections > 0, "a schedule needs a rate and a connection");
    let within = |time: Duration| (time.as_secs_f64() * plan.rate as f64) as u64;
    let (warm_up, measure) = window.lengths();
    let messages = Messages { warm_up: within(warm_up), all: within(warm_up) + within(measure) };
    let (epoll, mut callers) = open(to, plan.size, plan.connections)?;
    let writers: Vec<_> = callers.iter().map(|caller| caller.stream.try_clone()).collect::<Result<_, _>>()?;
    let (senders, receivers): (Vec<_>, Vec<_>) = callers.iter().map(|_| channel()).unzip();
    let (times, lags) = thread::scope(|scope| {
        let sender = scope.spawn(|| send(&plan, messages, &writers, &senders, &mut window));
        let times = receive(&epoll, &mut callers, &receivers, plan.size, messages.all);
        let lags = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The sender's fault is the reason of the other's, where both have one.
        lags.and_then(|lags| Ok((times?, lags)))
    })?;
    window.close()?;
    let operations = messages.all - messages.warm_up;
    Ok(Measured {
        operations,
        bytes: operations * plan.size as u64,
        latency: latency(&times),
        lag_p99_us: Some(percentile_us(&lags, 99.0)),
        ..window.measured()
    })
}

/// Returns how late each message that counts was sent.
fn send(
    plan: &Plan,
    messages: Messages,
    writers: &[TcpStream],
    senders: &[Sender<Sent>],
    window: &mut Window,
) -> Result<Histogram<u64>> {
    set_timerslack(TIMER_SLACK_NS).context("set the timer slack")?;
    run_before_others();
    let message = vec![0; plan.size];
    let mut lags = histogram()?;
    let (begin, clock) = (Instant::now(), monotonic()?);
    for (index, (mut writer, sender)) in (0..messages.all).zip(writers.iter().zip(senders).cycle()) {
        let after = Duration::from_nanos(1_000_000_000 * index / plan.rate);
        wait_until(begin + after, clock + after)?;
        let counts = index >= messages.warm_up;
        if index == messages.warm_up {
            window.open()?;
        }
        let at = Instant::now();
        if counts {
            note(&mut lags, nanoseconds(at - (begin + after)));
        }
        sender.send(Sent { at, counts }).context("the receiving thread has ended")?;
        // Only a path that has taken nothing for seconds has a full send buffer.
        writer.write_all(&message).context("send a message on schedule")?;
    }
    Ok(lags)
}

/// Lets this thread run as soon as its time has come, also where both cores carry bytes: else the scheduler lets others
/// finish first, for up to milliseconds. Where the machine refuses it, the lag will tell.
fn run_before_others() {
    let thread = gettid().to_string();
    let told = Command::new("chrt").args(["--fifo", "--pid", LOWEST_REAL_TIME, &thread]).output();
    if !told.is_ok_and(|output| output.status.success()) {
        eprintln!("load: the sending thread has no priority over others");
    }
}

/// Sleeps, and spins what is left.
fn wait_until(moment: Instant, clock: Duration) -> Result<()> {
    let sleep_to = TimeSpec::from_duration(clock.saturating_sub(SPIN));
    match clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &sleep_to) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error).context("sleep"),
    }
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
    Ok(())
}

fn monotonic() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC).context("read the clock")?.into())
}

/// Takes all answers; returns how long those that count took.
fn receive(
    epoll: &Epoll,
    callers: &mut [Caller],
    receivers: &[Receiver<Sent>],
    size: usize,
    all: u64,
) -> Result<Histogram<u64>> {
    let mut times = histogram()?;
    let mut buffer = vec![0; size];
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut answered = 0;
    while answered < all {
        let ready = socket::wait(epoll, &mut events, PATIENCE)
            .with_context(|| format!("{answered} of {all} answers have come"))?;
        for event in &events[..ready] {
            let index = usize::try_from(event.data())?;
            let caller = callers.get_mut(index).context("an event of no connection")?;
            while caller.receive(&mut buffer)? {
                let sent = receivers[index].try_recv().context("an answer to no message")?;
                answered += 1;
                if sent.counts {
                    note(&mut times, nanoseconds(sent.at.elapsed()));
                }
            }
        }
    }
    Ok(times)
}
