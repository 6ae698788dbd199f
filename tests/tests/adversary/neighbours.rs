//! Good clients beside the tables: they do not notice them, and the sidecar's memory stays.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::unistd::gettid;
use ringmail_evidence::shown;
use ringmail_lab::process::wait_until;
use ringmail_tests::{
    adversary::{
        handshakes::{MALFORMED, PLAINTEXT, Tools, VERSIONS},
        records,
    },
    arena::Arena,
    nightly,
    streams::holds,
};

use super::{client_says, dial, good_client, tools};

/// Windows of either kind, in turns.
const WINDOWS: usize = 7;

/// In each: so long that the 99th of 100 messages is one of many.
const MESSAGES: usize = 4_000;

/// What they may take longer while the adversary is at work.
const AT_MOST_TIMES: f64 = 2.0;

/// Between two hostile connections of one thread. The adversary is to be at work all the time, and not to take the
/// machine from those who are measured: what it computes itself is no load that a sidecar could refuse.
const PAUSE: Duration = Duration::from_millis(10);

/// What a sidecar may hold more than before, in KiB: a burst's memory, given back with a delay.
const AT_MOST_KIB_MORE: u64 = 8 << 10;

#[test]
fn good_clients_do_not_notice_the_tables_and_the_sidecars_memory_stays() {
    let arena = Arena::new(&[("workers", "1")]).unwrap();
    arena.serve().unwrap();
    let tools = tools(&arena);
    let mut good = good_client(&arena);
    let before = resident(&arena);
    let (at_work, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let thrown = AtomicUsize::new(0);
    let windows = if nightly() { WINDOWS * 9 } else { WINDOWS };
    let (quiet, disturbed): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        scope.spawn(|| work(&arena, &tools, (&at_work, &over), &thrown));
        let measured = (0..windows)
            .map(|_| {
                at_work.store(false, Ordering::Relaxed);
                thread::sleep(PAUSE * 5);
                let quiet = percentile_99(&mut good);
                at_work.store(true, Ordering::Relaxed);
                thread::sleep(PAUSE * 5);
                (quiet, percentile_99(&mut good))
            })
            .unzip();
        over.store(true, Ordering::Relaxed);
        measured
    });
    let times = median(&disturbed).as_secs_f64() / median(&quiet).as_secs_f64();
    println!("{quiet:?}\n{disturbed:?}");
    let after = wait_until(Duration::from_secs(10), "the memory comes back", || {
        let after = resident(&arena);
        anyhow::ensure!(after < before + AT_MOST_KIB_MORE, "{before} KiB became {after}");
        Ok(Some(after))
    })
    .unwrap();
    let thrown = thrown.into_inner();
    assert!(thrown > windows * MALFORMED.len() / 4, "only {thrown} hostile connections");
    println!("{thrown} hostile connections");
    assert!(times <= AT_MOST_TIMES, "{times:.2} times, after {thrown} hostile connections");
    for row in ["A1", "A10", "A11", "A12"] {
        let what = "p99 of good clients beside the tables, times that without";
        shown!(row, what, format!("{times:.2}"), "<= 2.0");
    }
    let more = after.saturating_sub(before);
    shown!("A11", "memory more after the tables, KiB", more, format!("<= {AT_MOST_KIB_MORE}"));
}

/// What the adversary computes for itself is nobody's measure: it takes what the others leave of the machine.
fn step_back() {
    let lowest = ["-n", "19", "-p", &gettid().to_string()].map(str::to_owned);
    let done = Command::new("renice").args(lowest).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// Whatever does not merely wait for a deadline, again and again while it is to be at work.
fn work(arena: &Arena, tools: &Tools, (at_work, over): (&AtomicBool, &AtomicBool), thrown: &AtomicUsize) {
    step_back();
    let quick =
        [PLAINTEXT, VERSIONS, MALFORMED].into_iter().flatten().filter(|row| !row.name.contains("silence"));
    let both = records::OF_BOTH.iter().filter(|row| !row.name.contains("without an end"));
    let acts: Vec<_> = quick.map(Ok).chain(both.map(Err)).collect();
    for act in acts.iter().cycle() {
        while !at_work.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
            thread::sleep(PAUSE / 4);
        }
        if over.load(Ordering::Relaxed) {
            return;
        }
        match act {
            Ok(row) => drop(dial(arena, tools, row).unwrap()),
            Err(row) => drop(client_says(arena, tools, row).unwrap()),
        }
        thrown.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
}

fn percentile_99(stream: &mut TcpStream) -> Duration {
    let mut took: Vec<_> = (0..MESSAGES)
        .map(|_| {
            let began = Instant::now();
            stream.write_all(&[7; 128]).unwrap();
            stream.read_exact(&mut [0; 128]).unwrap();
            began.elapsed()
        })
        .collect();
    took.sort();
    took[MESSAGES * 99 / 100]
}

fn median(windows: &[Duration]) -> Duration {
    let mut sorted = windows.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

/// Anonymous memory of the victim's data plane in KiB.
fn resident(arena: &Arena) -> u64 {
    let victim = arena.victim();
    let processes = victim.data_plane().unwrap();
    processes.iter().map(|pid| holds(*pid).unwrap().1).sum()
}
