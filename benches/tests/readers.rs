//! Two thousand readers that do not read: in a program of its own, because memory is that of whole processes.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use ringmail_bench::{
    candidates::{CLIENT, Candidate, Place, Programs, SERVER, Setup, open_folder},
    cost::memory_of,
    load::ports,
};
use ringmail_evidence::shown;
use ringmail_lab::{netns::Namespace, wire};

/// Connections whose readers do not read.
const READERS: usize = 2_000;

/// Connections that wait to be accepted at the same time.
const OPENERS: usize = 8;

/// A port that is captured like any other.
const PORT: u16 = 7_301;

/// The kernel's buffers of a socket in the pods. They are not what is measured, and two thousand times the usual
/// ones, six on each way, are more than small machines have.
const SOCKET_BUFFERS: &str = "4096 16384 65536";

/// What a proxy may hold for a blocked connection: what it holds for an idle one and a small slab with its list of pieces,
/// with what the allocator needs around them.
const EACH_AT_MOST_KIB: i64 = 26;

/// What a proxy may hold beside that: the 32 slabs for bulk that a worker lends at most, of some 260 KiB each, and a
/// mebibyte for all else that a busy worker makes once.
const TOGETHER_AT_MOST_KIB: i64 = 32 * 260 + 1024;

/// What may be left of all that once they are gone: arenas of the allocator fill unevenly.
const LEFT_AT_MOST_KIB: i64 = 4 * 1024;

/// Windows in which another connection is asked, and how often in each. What is judged is the one in the middle: a machine that
/// is busy with something else spoils a few.
const WINDOWS: usize = 9;
const CALLS: usize = 100;
const BETWEEN_CALLS: Duration = Duration::from_millis(2);

/// What a call may take beside readers that never read, of what it takes without.
const AT_MOST_TIMES: f64 = 2.0;

/// How often it is looked: readers that disturb do so each time, and what else this machine does is over after some seconds, as
/// are the kernel's first questions on 8,000 connections whether their windows are open again.
const LOOKS: usize = 5;

/// Nothing is taken from any sender for so long: all are blocked.
const STUCK: Duration = Duration::from_secs(1);

/// How long a proxy may take to give memory back. It looks every two seconds whether a burst is over.
const BACK_WITHIN: Duration = Duration::from_secs(12);

#[test]
fn two_thousand_readers_that_do_not_read_cost_a_bounded_memory_which_comes_back() {
    let folder = open_folder().unwrap();
    let programs = Programs::find(PathBuf::from(env!("CARGO_BIN_EXE_ringmail-bench")), None).unwrap();
    let programs = programs.copied_to(folder.path()).unwrap();
    let setup = Setup { candidate: Candidate::Ringmail, exchange: None, workers: 1 };
    let place = Place::prepare(setup, &programs).unwrap();
    let (client, server) = (place.pod(CLIENT).unwrap(), place.pod(SERVER).unwrap());
    for pod in [client, server] {
        pod.namespace().enter(shrink_socket_buffers).unwrap();
    }
    let to = SocketAddr::new(server.ip(), PORT);
    let listener = server.namespace().enter(|| TcpListener::bind(to).unwrap()).unwrap();
    let before = anonymous(&place);
    let (port, size) = ports::ECHO[0];
    let mut caller = wire::connect(client.namespace(), (server.ip(), port).into()).unwrap();
    let mut quiet = percentiles_99(&mut caller, size);
    let pairs = connect_all(client.namespace(), to, &listener);
    let sent = send_until_stuck(&pairs);
    let quick = median(quiet.clone()).mul_f64(AT_MOST_TIMES);
    let mut beside = median(percentiles_99(&mut caller, size));
    for _ in 1..LOOKS {
        if beside <= quick {
            break;
        }
        beside = median(percentiles_99(&mut caller, size));
    }
    let most = EACH_AT_MOST_KIB * i64::try_from(READERS).unwrap() + TOGETHER_AT_MOST_KIB;
    for ((name, held), before) in ["client", "server"].iter().zip(anonymous(&place)).zip(&before) {
        let held = held - before;
        let each = held as f64 / READERS as f64;
        println!("{name}: {held} KiB for {READERS} blocked connections, {each:.1} each; {sent} bytes sent");
        let what = format!("KiB held for {READERS} readers that never read, {name}'s sidecar");
        shown!("F11", what, held, format!("<= {most}"));
        assert!(held <= most, "{name} holds {held} KiB, at most {most}");
    }
    drop(pairs);
    quiet.extend(percentiles_99(&mut caller, size));
    let quiet = median(quiet);
    println!("p99 of another connection: {quiet:?} without them, {beside:?} beside them");
    let times = beside.as_secs_f64() / quiet.as_secs_f64();
    assert!(times <= AT_MOST_TIMES, "{times:.2} times as long");
    shown!("F11", "p99 of another connection beside them, times that without", format!("{times:.2}"), "<= 2");
    let back = Instant::now() + BACK_WITHIN;
    let left = loop {
        let now = anonymous(&place);
        let left = [now[0] - before[0], now[1] - before[1]];
        if left.iter().all(|left| *left <= LEFT_AT_MOST_KIB) || Instant::now() > back {
            break left;
        }
        thread::sleep(Duration::from_millis(200));
    };
    println!("{left:?} KiB are left");
    assert!(left.iter().all(|left| *left <= LEFT_AT_MOST_KIB), "{left:?} KiB, at most {LEFT_AT_MOST_KIB}");
}

/// The 99th percentile of each of [`WINDOWS`] windows of calls on an established connection.
fn percentiles_99(caller: &mut TcpStream, size: usize) -> Vec<Duration> {
    let mut bytes = vec![7; size];
    let mut window = || {
        let mut call = || {
            thread::sleep(BETWEEN_CALLS);
            let began = Instant::now();
            caller.write_all(&bytes).unwrap();
            caller.read_exact(&mut bytes).unwrap();
            began.elapsed()
        };
        let mut times: Vec<_> = (0..CALLS).map(|_| call()).collect();
        times.sort_unstable();
        times[CALLS * 99 / 100 - 1]
    };
    (0..WINDOWS).map(|_| window()).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// KiB of anonymous memory of each proxy, the client's first.
fn anonymous(place: &Place) -> Vec<i64> {
    let proxies = place.proxies().unwrap();
    proxies.iter().map(|pids| memory_of(pids).unwrap().anonymous).collect()
}

fn shrink_socket_buffers() {
    for way in ["rmem", "wmem"] {
        fs::write(format!("/proc/sys/net/ipv4/tcp_{way}"), SOCKET_BUFFERS).unwrap();
    }
}

/// Both ends of [`READERS`] connections.
fn connect_all(client: &Namespace, to: SocketAddr, listener: &TcpListener) -> Vec<(TcpStream, TcpStream)> {
    let mut pairs = Vec::with_capacity(READERS);
    while pairs.len() < READERS {
        let near: Vec<_> = (0..OPENERS).map(|_| wire::connect(client, to).unwrap()).collect();
        // Which is whose does not matter: nobody reads.
        pairs.extend(near.into_iter().map(|near| (near, listener.accept().unwrap().0)));
    }
    pairs
}

/// Sends on every connection until nothing more is taken from any, and gives the bytes that were.
fn send_until_stuck(pairs: &[(TcpStream, TcpStream)]) -> usize {
    let piece = [7; 1 << 14];
    let mut sent = 0;
    let mut stuck = Instant::now() + STUCK;
    while Instant::now() < stuck {
        for (near, _) in pairs {
            let mut near = near;
            near.set_nonblocking(true).unwrap();
            match near.write(&piece) {
                Ok(written) => {
                    sent += written;
                    stuck = Instant::now() + STUCK;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    sent
}
