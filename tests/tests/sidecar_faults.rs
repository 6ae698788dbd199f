//! A sidecar that dies, stops or comes back late: the ring sees a slow network, or loses that node alone.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a step that fails fails its scenario, in a helper too"
)]

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_lab::{
    ignite::{DISCOVERY_PORT, EventKind, IgniteVersion, THIN_PORT},
    network::Pod,
    pcap::{Capture, judge},
    process::{Signal, wait_until},
    sidecar::{INBOUND_PORT, OUTBOUND_PORT, Sidecar},
    wire,
};
use ringmail_tests::{
    Shape, World, nightly, said,
    streams::{OWN_PORT, listen},
    versions,
    world::{CLIENT, RING, nothing_lost},
};

/// Kubelet's first restart of a container comes at once; a loaded node may take seconds.
const AWAY: Duration = Duration::from_millis(1_500);
const AWAY_LONG: Duration = Duration::from_millis(3_500);

/// The others have failed the node after 10 s, later where they wait for a core; it gives up the last of them after
/// 13.3 s. Until then it is fenced, but hears from those it is still connected to.
const AWAY_LONGER_THAN_THE_RING_WAITS: Duration = Duration::from_secs(11);

/// A new data plane starts, is given its credentials by the parent, and takes what waits in the backlog. On a
/// machine whose cores are shared with the ring, with the time to get one of them.
const CRASH_DELAYS: Duration = Duration::from_millis(250);

/// Each side has given up the other.
const AWAY_TOO_LONG: Duration = Duration::from_secs(15);

/// Discovery, communication, thin clients, binary REST and HTTP.
const ALL_PORTS: &str = "[47500, 47100, 10800, 11211, 8080]";

/// Kills the proxy of n2 with everything in it, and starts it again after `away`.
fn kill_and_bring_back(world: &mut World, away: Duration) {
    world.sidecar("n2").unwrap().kill9().unwrap();
    sleep(away);
    world.restart_proxy("n2").unwrap();
    world.wait_ready("n2").unwrap();
}

#[test]
fn a_sidecar_that_is_killed_and_back_within_four_seconds_changes_nothing() {
    for version in [IgniteVersion::V2_16, IgniteVersion::V2_17] {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        for away in [AWAY, AWAY_LONG] {
            kill_and_bring_back(&mut world, away);
            sleep(Duration::from_secs(12)); // longer than the failure-detection timeout
            let view = world.ring().assert_whole(3).unwrap();
            assert_eq!(view.version, 3, "{version}: the topology changed after {away:?}");
        }
        nothing_lost(&load, u64::MAX).unwrap();
    }
}

#[test]
fn without_the_closed_port_guard_the_same_kill_splits_the_ring() {
    let shape = Shape::strict().with_init("--closed-port-guard=false");
    let mut world = World::with_ring(IgniteVersion::V2_16, shape).unwrap();
    let load = world.load().unwrap();
    kill_and_bring_back(&mut world, AWAY_LONG);
    sleep(Duration::from_secs(12));
    assert!(world.ring().assert_whole(3).is_err(), "the ring stayed whole without the guard");
    drop(load);
}

#[test]
fn with_a_reset_in_place_of_the_fin_the_newer_ignite_loses_a_healthy_node() {
    let shape = Shape::strict().with("truncation_reset_ports", ALL_PORTS);
    let mut world = World::with_ring(IgniteVersion::V2_17, shape).unwrap();
    let load = world.load().unwrap();
    kill_and_bring_back(&mut world, AWAY_LONG);
    sleep(Duration::from_secs(12));
    let failed = RING.iter().any(|name| {
        let events = world.ring().node(name).unwrap().events();
        events.iter().any(|event| matches!(event.kind, EventKind::Failed { .. }))
    });
    assert!(failed, "no node was failed although cut streams were resets");
    drop(load);
}

#[test]
fn a_sidecar_that_is_stopped_for_six_seconds_changes_nothing() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        be_away(&mut world, Away::Stopped, Duration::from_secs(6));
        sleep(Duration::from_secs(12)); // longer than the failure-detection timeout
        let view = world.ring().assert_whole(3).unwrap();
        assert_eq!(view.version, 3, "{version}: the topology changed");
        nothing_lost(&load, u64::MAX).unwrap();
    }
}

#[test]
fn a_sidecar_that_is_back_before_its_node_gives_up_the_ring_costs_that_node_which_stops_by_itself() {
    for version in versions() {
        for away in [Away::Killed, Away::Stopped] {
            let mut world = World::with_ring(version, Shape::strict()).unwrap();
            let load = world.load().unwrap();
            leave(&mut world, away);
            sleep(AWAY_LONGER_THAN_THE_RING_WAITS);
            wait_until(AWAY_LONG, "the others have failed n2", || Ok(is_failed(&mut world)?.then_some(())))
                .unwrap();
            come_back(&mut world, away);
            if let Err(error) = world.ring().node_mut("n2").unwrap().wait_exit(Duration::from_secs(60)) {
                let view = world.ring().node("n2").unwrap().view();
                let ready =
                    world.sidecars["n2"].readiness(world.pod("n2").unwrap()).map(|answer| answer.body);
                panic!("{version}, {away:?}: n2 sees {view:?}, its sidecar says {ready:?}: {error:#}");
            }
            assert!(
                world.ring().node("n2").unwrap().is_segmented(),
                "{version}, {away:?}: n2 was not segmented"
            );
            the_others_serve_on(&mut world);
            nothing_lost(&load, u64::MAX).unwrap();
        }
    }
}

#[test]
fn a_node_whose_sidecar_is_gone_for_fifteen_seconds_is_fenced_until_it_has_restarted() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        be_away(&mut world, Away::Killed, AWAY_TOO_LONG);
        is_fenced(&mut world);
        the_others_serve_on(&mut world);
        // Another sidecar knows it still.
        world.sidecar("n2").unwrap().kill9().unwrap();
        world.restart_proxy("n2").unwrap();
        is_fenced(&mut world);
        nothing_lost(&load, u64::MAX).unwrap();
        n2_joins_again(&mut world);
    }
}

#[test]
fn a_node_whose_sidecar_is_stopped_for_fifteen_seconds_stops_by_itself_or_is_fenced() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        be_away(&mut world, Away::Stopped, AWAY_TOO_LONG);
        // The kernel takes what the node dials meanwhile, so that it gives up the others later, or not at all.
        if world.ring().node_mut("n2").unwrap().wait_exit(Duration::from_secs(15)).is_ok() {
            assert!(world.ring().node("n2").unwrap().is_segmented(), "{version}: n2 was not segmented");
            println!("{version}: n2 segmented and stopped");
        } else {
            is_fenced(&mut world);
            println!("{version}: n2 is fenced");
        }
        the_others_serve_on(&mut world);
        nothing_lost(&load, u64::MAX).unwrap();
        n2_joins_again(&mut world);
    }
}

fn n2_joins_again(world: &mut World) {
    if world.ring().node_mut("n2").unwrap().is_running().unwrap() {
        world.ring().node_mut("n2").unwrap().kill9().unwrap();
    }
    world.wait_ready("n2").unwrap();
    world.restart_node("n2").unwrap();
    world.ring().wait_whole(3).unwrap();
    wire::thin_handshake(world.pod(CLIENT).unwrap().namespace(), thin_port_of_n2(world)).unwrap();
}

#[test]
fn without_the_fence_the_same_absence_leaves_two_live_clusters() {
    let version = versions()[0];
    let mut world = World::with_ring(version, Shape::strict().with("fence_after", "0s")).unwrap();
    be_away(&mut world, Away::Killed, AWAY_TOO_LONG);
    world.wait_ready("n2").unwrap();
    two_live_clusters(&mut world);
}

#[test]
fn a_plain_ring_splits_when_a_node_is_cut_off_for_fifteen_seconds() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::plain()).unwrap();
        let pod = world.pod("n2").unwrap().namespace();
        for (chain, direction) in [("INPUT", "-i"), ("OUTPUT", "-o")] {
            pod.run("iptables", &["-A", chain, "!", direction, "lo", "-j", "DROP"]).unwrap();
        }
        sleep(AWAY_TOO_LONG);
        world.pod("n2").unwrap().namespace().run("iptables", &["-F"]).unwrap();
        two_live_clusters(&mut world);
    }
}

/// How a sidecar is not there.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// Its processes are killed, and others started.
    Killed,
    /// Its processes are stopped, and go on.
    Stopped,
}

fn be_away(world: &mut World, away: Away, how_long: Duration) {
    leave(world, away);
    sleep(how_long);
    come_back(world, away);
}

fn leave(world: &mut World, away: Away) {
    match away {
        Away::Killed => drop(world.sidecar("n2").unwrap().kill9().unwrap()),
        Away::Stopped => world.sidecar("n2").unwrap().signal(Signal::SIGSTOP).unwrap(),
    }
}

fn come_back(world: &mut World, away: Away) {
    match away {
        Away::Killed => world.restart_proxy("n2").unwrap(),
        Away::Stopped => world.sidecar("n2").unwrap().signal(Signal::SIGCONT).unwrap(),
    }
}

/// Whether n1 and n3 are a cluster of two.
fn is_failed(world: &mut World) -> anyhow::Result<bool> {
    let views = [world.ring().node("n1")?.view()?, world.ring().node("n3")?.view()?];
    Ok(views.iter().all(|view| view.servers == ["n1", "n3"]))
}

/// Nobody in the mesh reaches n2, and its sidecar says why.
fn is_fenced(world: &mut World) {
    let (pod, sidecar) = (world.pod("n2").unwrap(), &world.sidecars["n2"]);
    let answer = wait_until(Duration::from_secs(20), "n2 says that it is fenced", || {
        let answer = sidecar.readiness(pod)?;
        anyhow::ensure!(answer.body.contains("fenced"), "{} {}", answer.status, answer.body);
        Ok(Some(answer))
    })
    .unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("restart the application"), "{}", answer.body);
    for name in [CLIENT, "n1", "n3"] {
        let from = world.pod(name).unwrap().namespace();
        for port in [THIN_PORT, DISCOVERY_PORT] {
            let error = wire::thin_handshake(from, SocketAddr::new(pod.ip(), port)).expect_err(name);
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            assert_eq!(kind, Some(io::ErrorKind::ConnectionReset), "{name} to {port}: {error:#}");
        }
    }
    assert!(said::ended(sidecar, pod, "fenced").unwrap() >= 6.0);
    assert_eq!(said::sum(&said::metrics(sidecar, pod).unwrap(), "ringmail_fenced", &[]), 1.0);
}

fn thin_port_of_n2(world: &World) -> SocketAddr {
    SocketAddr::new(world.pod("n2").unwrap().ip(), THIN_PORT)
}

/// n1 and n3 are one cluster of two, and neither has segmented.
fn the_others_serve_on(world: &mut World) {
    let views = ["n1", "n3"].map(|name| {
        let node = world.ring().node(name).unwrap();
        assert!(!node.is_segmented(), "{name} segmented");
        node.view().unwrap()
    });
    assert_eq!(views[0].servers, ["n1", "n3"]);
    assert_eq!(views[0], views[1]);
}

/// n2 has given up the ring, and lives on for long after it could reach the others again.
fn two_live_clusters(world: &mut World) {
    sleep(Duration::from_secs(30));
    the_others_serve_on(world);
    let n2 = world.ring().node("n2").unwrap();
    assert_eq!(n2.view().unwrap().servers, ["n2"]);
    for name in ["n1", "n2"] {
        let from = world.pod(CLIENT).unwrap().namespace();
        wire::thin_handshake(from, SocketAddr::new(world.pod(name).unwrap().ip(), THIN_PORT)).unwrap();
    }
}

#[test]
fn a_data_plane_that_crashes_twenty_times_in_a_row_delays_connections_by_milliseconds_and_no_more() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        load.mark().unwrap();
        let mut delays = Vec::new();
        for _ in 0..20 {
            let data_plane = world.sidecar("n2").unwrap().data_plane().unwrap();
            assert_eq!(data_plane.len(), 1, "{data_plane:?}");
            let pid = nix::unistd::Pid::from_raw(i32::try_from(data_plane[0]).unwrap());
            nix::sys::signal::kill(pid, Signal::SIGABRT).unwrap();
            delays.push(delay_of_a_new_connection(&world));
            sleep(Duration::from_millis(500));
        }
        delays.sort();
        println!("{version}: connections during a crash are served after {delays:?}");
        assert!(delays[10] < CRASH_DELAYS, "median {:?}", delays[10]);
        sleep(Duration::from_secs(12));
        let view = world.ring().assert_whole(3).unwrap();
        assert_eq!(view.version, 3, "{version}: the topology changed");
        let progress = nothing_lost(&load, u64::MAX).unwrap();
        println!(
            "{version}: 20 crashes, slowest operation {:?}, {} errors",
            progress.slowest, progress.errors
        );
        let pod = world.network.pod("n2").unwrap();
        let metrics = said::metrics(&world.sidecars["n2"], pod).unwrap();
        assert_eq!(said::sum(&metrics, "ringmail_data_plane_restarts_total", &[]), 20.0);
    }
}

/// How long a client that dials n2 while its data plane dies waits for an answer. What the dying one had
/// accepted is cut, and dialled again.
fn delay_of_a_new_connection(world: &World) -> Duration {
    let from = world.pod(CLIENT).unwrap().namespace();
    let began = Instant::now();
    while let Err(error) = wire::thin_handshake(from, thin_port_of_n2(world)) {
        assert!(began.elapsed() < Duration::from_secs(5), "{error:#}");
    }
    began.elapsed()
}

/// What applications say while a sidecar is killed: on no wire may a byte of it be seen.
const PLAINTEXT: &[u8] = b"what no wire between two pods may show, ";

/// From the start of a sidecar until both of its ports are open. It binds them before anything else.
const LISTENING_WITHIN: Duration = Duration::from_secs(1);

/// A sidecar whose data plane alone was killed has its certificate still.
const SERVED_AGAIN_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn a_sidecar_that_is_killed_again_and_again_under_load_listens_within_a_second_and_lets_no_plaintext_pass() {
    let kills = if nightly() { 50 } else { 8 };
    let shape = Shape { meshed: vec![CLIENT, "n2"], ..Shape::strict() };
    let mut world = World::new(versions()[0], shape).unwrap();
    let capture = Capture::start(&world.network).unwrap();
    let World { network, sidecars, .. } = &mut world;
    let (client, victim) = (network.pod(CLIENT).unwrap(), network.pod("n2").unwrap());
    let sidecar = sidecars.get_mut("n2").unwrap();
    let listeners = [client, victim].map(|pod| listen(pod).unwrap());
    let (stop, heard) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut listening, mut served) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        for listener in &listeners {
            let stop = &stop;
            scope.spawn(move || echo_all(listener, stop));
        }
        for (from, to) in [(client, victim), (victim, client)] {
            let (stop, heard) = (&stop, &heard);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // What is cut is begun anew.
                    let _ = talk(from, to, 200, heard);
                }
            });
        }
        for _ in 0..kills {
            sleep(Duration::from_millis(200));
            listening.push(kill_whole(sidecar, victim));
            sidecar.wait_ready(victim).unwrap();
            talk_until_heard(client, victim, &heard);
            let data_plane = i32::try_from(sidecar.data_plane().unwrap()[0]).unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(data_plane), Signal::SIGKILL).unwrap();
            served.push(talk_until_heard(client, victim, &heard));
        }
        stop.store(true, Ordering::Relaxed);
    });
    listening.sort();
    served.sort();
    let captured = capture.finish().unwrap();
    let shown_in_clear = captured.frames().iter().filter(|frame| contains(&frame.bytes, PLAINTEXT)).count();
    let verdict = judge(&captured.conversations());
    let last = |all: &[Duration]| all.last().unwrap().as_millis();
    shown!(
        "F8",
        format!("exec to listening, {kills} kills of the whole sidecar, slowest, ms"),
        last(&listening),
        "< 1,000"
    );
    let middle = served[served.len() / 2];
    shown!(
        "F8",
        format!("served again, {kills} kills of the data plane alone, median, ms"),
        middle.as_millis(),
        "< 1,000"
    );
    let heard = heard.into_inner();
    shown!("F8", "frames that show plaintext", format!("{shown_in_clear}, of {heard} bytes said"), "0");
    assert!(listening.last().unwrap() < &LISTENING_WITHIN, "{listening:?}");
    assert!(middle < SERVED_AGAIN_WITHIN, "{served:?}");
    assert_eq!(shown_in_clear, 0);
    assert!(verdict.is_tls13_only(), "{:?}", verdict.offenders);
    assert!(heard > 100 * kills * PLAINTEXT.len() as u64, "only {heard} bytes were said");
}

/// Kills a sidecar with everything in it and starts it again; how long until both of its ports are open.
fn kill_whole(sidecar: &mut Sidecar, pod: &Pod) -> Duration {
    sidecar.kill9().unwrap();
    let began = Instant::now();
    sidecar.start_proxy(pod).unwrap();
    let pid = sidecar.pid().unwrap();
    wait_until(Duration::from_secs(10), "it listens", || {
        // Of each socket the port, in hexadecimal, and 0A for one that listens.
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
        let listens =
            |port: u16| table.lines().any(|line| line.contains(&format!(":{port:04X} 00000000:0000 0A")));
        Ok((listens(INBOUND_PORT) && listens(OUTBOUND_PORT)).then_some(()))
    })
    .unwrap();
    began.elapsed()
}

/// Says the same so many times, each time when it has come back, and counts what was heard.
fn talk(from: &Pod, to: &Pod, times: usize, heard: &AtomicU64) -> io::Result<()> {
    let address = SocketAddr::new(to.ip(), OWN_PORT);
    let patience = Duration::from_secs(2);
    let dial = || TcpStream::connect_timeout(&address, patience);
    let mut stream = from.namespace().enter(dial).map_err(io::Error::other)??;
    stream.set_read_timeout(Some(patience))?;
    let words = PLAINTEXT.repeat(10);
    let mut back = vec![0; words.len()];
    for _ in 0..times {
        stream.write_all(&words)?;
        stream.read_exact(&mut back)?;
        assert!(back == words, "another connection's bytes");
        heard.fetch_add(words.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn talk_until_heard(from: &Pod, to: &Pod, heard: &AtomicU64) -> Duration {
    let began = Instant::now();
    while let Err(error) = talk(from, to, 1, heard) {
        assert!(began.elapsed() < Duration::from_secs(20), "{error}");
    }
    began.elapsed()
}

/// Echoes whatever is said on every connection.
fn echo_all(listener: &TcpListener, stop: &AtomicBool) {
    listener.set_nonblocking(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            sleep(Duration::from_millis(1));
            continue;
        };
        thread::spawn(move || {
            stream.set_nonblocking(false)?;
            io::copy(&mut &stream, &mut &stream)
        });
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
