//! System calls of both proxies for one request and its response, counted by strace: apart from everything else, since
//! what is traced is several times slower. For that reason too, what proxies do by the clock is taken off: the slower a
//! round trip, the more of it would fall on one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmail_lab::interrupt;
use ringmail_lab::netns::Namespace;
use ringmail_lab::process::{Child, Launch, Signal, wait_until};

use super::arguments::{Group, RunArguments};
use super::figures::Head;
use super::recorder::Recorder;
use super::stages::fresh;
use crate::candidates::{Candidate, Place, Programs};
use crate::load::Shape;
use crate::results::Better;

/// Enough that what is left of the clock's calls is less than a thousandth.
const MESSAGES: u64 = 16_000;

/// strace seizes every thread within moments.
const TRACED_DEADLINE: Duration = Duration::from_secs(10);

/// From the seizing of the threads to the first message, so that the calls interrupted by it are over.
const SETTLED: Duration = Duration::from_millis(300);

/// Takes one round, for the count does not vary; the error is an interruption.
pub(super) fn take(
    arguments: &RunArguments,
    candidates: &[Candidate],
    programs: &Programs,
    recorder: &mut Recorder,
) -> Result<()> {
    let head = Head {
        id: "syscalls-rr".to_owned(),
        group: Group::Syscalls.name(),
        title: "system calls of both proxies per request and response, 128 B, 1 connection".to_owned(),
        unit: "calls",
        better: Better::Lower,
    };
    for candidate in candidates.iter().copied().filter(|candidate| candidate.is_a_proxy()) {
        eprintln!("bench: system calls of {}", candidate.name());
        let calls = measure(arguments, candidate, programs);
        interrupt::check()?;
        match calls {
            Ok(calls) => recorder.sample(&head, candidate, 0, calls),
            Err(error) => {
                recorder.missing(&format!("{}: system calls", candidate.name()), &format!("{error:#}"))
            }
        }
    }
    Ok(())
}

fn measure(arguments: &RunArguments, candidate: Candidate, programs: &Programs) -> Result<f64> {
    let place = Place::prepare(fresh(candidate, arguments.workers), programs)?;
    let mut load = place.hold(&Shape::Count { messages: MESSAGES })?;
    // The first time warms up what is made on first use.
    load.again()?;
    let began = Instant::now();
    let loaded = traced(&place, || load.again())?;
    let took = began.elapsed();
    let idle = traced(&place, || {
        thread::sleep(took.saturating_sub(SETTLED));
        Ok(())
    })?;
    load.release()?;
    Ok((loaded as f64 - idle as f64) / MESSAGES as f64)
}

/// The calls of both proxies while `work` is done.
fn traced(place: &Place, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let summary = folder.path().join("summary");
    let namespace = Namespace::create("strace")?;
    let mut tracer = trace(&namespace, &place.proxies()?.concat(), &summary)?;
    work()?;
    tracer.signal(Signal::SIGINT)?;
    tracer.wait(TRACED_DEADLINE)?;
    let text = fs::read_to_string(&summary).with_context(|| tracer.log_tail())?;
    total_calls(&text)
}

fn trace(namespace: &Namespace, pids: &[u32], summary: &Path) -> Result<Child> {
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(summary);
    for pid in pids {
        command.args(["-p", &pid.to_string()]);
    }
    let log = summary.with_extension("log");
    let mut tracer = Child::spawn(namespace, &mut command, &Launch::new("strace", &log))?;
    wait_until(TRACED_DEADLINE, "strace has seized every proxy", || {
        if let Some(status) = tracer.try_wait()? {
            anyhow::bail!("it ended with {status}: {}", tracer.log_tail());
        }
        let seized = tracer.log_text().lines().filter(|line| line.contains("attached")).count();
        Ok((seized >= pids.len()).then_some(()))
    })?;
    thread::sleep(SETTLED);
    Ok(tracer)
}

/// The calls in the last line of strace's summary: `100.00    0.123    4    48000    12 total`.
fn total_calls(summary: &str) -> Result<u64> {
    let line = summary.lines().rev().find(|line| line.trim_end().ends_with("total"));
    let line = line.with_context(|| format!("no total in strace's summary: {summary:?}"))?;
    let numbers: Vec<_> = line.split_whitespace().collect();
    ensure!(numbers.len() >= 5, "strace's total has other columns: {line:?}");
    numbers[3].parse().with_context(|| format!("read the calls of {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_are_read_from_the_total() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
                       ------ ----------- ----------- --------- --------- ----------------\n\
                       60.00    0.012345           1     10000           read\n\
                       ------ ----------- ----------- --------- --------- ----------------\n\
                       100.00    0.020000           1     48000        12 total\n";
        assert_eq!(total_calls(summary).unwrap(), 48_000);
        assert_eq!(total_calls("100.00    0.02           1     48000           total\n").unwrap(), 48_000);
        assert!(total_calls("").is_err());
    }
}
