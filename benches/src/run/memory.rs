//! Memory, on proxies that have carried nothing but this: empty, with idle connections, and after a burst.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringmail_lab::interrupt;

use super::arguments::{Group, RunArguments};
use super::figures::Head;
use super::recorder::Recorder;
use super::stages::fresh;
use crate::candidates::{Candidate, Place, Programs};
use crate::load::Shape;
use crate::results::Better;

/// Idle connections that are held, one number after the other.
const IDLE: [usize; 2] = [1000, 9000];

/// Connections of the burst, all open at the same time.
const BURST: usize = 5000;

/// An allocator gives back by the second; what is still held after this stays.
const AFTER_BURST: Duration = Duration::from_secs(10);

/// For buffers that are given back when a connection goes idle.
const SETTLED: Duration = Duration::from_secs(2);

/// What the ids of the kernel's share end with.
const OF_KERNEL: &str = "-kernel";

/// A sleep is cut into these, so that an interruption is noticed.
const NAP: Duration = Duration::from_millis(100);

/// Takes all rounds; the error is an interruption.
pub(super) fn take(
    arguments: &RunArguments,
    candidates: &[Candidate],
    programs: &Programs,
    recorder: &mut Recorder,
) -> Result<()> {
    for round in 0..arguments.memory_rounds {
        for candidate in candidates.iter().copied().filter(|candidate| candidate.is_a_proxy()) {
            eprintln!(
                "bench: memory of {}, round {} of {}",
                candidate.name(),
                round + 1,
                arguments.memory_rounds
            );
            let values = measure(arguments, candidate, programs);
            interrupt::check()?;
            match values {
                Ok(values) => {
                    if !values.iter().any(|(head, _)| head.id.ends_with(OF_KERNEL)) {
                        recorder
                            .missing("memory of the kernel", "the memory controller of cgroup v2 is not on");
                    }
                    values.iter().for_each(|(head, value)| recorder.sample(head, candidate, round, *value));
                }
                Err(error) => {
                    recorder.missing(&format!("{}: memory", candidate.name()), &format!("{error:#}"));
                }
            }
        }
    }
    Ok(())
}

fn measure(arguments: &RunArguments, candidate: Candidate, programs: &Programs) -> Result<Vec<(Head, f64)>> {
    let place = Place::prepare(fresh(candidate, arguments.workers), programs)?;
    sleep(SETTLED)?;
    let (empty, empty_kernel) = (place.memory()?, kernel(&place));
    let mut values =
        vec![(head("base-memory", "memory of both proxies, no connection", "MB"), mb(empty.resident))];
    for connections in IDLE {
        let held = place.hold(&Shape::Hold { connections });
        let held = held.with_context(|| format!("hold {connections} connections"))?;
        sleep(SETTLED)?;
        let each = |difference: i64| difference as f64 / connections as f64;
        let title = format!("memory of both proxies per idle connection, {connections} of them");
        let more = place.memory()? - empty;
        values.push((head(&format!("idle-{connections}"), &title, "KB"), each(more.anonymous * 1024) / 1e3));
        if let (Some(before), Some(now)) = (empty_kernel, kernel(&place)) {
            let title = format!("memory of the kernel per idle connection, {connections} of them");
            let more = now.cast_signed() - before.cast_signed();
            values.push((head(&format!("idle-{connections}{OF_KERNEL}"), &title, "KB"), each(more) / 1e3));
        }
        held.release()?;
        sleep(SETTLED)?;
    }
    let after = burst(arguments, candidate, programs)?;
    let title = format!("memory of both proxies 10 s after a burst of {BURST} connections");
    values.push((head("burst-memory", &title, "MB"), after));
    Ok(values)
}

/// On proxies of its own, which have not held more connections than the burst's.
fn burst(arguments: &RunArguments, candidate: Candidate, programs: &Programs) -> Result<f64> {
    let place = Place::prepare(fresh(candidate, arguments.workers), programs)?;
    let held = place.hold(&Shape::Hold { connections: BURST }).context("hold a burst of connections")?;
    held.release()?;
    sleep(AFTER_BURST)?;
    Ok(mb(place.memory()?.resident))
}

/// What the kernel holds, in bytes.
fn kernel(place: &Place) -> Option<u64> {
    place.cgroup()?.kernel_memory().map(|memory| memory.kernel + memory.sock)
}

fn mb(kib: i64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

fn head(id: &str, title: &str, unit: &'static str) -> Head {
    Head {
        id: id.to_owned(),
        group: Group::Memory.name(),
        title: title.to_owned(),
        unit,
        better: Better::Lower,
    }
}

fn sleep(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        interrupt::check()?;
        thread::sleep(NAP.min(time));
    }
    Ok(())
}
