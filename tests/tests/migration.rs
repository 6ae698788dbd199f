//! A plain ring moves into the mesh node by node, stays mixed, goes STRICT, and moves out again.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{thread::sleep, time::Duration};

use ringmail_tests::{
    Shape, World, versions,
    world::{CLIENT, RING, SERVICE_ACCOUNT, nothing_lost},
};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// A change of policy is applied within a second.
const APPLIED: Duration = Duration::from_millis(1_200);

#[test]
fn a_plain_ring_moves_into_the_mesh_and_out_again_without_losing_a_key() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::plain()).unwrap();
        let load = world.load().unwrap();
        for name in RING {
            restart(&mut world, name, true);
            println!("{version}: {name} is in the mesh");
        }
        world.start_sidecar(CLIENT).unwrap();
        world.wait_ready(CLIENT).unwrap();
        // The client's own connections were made before its sidecar: a STRICT mesh would end them.
        nothing_lost(&load, u64::MAX).unwrap();
        drop(load);
        let load = world.load().unwrap();
        world.files.write_policy("strict", STRICT).unwrap();
        sleep(APPLIED);
        let view = world.ring().assert_whole(3).unwrap();
        sleep(Duration::from_secs(3));
        assert_eq!(
            world.ring().assert_whole(3).unwrap().version,
            view.version,
            "{version}: STRICT changed the ring"
        );
        world.files.remove_policy("strict").unwrap();
        sleep(APPLIED);
        for name in RING {
            restart(&mut world, name, false);
            println!("{version}: {name} is out of the mesh");
        }
        for name in RING {
            assert_no_failures(&mut world, name);
        }
        nothing_lost(&load, u64::MAX).unwrap();
    }
}

/// Restarts one node, with a sidecar from now on or without.
fn restart(world: &mut World, name: &'static str, into_mesh: bool) {
    world.ring().node_mut(name).unwrap().terminate().unwrap();
    world.ring().wait_whole(2).unwrap();
    if into_mesh {
        world.start_sidecar(name).unwrap();
        world.wait_ready(name).unwrap();
    } else {
        let sidecar = world.sidecars.remove(name).unwrap();
        sidecar.remove(world.network.pod(name).unwrap(), &world.files, SERVICE_ACCOUNT).unwrap();
        sleep(APPLIED);
    }
    world.restart_node(name).unwrap();
    world.ring().wait_whole(3).unwrap();
    world.ring().wait_rebalanced().unwrap();
}

fn assert_no_failures(world: &mut World, name: &str) {
    let events = world.ring().node(name).unwrap().events();
    let failed: Vec<_> = events
        .iter()
        .filter(|event| matches!(event.kind, ringmail_lab::ignite::EventKind::Failed { .. }))
        .collect();
    assert!(failed.is_empty(), "{name} failed a node: {failed:?}");
}
