//! A sidecar that dies, stops or comes back late: the ring sees a slow network, or loses that node alone.

use std::{thread::sleep, time::Duration};

use ringmail_lab::{
    ignite::{EventKind, IgniteVersion},
    process::Signal,
};
use ringmail_tests::{
    Shape, World, said, versions,
    world::{RING, nothing_lost},
};

/// Kubelet's first restart of a container comes at once; a loaded node may take seconds.
const AWAY: Duration = Duration::from_millis(1_500);
const AWAY_LONG: Duration = Duration::from_millis(3_500);

/// Longer than the failure-detection timeout of 10 s: the ring must decide.
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
fn a_sidecar_that_stays_away_costs_its_own_node_alone() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        kill_and_bring_back(&mut world, AWAY_TOO_LONG);
        n2_alone_is_gone(&mut world);
        nothing_lost(&load, u64::MAX).unwrap();
    }
}

#[test]
fn a_sidecar_that_is_stopped_for_six_seconds_changes_nothing_and_for_fifteen_costs_its_node() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        stop_for(&mut world, Duration::from_secs(6));
        sleep(Duration::from_secs(6));
        let view = world.ring().assert_whole(3).unwrap();
        assert_eq!(view.version, 3, "{version}: the topology changed");
        stop_for(&mut world, AWAY_TOO_LONG);
        n2_alone_is_gone(&mut world);
        nothing_lost(&load, u64::MAX).unwrap();
    }
}

fn stop_for(world: &mut World, how_long: Duration) {
    world.sidecar("n2").unwrap().signal(Signal::SIGSTOP).unwrap();
    sleep(how_long);
    world.sidecar("n2").unwrap().signal(Signal::SIGCONT).unwrap();
}

/// n2 has left the ring, by its own decision and for good, and the others serve on as one cluster.
fn n2_alone_is_gone(world: &mut World) {
    world.ring().node_mut("n2").unwrap().wait_exit(Duration::from_secs(60)).unwrap();
    let view = world.ring().wait_whole(2).unwrap();
    assert_eq!(view.servers, ["n1", "n3"]);
    assert!(world.ring().node("n2").unwrap().is_segmented(), "n2 ended, and not because it was segmented");
    for name in ["n1", "n3"] {
        assert!(!world.ring().node(name).unwrap().is_segmented(), "{name} segmented");
    }
}

#[test]
fn a_data_plane_that_crashes_twenty_times_in_a_row_delays_connections_by_milliseconds_and_no_more() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        load.mark().unwrap();
        for _ in 0..20 {
            let data_plane = world.sidecar("n2").unwrap().data_plane().unwrap();
            assert_eq!(data_plane.len(), 1, "{data_plane:?}");
            let pid = nix::unistd::Pid::from_raw(i32::try_from(data_plane[0]).unwrap());
            nix::sys::signal::kill(pid, Signal::SIGABRT).unwrap();
            sleep(Duration::from_millis(500));
        }
        sleep(Duration::from_secs(12));
        let view = world.ring().assert_whole(3).unwrap();
        assert_eq!(view.version, 3, "{version}: the topology changed");
        let progress = nothing_lost(&load, u64::MAX).unwrap();
        println!("{version}: 20 crashes, slowest operation {:?}, {} errors", progress.slowest, progress.errors);
        let pod = world.network.pod("n2").unwrap();
        let metrics = said::metrics(&world.sidecars["n2"], pod).unwrap();
        assert_eq!(said::sum(&metrics, "ringmail_data_plane_restarts_total", &[]), 20.0);
    }
}
