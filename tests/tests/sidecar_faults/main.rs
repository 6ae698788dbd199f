//! A sidecar that dies, stops or comes back late: the ring sees a slow network, or loses that node alone.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a step that fails fails its scenario, in a helper too"
)]

mod kills;

use std::{
    io,
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use ringmail_lab::{
    ignite::{DISCOVERY_PORT, EventKind, IgniteVersion, THIN_PORT},
    process::{Signal, wait_until},
    wire,
};
use ringmail_tests::{
    Shape, World, said, versions,
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
    assert!(said::ended_in_the_end(sidecar, pod, "fenced", 6.0).unwrap() >= 6.0);
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
            let sidecar = world.sidecar("n2").unwrap();
            let data_plane = sidecar.data_plane().unwrap();
            assert_eq!(data_plane.len(), 1, "{data_plane:?}");
            sidecar.signal_data_plane(Signal::SIGABRT).unwrap();
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
