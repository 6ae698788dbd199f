//! Established connections while two thousand others begin: in a program of its own, because whatever runs beside it
//! would be what they wait for.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    unistd::{Pid, gettid},
};
use ringmail_bench::{
    candidates::{AUTHORITY, CLIENT, Candidate, Place, Programs, SERVER, Setup, open_folder},
    crowd::{Crowd, Over},
    load::ports,
};
use ringmail_evidence::shown;
use ringmail_lab::wire;
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};

/// Connections that begin at once.
const FLOOD: usize = 2_000;

/// Connections that were there before, each with a message under way at the same time.
const ESTABLISHED: usize = 8;

/// Each is quiet first and flooded then. What is judged is the one in the middle: a machine that is busy with something
/// else spoils one or two.
const ROUNDS: usize = 9;

/// About as long as a flood lasts, so that both percentiles are of about as many messages.
const QUIET: Duration = Duration::from_millis(600);

/// After a flood, until what it left in the kernel is gone.
const SETTLED: Duration = Duration::from_millis(200);

/// What the 99th of 100 messages may take in a flood, of what it takes without.
const AT_MOST_TIMES: f64 = 2.0;

/// The first byte of a ServerHello's record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// With no answer for so many milliseconds, the path is broken.
const PATIENCE_MS: u16 = 20_000;

/// Before every ordinary thread of the machine. What is measured is a share of a core, not who else wants it.
const PRIORITY: u8 = 10;

/// The flood's own client gives way to those who are measured.
const PRIORITY_OF_THE_FLOOD: u8 = 1;

#[test]
fn a_flood_of_two_thousand_handshakes_leaves_established_connections_within_twice_their_latency() {
    let [core_of_the_flooded, other_core] = two_cores();
    stay_on(&[Pid::from_raw(0)], other_core);
    take_priority(PRIORITY);
    let folder = open_folder().unwrap();
    let programs = Programs::find(PathBuf::from(env!("CARGO_BIN_EXE_ringmail-bench")), None).unwrap();
    let programs = programs.copied_to(folder.path()).unwrap();
    // One worker has both: those who are there and those who come.
    let setup = Setup { candidate: Candidate::Ringmail, exchange: None, workers: 1 };
    let place = Place::prepare(setup, &programs).unwrap();
    stay_on(&threads(&place.proxies().unwrap()[1]), core_of_the_flooded);
    let (port, size) = ports::ECHO[1];
    let to = SocketAddr::new(place.pod(SERVER).unwrap().ip(), port);
    let hello = client_hello(to);
    let client = place.pod(CLIENT).unwrap().namespace();
    let callers: Vec<_> = (0..ESTABLISHED).map(|_| wire::connect(client, to).unwrap()).collect();
    let stop = AtomicBool::new(false);
    let (rounds, answers) = thread::scope(|scope| {
        let calling = scope.spawn(|| call(callers, size, &stop));
        let rounds: Vec<_> = (0..ROUNDS).map(|_| round(&place, to, &hello)).collect();
        stop.store(true, Ordering::Relaxed);
        (rounds, calling.join().unwrap())
    });
    let mut times: Vec<_> = rounds.iter().map(|(quiet, flood)| ratio(&answers, *quiet, *flood)).collect();
    times.sort_by(f64::total_cmp);
    let middle = times[ROUNDS / 2];
    println!("{middle:.2} times: the one in the middle of {times:.2?}");
    let what =
        format!("p99 of established connections while {FLOOD} handshakes begin at once, times that without");
    shown!("F15", what, format!("{middle:.2}"), format!("<= {AT_MOST_TIMES}"));
    assert!(middle <= AT_MOST_TIMES, "{middle:.2} times, at most {AT_MOST_TIMES}");
}

/// From when to when.
type Span = (Instant, Instant);

/// A quiet time, and one in which [`FLOOD`] handshakes are begun at once, until the last of them was answered. The proxy
/// does all the arithmetic of its first flight for each; this side, whose hello is always the same, does none.
fn round(place: &Place, to: SocketAddr, hello: &[u8]) -> (Span, Span) {
    thread::sleep(SETTLED);
    let began = Instant::now();
    thread::sleep(QUIET);
    let quiet = (began, Instant::now());
    let crowd = Crowd { to, says: hello, over: Over::Answer(HANDSHAKE_RECORD), at_once: FLOOD };
    let flooding = || {
        take_priority(PRIORITY_OF_THE_FLOOD);
        crowd.run(|_| false)
    };
    let flood = place.pod(AUTHORITY).unwrap().namespace().enter(flooding).unwrap().unwrap();
    (quiet, (flood.began, flood.ended))
}

/// When a message was sent, and how long its answer took.
struct Answer {
    sent: Instant,
    took: Duration,
}

/// How many times as long the 99th of 100 messages took in the flood.
fn ratio(answers: &[Answer], quiet: Span, flood: Span) -> f64 {
    let [before, meanwhile] = [quiet, flood].map(|span| percentile_99(answers, span));
    let times = meanwhile.as_secs_f64() / before.as_secs_f64();
    println!("p99 {before:?} quiet, {meanwhile:?} in a flood of {:?}: {times:.2} times", flood.1 - flood.0);
    times
}

fn percentile_99(answers: &[Answer], (from, to): Span) -> Duration {
    let within = |answer: &&Answer| answer.sent < to && answer.sent + answer.took > from;
    let mut times: Vec<_> = answers.iter().filter(within).map(|answer| answer.took).collect();
    times.sort();
    times[times.len() * 99 / 100]
}

/// A message over each connection at the same time, and when all are answered a rest of as long: without one, no time of
/// the core would be left to the client of the flood, which would come in drops.
fn call(mut callers: Vec<TcpStream>, size: usize, stop: &AtomicBool) -> Vec<Answer> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    for (index, caller) in (0..).zip(&callers) {
        epoll.add(caller, EpollEvent::new(EpollFlags::EPOLLIN, index)).unwrap();
    }
    let mut buffer = vec![7; size];
    let mut answers = Vec::new();
    let mut events = [EpollEvent::empty(); ESTABLISHED];
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let mut sent = [began; ESTABLISHED];
        for (caller, sent) in callers.iter_mut().zip(&mut sent) {
            *sent = Instant::now();
            caller.write_all(&buffer).unwrap();
        }
        let mut left = ESTABLISHED;
        while left > 0 {
            let ready = epoll.wait(&mut events, EpollTimeout::from(PATIENCE_MS)).unwrap();
            assert!(ready > 0, "no answer came");
            for event in &events[..ready] {
                let index = usize::try_from(event.data()).unwrap();
                callers[index].read_exact(&mut buffer).unwrap();
                answers.push(Answer { sent: sent[index], took: sent[index].elapsed() });
            }
            left -= ready;
        }
        thread::sleep(began.elapsed());
    }
    answers
}

/// A core for the proxy that is flooded, and another for everyone else: a scheduler lets the one that has become busy
/// keep a core for milliseconds, in which whoever shares it waits, and that is none of the proxy's. The same one twice
/// where there is no other.
fn two_cores() -> [usize; 2] {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap());
    let first = cores.next().unwrap();
    [first, cores.next().unwrap_or(first)]
}

fn stay_on(threads: &[Pid], core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core).unwrap();
    for thread in threads {
        sched_setaffinity(*thread, &cores).unwrap();
    }
}

fn threads(processes: &[u32]) -> Vec<Pid> {
    let folders = processes.iter().map(|process| format!("/proc/{process}/task"));
    let names =
        folders.flat_map(|folder| fs::read_dir(folder).unwrap()).map(|task| task.unwrap().file_name());
    names.map(|name| Pid::from_raw(name.to_str().unwrap().parse().unwrap())).collect()
}

/// Has this thread, and what it starts from now on, run before all of lower priority. Where that is not allowed, the
/// machine's other work is measured too.
fn take_priority(priority: u8) {
    let arguments = ["-f", "-p", &priority.to_string(), &gettid().to_string()].map(str::to_owned);
    let taken = Command::new("chrt").args(arguments).output();
    if !taken.as_ref().is_ok_and(|taken| taken.status.success()) {
        println!("no priority over the machine's other work: {taken:?}");
    }
}

/// What a client begins with whose key shares are those of a sidecar.
fn client_hello(to: SocketAddr) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::IpAddress(to.ip().into())).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
