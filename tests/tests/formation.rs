//! A ring forms through sidecars as it does without them.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::time::Duration;

use ringmail_lab::ignite::Formation;
use ringmail_tests::{Shape, World, versions, world::RING};

/// A join through two sidecars adds handshakes, not waits.
const SLOWER_AT_MOST: Duration = Duration::from_secs(5);

/// How often the ring of three is formed from nothing.
const TIMES: usize = 10;

#[test]
fn two_nodes_form_a_ring_and_a_third_joins_it() {
    for version in versions() {
        let mut world = World::new(version, Shape::strict()).unwrap();
        world.form(&RING[..2], Formation::OneAfterAnother).unwrap();
        world.restart_node("n3").unwrap();
        let view = world.ring().wait_whole(3).unwrap();
        assert_eq!((view.version, view.coordinator.as_str()), (3, "n1"));
        assert_no_refused_join(&mut world);
    }
}

#[test]
fn three_nodes_form_one_ring_ten_times_at_once_and_one_after_another_as_fast_as_without_a_mesh() {
    for version in versions() {
        let mut plain = World::new(version, Shape::plain()).unwrap();
        let bare = plain.form(&RING, Formation::AtOnce).unwrap();
        drop(plain);
        let mut world = World::new(version, Shape::strict()).unwrap();
        let mut times = Vec::new();
        for round in 0..TIMES {
            let formation = if round % 2 == 0 { Formation::AtOnce } else { Formation::OneAfterAnother };
            let took = world.form(&RING, formation).unwrap();
            let view = world.ring().assert_whole(3).unwrap();
            assert_eq!(view.version, 3, "round {round}: somebody joined twice");
            assert_no_refused_join(&mut world);
            if formation == Formation::AtOnce {
                times.push(took);
            }
            world.ring = None;
        }
        times.sort();
        let median = times[times.len() / 2];
        println!("{version}: formed at once without a mesh in {bare:?}, with it in {times:?}");
        assert!(median < bare + SLOWER_AT_MOST, "median {median:?}, without a mesh {bare:?}");
    }
}

#[test]
fn a_ring_that_binds_every_address_and_may_take_other_ports_forms_as_fast_as_without_a_mesh() {
    for version in versions() {
        let formed_in = |shape: Shape| {
            let mut world = World::new(version, Shape { bind_all: true, ..shape }).unwrap();
            let took = world.form(&RING, Formation::OneAfterAnother).unwrap();
            world.ring().assert_whole(3).unwrap();
            assert_no_refused_join(&mut world);
            took
        };
        let (bare, meshed) = (formed_in(Shape::plain()), formed_in(Shape::strict()));
        println!("{version}: with ignite's own settings {bare:?}, in the mesh {meshed:?}");
        assert!(meshed < bare + SLOWER_AT_MOST, "{meshed:?}, without a mesh {bare:?}");
    }
}

fn assert_no_refused_join(world: &mut World) {
    for name in RING {
        let log = world.ring().node(name).unwrap().log_text();
        let refused = log
            .lines()
            .find(|line| line.contains("Impossible to continue join") || line.contains("Failed to start"));
        assert_eq!(refused, None, "{name}");
    }
}
