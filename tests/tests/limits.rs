//! A sidecar that has too little of something: descriptors, memory, processes; or that too much is asked of.
//!
//! What it cannot hold waits or is refused, and is counted. It neither dies of it nor spins, and is itself again afterwards.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt},
};
use ringmail_evidence::shown;
use ringmail_lab::{
    cgroup::{Cgroup, Confinement},
    network::Pod,
    process::wait_until,
    shape,
    sidecar::SidecarSettings,
    wire,
};
use ringmail_tests::{
    Shape, World,
    calls::{Caller, crowd, share_of_a_core, times_as_long},
    nightly, said,
    streams::{OWN_PORT, holds, listen, pair, raise_descriptors},
    versions,
    world::{CA, CLIENT, SERVICE_ACCOUNT, STRANGER},
};

/// Sidecars see a pod that has come into the mesh within a second.
const ANNOUNCED: Duration = Duration::from_millis(1_500);

/// Descriptors that a sidecar may have more than before something, once it is over: an admin connection that still closes, and
/// pipes that a worker keeps.
const MORE_DESCRIPTORS: usize = 5;

/// What a machine that is busy may make of a p99 is part of twice as long.
const AT_MOST_TIMES: f64 = 2.0;

/// A world where the client has a sidecar of the usual kind, and `n1` one of these settings.
fn world_with(shape: Shape, n1: impl FnOnce(SidecarSettings) -> SidecarSettings) -> World {
    raise_descriptors().unwrap();
    let mut world = World::new(versions()[0], Shape { meshed: vec![CLIENT], ..shape }).unwrap();
    let settings = n1(world.shape.sidecar.clone());
    world.start_sidecar_as("n1", &settings).unwrap();
    world.wait_ready("n1").unwrap();
    sleep(ANNOUNCED);
    world
}

fn plane(world: &World) -> u32 {
    world.sidecars["n1"].data_plane().unwrap()[0]
}

fn metric(world: &World, name: &str) -> f64 {
    said::sum(&said::metrics(&world.sidecars["n1"], world.pod("n1").unwrap()).unwrap(), name, &[])
}

fn ended(world: &World, reason: &str) -> f64 {
    said::ended(&world.sidecars["n1"], world.pod("n1").unwrap(), reason).unwrap()
}

/// A connection through both sidecars carries a byte, within so long.
fn recovers(world: &World, listener: &TcpListener, within: Duration) -> Duration {
    let (client, node) = (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap());
    let began = Instant::now();
    // Whoever was refused meanwhile may still be in the listener's backlog.
    listener.set_nonblocking(true).unwrap();
    wait_until(within, "a new connection is served", || {
        let mut near = wire::connect(client.namespace(), SocketAddr::new(node.ip(), OWN_PORT))?;
        near.write_all(b"anew")?;
        let mut far =
            wait_until(Duration::from_secs(3), "it is accepted", || Ok(Some(listener.accept()?)))?.0;
        far.set_nonblocking(false)?;
        far.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut heard = [0; 4];
        far.read_exact(&mut heard)?;
        Ok((&heard == b"anew").then_some(()))
    })
    .unwrap();
    listener.set_nonblocking(false).unwrap();
    began.elapsed()
}

/// Descriptors of the data plane, once they are back at what they were, or after a while.
fn descriptors_over(world: &World, before: usize) -> usize {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let over = holds(plane(world)).unwrap().0.saturating_sub(before);
        if over <= MORE_DESCRIPTORS || Instant::now() > until {
            return over;
        }
        sleep(Duration::from_millis(200));
    }
}

#[test]
fn without_descriptors_a_sidecar_rests_answers_renews_and_recovers() {
    const DESCRIPTORS: u32 = 256;
    const STRANGERS: usize = 300;
    const ESTABLISHED: usize = 10;
    let shape = Shape::strict().with_ca(&["--ttl", "20s"]).with("certificate_ttl", "20s");
    let world = world_with(shape, |settings| SidecarSettings {
        descriptors: Some(DESCRIPTORS),
        // Longer than all this takes: nobody's deadline makes room.
        ..settings.with("handshake_timeout", "2m")
    });
    let (client, node, stranger) =
        (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap(), world.pod(STRANGER).unwrap());
    let listener = listen(node).unwrap();
    let mut established: Vec<_> =
        (0..ESTABLISHED).map(|_| Caller::between(client, node, &listener).unwrap()).collect();
    let strangers = crowd(stranger, node, STRANGERS).unwrap();
    wait_until(Duration::from_secs(5), "accepting rests", || {
        Ok((metric(&world, "ringmail_accept_paused_total") > 0.0).then_some(()))
    })
    .unwrap();
    let refreshed = || {
        said::sum(
            &said::metrics(&world.sidecars["n1"], node).unwrap(),
            "control_identity_cert_refreshes_total",
            &["result=\"ok\""],
        )
    };
    let renewals = refreshed();
    let (share, most) = share_of_a_core(plane(&world), || {
        let (mut most, end) = (0, Instant::now() + Duration::from_secs(4));
        while Instant::now() < end {
            most = most.max(holds(plane(&world))?.0);
            sleep(Duration::from_millis(200));
        }
        Ok(most)
    })
    .unwrap();
    shown!(
        "F12",
        "share of a core while all descriptors are taken, %",
        format!("{:.1}", share * 100.0),
        "< 20"
    );
    assert!(share < 0.2, "{share}");
    assert!(most <= DESCRIPTORS as usize, "{most}");
    assert_eq!(world.sidecars["n1"].readiness(node).unwrap().status, 200);
    for caller in &mut established {
        caller.call().unwrap();
    }
    wait_until(Duration::from_secs(30), "the certificate is renewed", || {
        Ok((refreshed() > renewals).then_some(()))
    })
    .unwrap();
    shown!("F12", "renewals while all descriptors are taken", refreshed() - renewals, ">= 1");
    drop(strangers);
    let took = recovers(&world, &listener, Duration::from_secs(10));
    shown!(
        "F12",
        "a new connection is served afterwards within, s",
        format!("{:.1}", took.as_secs_f64()),
        "<= 10"
    );
}

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

#[test]
fn a_storm_of_resets_leaks_no_descriptor_and_every_one_is_counted() {
    const PER_SECOND: u32 = 1_000;
    let seconds = if nightly() { 30 } else { 5 };
    let world = world_with(Shape::strict(), |settings| settings);
    let (client, node, stranger) =
        (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap(), world.pod(STRANGER).unwrap());
    let listener = listen(node).unwrap();
    recovers(&world, &listener, Duration::from_secs(10));
    let inbound = || said::ended_in_all(&world.sidecars["n1"], node, "inbound").unwrap();
    let (ended_before, descriptors) = (inbound(), holds(plane(&world)).unwrap().0);
    let count = PER_SECOND * seconds;
    let began = Instant::now();
    stranger.namespace().enter(|| storm((node.ip(), OWN_PORT).into(), PER_SECOND, count)).unwrap();
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    let counted = wait_until(Duration::from_secs(20), "every reset is counted", || {
        let counted = inbound() - ended_before;
        anyhow::ensure!(counted >= f64::from(count), "{counted} of {count}");
        Ok(Some(counted))
    })
    .unwrap();
    let by_reason = ["handshake_eof", "remote_reset", "no_original_destination"]
        .map(|reason| (reason, ended(&world, reason)));
    println!("{rate:.0} resets a second, ended for {by_reason:?}");
    shown!(
        "F10",
        format!("resets by a stranger that are counted, of {count} at {rate:.0} a second"),
        counted,
        "all, each by its reason"
    );
    assert_eq!(counted, f64::from(count));
    assert_eq!(ended(&world, "aborted"), 0.0);
    // And connections that were established, by the kernel of one side.
    let mut pairs: Vec<_> = (0..50).map(|_| pair(client, node, &listener).unwrap()).collect();
    let before = ended(&world, "application_reset");
    shape::reset_connections(node, OWN_PORT).unwrap();
    for (near, _) in &mut pairs {
        assert!(near.read(&mut [0]).is_err(), "a reset arrived as something else");
    }
    assert_eq!(ended(&world, "application_reset") - before, 50.0);
    drop(pairs);
    let over = descriptors_over(&world, descriptors);
    shown!("F10", format!("descriptors after {} resets, over before", count + 50), over, "<= 5");
    assert!(over <= MORE_DESCRIPTORS, "{over} descriptors over {descriptors}");
}

/// So many connections, each with a byte like that of a handshake, and reset.
fn storm(to: SocketAddr, per_second: u32, count: u32) {
    let began = Instant::now();
    for number in 0..count {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(&[0x16]).unwrap();
        setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
        drop(stream);
        sleep(
            (began + Duration::from_secs(1) * number / per_second).saturating_duration_since(Instant::now()),
        );
    }
}

/// How the first record of a handshake begins; the rest never comes.
const HALF_A_HANDSHAKE: [u8; 11] = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];

/// Connections that one source may hold by default, and who comes beyond them here.
const PER_SOURCE: usize = 2_048;
const BEYOND: usize = 52;

/// By default a handshake has 15 s.
const ENDED_WITHIN: Duration = Duration::from_secs(25);

#[test]
fn drippers_and_half_handshakes_are_ended_by_the_deadline_and_good_clients_do_not_wait_for_them() {
    const DRIP: Duration = Duration::from_secs(5);
    let (drippers, halves) = if nightly() { (2_000, [2_000, 2_000, 1_000]) } else { (400, [400, 400, 200]) };
    let world = world_with(Shape::strict(), |settings| settings);
    let (client, node, stranger) =
        (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap(), world.pod(STRANGER).unwrap());
    let listener = listen(node).unwrap();
    let mut caller = Caller::between(client, node, &listener).unwrap();
    let before = caller.percentiles_99(9).unwrap();
    let (timeouts, refused) =
        (ended(&world, "handshake_timeout"), ended(&world, "limit_connections_per_source"));
    let began = Instant::now();
    let mut hostile: Vec<TcpStream> = Vec::new();
    for (name, count) in ["n2", "n3", CA].into_iter().zip(halves) {
        hostile.extend(crowd(world.pod(name).unwrap(), node, count).unwrap());
    }
    hostile.iter_mut().for_each(|stream| stream.write_all(&HALF_A_HANDSHAKE).unwrap());
    // The rest of what one source may hold says nothing, and what comes beyond it is refused.
    let mut of_one_source = crowd(stranger, node, PER_SOURCE + BEYOND).unwrap();
    let (during, slowest_new) = thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            let during = caller.percentiles_99(21).unwrap();
            let began = Instant::now();
            drop(pair(client, node, &listener).unwrap());
            (during, began.elapsed())
        });
        for byte in HALF_A_HANDSHAKE.iter().take(2) {
            of_one_source.iter_mut().take(drippers).for_each(|stream| drop(stream.write_all(&[*byte])));
            sleep(DRIP);
        }
        measuring.join().unwrap()
    });
    assert!(began.elapsed() < Duration::from_secs(15), "what was measured is over: {:?}", began.elapsed());
    let all = hostile.len() + PER_SOURCE;
    wait_until(ENDED_WITHIN, "all are ended by the deadline", || {
        let over = ended(&world, "handshake_timeout") - timeouts;
        anyhow::ensure!(over >= all as f64, "{over} of {all}");
        Ok(Some(()))
    })
    .unwrap();
    let (last, beyond) = (began.elapsed(), ended(&world, "limit_connections_per_source") - refused);
    let times = times_as_long(before, &during, caller.percentiles_99(9).unwrap());
    let what = format!(
        "{drippers} drippers, {} half handshakes and {} silent ones",
        hostile.len(),
        PER_SOURCE - drippers
    );
    shown!(
        "F15",
        format!("p99 of a good client beside {what}, times that without"),
        format!("{times:.2}"),
        "<= 2"
    );
    shown!(
        "F15",
        "the last of them is ended after, s",
        format!("{:.1}", last.as_secs_f64()),
        "<= 25, the deadline is 15 s"
    );
    shown!(
        "F15",
        "connections beyond 2,048 of one source that are refused",
        beyond,
        format!("{BEYOND}, exactly")
    );
    assert!(times <= AT_MOST_TIMES, "{times:.2} times as long");
    assert!(slowest_new < Duration::from_secs(2), "a new good connection took {slowest_new:?}");
    assert_eq!(beyond, BEYOND as f64);
}

/// The most threads and processes with which no sidecar runs: of the parent two, of the data plane three and one for each worker.
const TOO_FEW: u32 = 5;

/// What the log says then.
const WHY: &str = "raise the container's pids limit";

#[test]
fn a_sidecar_with_too_few_processes_says_so_and_serves_once_there_are_more() {
    let confinement = Confinement::create("processes").unwrap();
    let cgroup = confinement.cgroup().clone();
    let shape = Shape { meshed: vec![CLIENT], ..Shape::strict() };
    let mut world = World::new(versions()[0], shape).unwrap();
    let settings = SidecarSettings { cgroup: Some(cgroup.clone()), ..SidecarSettings::new(SERVICE_ACCOUNT) };
    let mut said_before = 0;
    for most in 1..=TOO_FEW {
        cgroup.limit_processes(Some(most)).unwrap();
        world.start_sidecar_as("n1", &settings.clone().with("workers", "1")).unwrap();
        let line = wait_until(Duration::from_secs(10), "it says why", || {
            let log = world.sidecars["n1"].log_text();
            Ok(log[said_before..].lines().find(|line| line.contains(WHY)).map(str::to_owned))
        });
        println!("{most}: {}", line.unwrap());
        // One that cannot even have a thread for its log ends; any other is tried again and again.
        sleep(Duration::from_millis(500));
        if !world.sidecar("n1").unwrap().is_running().unwrap() {
            assert!(!world.sidecar("n1").unwrap().wait_stopped().unwrap().success());
            let log = world.sidecars["n1"].log_text();
            assert!(log.lines().last().unwrap().contains(WHY), "{most}: {log}");
            cgroup.limit_processes(None).unwrap();
            world.restart_proxy("n1").unwrap();
        }
        cgroup.limit_processes(None).unwrap();
        world.wait_ready("n1").unwrap();
        world.sidecar("n1").unwrap().kill9().unwrap();
        said_before = world.sidecars["n1"].log_text().len();
    }
    let what =
        "limits of processes, 1 to 5, that the log names, and with which it serves once they are raised";
    shown!("F13", what, TOO_FEW, "every one");
}
