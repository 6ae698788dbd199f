//! Connections as fast as they can be opened: in a program of its own, because whatever runs beside it would take from
//! the rate.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use ringmail_bench::{
    candidates::{AUTHORITY, CLIENT, Candidate, Place, Programs, SERVER, Setup, open_folder},
    crowd::{Crowd, Over},
    load::ports,
};
use ringmail_lab::{process::wait_until, sidecar::INBOUND_PORT, wire};

/// How long connections are opened.
const RUSH: Duration = Duration::from_secs(3);

/// As many wait at the door at the same time: more than any worker accepts in one go, and half of the backlog, so that
/// a slow machine is slow and loses nothing.
const AT_ONCE: usize = 2_048;

/// Until the last records are closed and scraped.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// The kernel's counts of connections that found no place in a backlog.
const LOST: [&str; 2] = ["ListenOverflows", "ListenDrops"];

#[test]
fn a_rush_of_connections_loses_none_leaves_nothing_behind_and_an_established_one_is_answered_meanwhile() {
    let folder = open_folder().unwrap();
    let programs = Programs::find(PathBuf::from(env!("CARGO_BIN_EXE_ringmail-bench")), None).unwrap();
    let programs = programs.copied_to(folder.path()).unwrap();
    let setup = Setup { candidate: Candidate::Ringmail, exchange: None, workers: 1 };
    let place = Place::prepare(setup, &programs).unwrap();
    let server = place.pod(SERVER).unwrap().ip();
    let (port, size) = ports::ECHO[1];
    let established =
        wire::connect(place.pod(CLIENT).unwrap().namespace(), SocketAddr::new(server, port)).unwrap();
    exchange(&established, size);
    let proxy = &place.proxies().unwrap()[1];
    let (before, lost_before) = (holds(&place, proxy), lost(&place));
    let over = AtomicBool::new(false);
    let (outcome, exchanges) = thread::scope(|scope| {
        let exchanging = scope.spawn(|| {
            let mut exchanges = 0;
            while !over.load(Ordering::Relaxed) {
                exchange(&established, size);
                exchanges += 1;
            }
            exchanges
        });
        // The listener itself, not redirected: the proxy accepts, sees that nobody was called, and resets.
        let to = SocketAddr::new(server, INBOUND_PORT);
        let crowd = Crowd { to, says: &[], over: Over::Reset, at_once: AT_ONCE };
        let until = Instant::now() + RUSH;
        let rushing = || crowd.run(|_| Instant::now() < until);
        let outcome = place.pod(AUTHORITY).unwrap().namespace().enter(rushing).unwrap().unwrap();
        over.store(true, Ordering::Relaxed);
        (outcome, exchanging.join().unwrap())
    });
    let rate = outcome.opened as f64 / (outcome.ended - outcome.began).as_secs_f64();
    println!("{} connections, {rate:.0} per second, {exchanges} exchanges meanwhile", outcome.opened);
    let expected = Holds { closed: before.closed + outcome.opened, ..before };
    let back =
        wait_until(BACK_WITHIN, "what was before", || Ok((holds(&place, proxy) == expected).then_some(())));
    assert!(back.is_ok(), "{:?}, expected {expected:?}", holds(&place, proxy));
    assert_eq!(lost(&place), lost_before, "connections found no place in the backlog");
    assert!(exchanges > 0, "the established connection was not answered");
}

/// A message and its answer.
fn exchange(mut stream: &TcpStream, size: usize) {
    let mut message = vec![7; size];
    stream.write_all(&message).unwrap();
    stream.read_exact(&mut message).unwrap();
}

/// What the flooded proxy holds, and what it has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holds {
    descriptors: usize,
    open: usize,
    closed: usize,
}

fn holds(place: &Place, processes: &[u32]) -> Holds {
    let pod = place.pod(SERVER).unwrap();
    let descriptors =
        processes.iter().map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()).sum();
    let metrics = place.sidecar(SERVER).unwrap().admin(pod, "/stats/prometheus").unwrap().body;
    let inbound = |name: &str| -> usize {
        let series = metrics.lines().filter(|line| line.starts_with(name) && line.contains("\"inbound\""));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
    };
    let closed = inbound("ringmail_connections_closed_total{");
    Holds { descriptors, open: inbound("ringmail_connections_open{"), closed }
}

fn lost(place: &Place) -> Vec<u64> {
    let netstat = place.pod(SERVER).unwrap().namespace().run("cat", &["/proc/net/netstat"]).unwrap();
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let counts = names.zip(values).filter(|(name, _)| LOST.contains(name));
    counts.map(|(_, value)| value.parse().unwrap()).collect()
}
