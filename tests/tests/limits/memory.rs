//! Memory: under a limit what does not fit waits at the door; what is killed all the same is told of and comes back.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_lab::{
    cgroup::{Cgroup, Confinement},
    network::Pod,
    sidecar::SidecarSettings,
};
use ringmail_tests::{Shape, World, calls::crowd, nightly, said, streams::listen, world::CLIENT};

use super::{metric, recovers, world_with};

/// Connections at once that nobody reads from, in either direction.
const SLOW: usize = 2_000;

/// What the row says.
const MEMORY_LIMIT: u64 = 32 << 20;

/// The kernel's buffers of a socket in the pods. They are not what is asked about, and two thousand times the usual ones are more
/// than small machines have.
const SOCKET_BUFFERS: &str = "4096 16384 65536";

fn shrink_socket_buffers(pod: &Pod) {
    let write = || {
        ["rmem", "wmem"]
            .map(|way| fs::write(format!("/proc/sys/net/ipv4/tcp_{way}"), SOCKET_BUFFERS).unwrap())
    };
    pod.namespace().enter(write).unwrap();
}

/// A world whose `n1` may take [`MEMORY_LIMIT`], with further settings.
fn confined_world(confinement: &Confinement, key: &str, yaml: &str) -> World {
    let cgroup = confinement.cgroup();
    cgroup.limit_memory(MEMORY_LIMIT).unwrap();
    cgroup.count_socket_buffers().unwrap();
    let world = world_with(Shape::strict(), |settings| {
        SidecarSettings { cgroup: Some(cgroup.clone()), ..settings }.with(key, yaml)
    });
    for name in [CLIENT, "n1"] {
        shrink_socket_buffers(world.pod(name).unwrap());
    }
    world
}

/// What a cgroup held at most.
#[derive(Default)]
struct Held {
    memory: u64,
    sockets: u64,
    open: f64,
}

/// Opens [`SLOW`] connections, and for so long writes to both ends of each whatever they take; nobody reads.
fn press(world: &World, cgroup: &Cgroup, listener: &TcpListener, how_long: Duration) -> Held {
    let (client, node) = (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap());
    let stop = AtomicBool::new(false);
    let mut held = Held::default();
    thread::scope(|scope| {
        let accepting = scope.spawn(|| {
            listener.set_nonblocking(true).unwrap();
            let mut far = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                far.extend(std::iter::from_fn(|| listener.accept().ok()).map(|(stream, _)| stream));
                write_all_they_take(&far);
                sleep(Duration::from_millis(20));
            }
            listener.set_nonblocking(false).unwrap();
        });
        let near = crowd(client, node, SLOW).unwrap();
        let end = Instant::now() + how_long;
        while Instant::now() < end {
            write_all_they_take(&near);
            held.memory = held.memory.max(cgroup.memory().unwrap());
            held.sockets = held.sockets.max(cgroup.socket_buffers().unwrap());
            // A data plane that has just been killed says nothing.
            if let Ok(text) = said::metrics(&world.sidecars["n1"], node) {
                held.open = held.open.max(said::sum(&text, "ringmail_connections_open", &[]));
            }
            sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        accepting.join().unwrap();
    });
    held
}

fn write_all_they_take(streams: &[TcpStream]) {
    let piece = [7; 1 << 14];
    for mut stream in streams {
        stream.set_nonblocking(true).unwrap();
        // A full socket takes nothing, and one that was reset is of no more use here.
        while matches!(stream.write(&piece), Ok(1..)) {}
    }
}

#[test]
fn two_thousand_slow_connections_under_a_memory_limit_wait_at_the_door_and_kill_nobody() {
    let confinement = Confinement::create("shed").unwrap();
    let world = confined_world(&confinement, "max_connections", "0");
    let cgroup = confinement.cgroup();
    let listener = listen(world.pod("n1").unwrap()).unwrap();
    let idle = cgroup.memory().unwrap();
    let how_long = Duration::from_secs(if nightly() { 60 } else { 8 });
    let held = press(&world, cgroup, &listener, how_long);
    let kib = |bytes: u64| bytes >> 10;
    println!("idle {} KiB; sockets' buffers {} KiB", kib(idle), kib(held.sockets));
    shown!(
        "P6",
        "the sidecar's own memory at most, KiB of a limit of 32,768",
        kib(held.memory),
        "< the limit, by no kill"
    );
    shown!("P6", "connections held of 2,000 slow ones", held.open, "< 2,000: the others wait in the backlog");
    shown!(
        "P6",
        "the kernel's buffers of their sockets beside it, KiB",
        kib(held.sockets),
        "told, and not bounded"
    );
    assert_eq!(cgroup.memory_kills().unwrap(), 0, "the kernel killed for memory");
    assert_eq!(metric(&world, "ringmail_data_plane_restarts_total"), 0.0);
    assert!((100.0..SLOW as f64 / 2.0).contains(&held.open), "{} connections were held", held.open);
    assert!(metric(&world, "ringmail_accept_paused_total") > 0.0);
    let log = world.sidecars["n1"].log_text();
    let derived = log.lines().find(|line| line.contains("connections held at most"));
    assert!(derived.unwrap().contains("memory=32768 KiB"), "{derived:?}");
    let took = recovers(&world, &listener, Duration::from_secs(20));
    shown!(
        "P6",
        "a new connection is served afterwards within, s",
        format!("{:.1}", took.as_secs_f64()),
        "<= 20"
    );
}

#[test]
fn a_data_plane_that_is_killed_for_memory_is_told_of_by_its_parent_and_started_again() {
    let confinement = Confinement::create("killed").unwrap();
    // More than fits in: what is derived otherwise is what the test above holds by.
    let world = confined_world(&confinement, "max_connections", "5000");
    let listener = listen(world.pod("n1").unwrap()).unwrap();
    press(&world, confinement.cgroup(), &listener, Duration::from_secs(8));
    let kills = confinement.cgroup().memory_kills().unwrap();
    assert!(kills > 0, "nothing was killed: the test above shows nothing");
    recovers(&world, &listener, Duration::from_secs(30));
    let log = world.sidecars["n1"].log_text();
    let told = log
        .lines()
        .filter(|line| line.contains("the kernel killed the data plane because the container's memory"));
    let told = told.count();
    shown!(
        "F13",
        "kills for memory that the log tells, of those that the kernel counts",
        format!("{told} of {kills}"),
        ">= 1"
    );
    assert!(told > 0, "{log}");
}
