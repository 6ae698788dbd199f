//! A node that dies is seen to die as fast through sidecars as without them.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::time::Duration;

use ringmail_lab::ignite::{Formation, IgniteVersion, now_ms};
use ringmail_tests::{
    Shape, World, versions,
    world::{RING, nothing_lost},
};

/// How long a plain ring may take to know of a death: it learns of it from a connection check, one every 500 ms,
/// so that the same kill took from 56 to 537 ms, by the phase of the check. Three kills do not always show it.
const PLAIN_AT_MOST: Duration = Duration::from_millis(550);

/// How much later than on the plain ring a death may be known.
const LATER_AT_MOST: Duration = Duration::from_millis(300);

/// Far beyond any plain ring's time, and far below the 10 s that a fooled ring may take.
const KEPT_FOR_SECONDS: Duration = Duration::from_secs(2);

/// A join must not wait for a dead address as it would for a silent one.
const PER_DEAD_ADDRESS: Duration = Duration::from_secs(1);

#[test]
fn a_killed_node_is_failed_as_fast_as_without_a_mesh_at_every_position_of_the_ring() {
    for version in [IgniteVersion::V2_16, IgniteVersion::V2_17] {
        let plain = kills(version, Shape::plain());
        let meshed = kills(version, Shape::strict());
        println!("{version}: NODE_FAILED after, plain: {plain:?}, meshed: {meshed:?}");
        let plain = plain.into_iter().max().unwrap().max(PLAIN_AT_MOST);
        let meshed = meshed.into_iter().max().unwrap();
        assert!(meshed < plain + LATER_AT_MOST, "{version}: {meshed:?} with the mesh, {plain:?} without");
    }
}

/// What the memory of refused probes is for: 2.16 asks by a bare connect whether a node lives, and a sidecar takes it.
#[test]
fn on_2_16_a_mesh_that_remembers_no_refusals_keeps_a_dead_node_for_seconds() {
    let shape = Shape::strict().with_init("--ring-ports=");
    let mut world = World::with_ring(IgniteVersion::V2_16, shape).unwrap();
    let _load = world.load().unwrap();
    // One kill: the ring asks a hundred times a second, and so many connections may leave the node's own port
    // taken when it starts again.
    let took = kill(&mut world, "n3");
    println!("2.16: NODE_FAILED without memory of refusals after {took:?}");
    assert!(took > KEPT_FOR_SECONDS, "{took:?}: the test above shows nothing");
}

/// Kills the last, the middle and the first node of a ring, under load, and gives how long the slowest survivor
/// took to know. A node that comes back is the last: of n1, n2, n3 first n3 is, then n2 in the middle, then n1.
fn kills(version: IgniteVersion, shape: Shape) -> Vec<Duration> {
    let meshed = !shape.meshed.is_empty();
    let mut world = World::new(version, shape).unwrap();
    world.form(&RING, Formation::OneAfterAnother).unwrap();
    let load = world.load().unwrap();
    let mut took = Vec::new();
    for victim in RING.iter().rev() {
        assert_eq!(world.ring().assert_whole(3).unwrap().coordinator, "n1");
        took.push(kill(&mut world, victim));
        world.restart_node(victim).unwrap();
        world.ring().wait_whole(3).unwrap();
        world.ring().wait_rebalanced().unwrap();
    }
    if meshed {
        nothing_lost(&load, u64::MAX).unwrap_or_else(|error| panic!("{version}: {error:#}"));
    } else {
        // What Ignite loses by itself is told, and is no fault of a mesh.
        println!("{version}, plain: {:?}", nothing_lost(&load, u64::MAX));
    }
    took
}

/// Kills a node and gives how long the slowest survivor took to know; both must stay one ring.
fn kill(world: &mut World, victim: &str) -> Duration {
    let killed = now_ms();
    world.ring().node_mut(victim).unwrap().kill9().unwrap();
    let survivors: Vec<&str> = RING.into_iter().filter(|name| *name != victim).collect();
    let slowest = survivors
        .iter()
        .map(|name| {
            let failed =
                world.ring().node(name).unwrap().wait_failed(victim, Duration::from_secs(20)).unwrap();
            Duration::from_millis(failed.at_ms.saturating_sub(killed))
        })
        .max()
        .unwrap();
    world.ring().wait_whole(2).unwrap();
    for name in survivors {
        assert!(!world.ring().node(name).unwrap().is_segmented(), "{name} segmented when {victim} died");
    }
    slowest
}

#[test]
fn a_dead_peer_in_the_address_list_costs_a_join_less_than_a_second() {
    for version in versions() {
        let mut world = World::new(version, Shape::strict()).unwrap();
        let mut start_of_n3 = |listed: &[&str]| {
            let took = world.form_listing(&["n3"], Formation::AtOnce, listed).unwrap();
            world.ring = None;
            took
        };
        // The sidecars of n1 and n2 are up, and no node is behind them.
        let mut alone: Vec<_> = (0..2).map(|_| start_of_n3(&["n3"])).collect();
        let mut beside_dead: Vec<_> = (0..2).map(|_| start_of_n3(&RING)).collect();
        alone.sort();
        beside_dead.sort();
        println!(
            "{version}: n3 starts alone in {alone:?}, with two dead peers in its list in {beside_dead:?}"
        );
        assert!(beside_dead[0] < alone[0] + 2 * PER_DEAD_ADDRESS, "{beside_dead:?}, {alone:?}");
    }
}
