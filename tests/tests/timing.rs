//! The applications' own clocks go on as if no sidecar were there.

use std::time::Duration;

use ringmail_lab::{
    ignite::{COMMUNICATION_PORT, DISCOVERY_PORT, THIN_PORT},
    wire::{self, Silence},
};
use ringmail_tests::{Shape, World, said, versions, world::CLIENT};

/// From the handshake's end until the node's first bytes are at the client.
const SERVER_FIRST: Duration = Duration::from_millis(50);

#[test]
fn the_node_that_speaks_first_is_heard_at_once_and_silent_clients_are_closed_when_ignite_says_so() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let node = world.pod("n1").unwrap().ip();
        let client = world.pod(CLIENT).unwrap().namespace();
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let heard = wire::node_id(client, (node, COMMUNICATION_PORT).into()).unwrap();
            assert_eq!(heard.answer.len(), wire::NODE_ID_BYTES);
            fastest = fastest.min(heard.took);
        }
        println!("{version}: 18 bytes of 47100 after {fastest:?}, dial and handshake among it");
        assert!(fastest < SERVER_FIRST, "{fastest:?}");
        let silences = [(DISCOVERY_PORT, 5_000u64), (THIN_PORT, 10_000)];
        std::thread::scope(|scope| {
            for (port, closes_after) in silences {
                scope.spawn(move || {
                    let limit = Duration::from_secs(14);
                    let silence = wire::stay_silent(client, (node, port).into(), limit).unwrap();
                    let (Silence::Ended(after) | Silence::Reset(after)) = silence else {
                        panic!("{port} leaves a silent connection open")
                    };
                    println!("{version}: {port} closes a silent connection after {after:?}");
                    let range = closes_after - 300..closes_after + 1_500;
                    assert!(range.contains(&u64::try_from(after.as_millis()).unwrap()), "{port}: {after:?}");
                });
            }
        });
        let pod = world.network.pod("n1").unwrap();
        assert!(said::ended(&world.sidecars["n1"], pod, "complete").unwrap() > 0.0);
        world.ring().assert_whole(3).unwrap();
    }
}
