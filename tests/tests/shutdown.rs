//! A node that leaves says goodbye, in whatever order its pod is stopped.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{thread::sleep, time::Duration};

use ringmail_lab::{ignite::EventKind, process::Signal};
use ringmail_tests::{
    Shape, World, versions,
    world::{RING, nothing_lost},
};

/// Which of a pod's two is told to stop first, and how much later the other.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// Both at once, as Kubernetes stops the containers of a pod.
    Together,
    /// The node, and the sidecar when the node has ended: native sidecars.
    NodeThenSidecar,
    /// The sidecar, and the node a moment later: the order that would cut the goodbye.
    SidecarThenNode,
}

const ORDERS: [Order; 3] = [Order::Together, Order::NodeThenSidecar, Order::SidecarThenNode];

#[test]
fn a_node_that_is_stopped_leaves_and_is_not_failed_in_every_order() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        for (round, order) in ORDERS.into_iter().enumerate() {
            stop_pod(&mut world, "n2", order);
            for survivor in ["n1", "n3"] {
                let events = world.ring().node(survivor).unwrap().events();
                let left = events.iter().filter(|event| is_left(&event.kind, "n2")).count();
                let failed = events.iter().filter(|event| is_failed(&event.kind, "n2")).count();
                assert_eq!((left, failed), (round + 1, 0), "{version}: {survivor} after {order:?}");
            }
            world.restart_proxy("n2").unwrap();
            world.wait_ready("n2").unwrap();
            world.restart_node("n2").unwrap();
            world.ring().wait_whole(3).unwrap();
        }
        nothing_lost(&load, u64::MAX).unwrap();
    }
}

fn stop_pod(world: &mut World, name: &str, order: Order) {
    let term_node = |world: &mut World| world.ring().node(name).unwrap().signal(Signal::SIGTERM).unwrap();
    let end_node = |world: &mut World| {
        world.ring().node_mut(name).unwrap().wait_exit(Duration::from_secs(60)).unwrap();
    };
    let term_sidecar = |world: &mut World| world.sidecar(name).unwrap().begin_stop().unwrap();
    match order {
        Order::Together => {
            term_node(world);
            term_sidecar(world);
            end_node(world);
        }
        Order::NodeThenSidecar => {
            term_node(world);
            end_node(world);
            term_sidecar(world);
        }
        Order::SidecarThenNode => {
            term_sidecar(world);
            sleep(Duration::from_secs(2));
            term_node(world);
            end_node(world);
        }
    }
    let status = world.sidecar(name).unwrap().wait_stopped().unwrap();
    assert!(status.success(), "{order:?}: the sidecar ended with {status}");
    world.ring().wait_whole(2).unwrap();
}

fn is_left(kind: &EventKind, who: &str) -> bool {
    matches!(kind, EventKind::Left { node, .. } if node == who)
}

fn is_failed(kind: &EventKind, who: &str) -> bool {
    matches!(kind, EventKind::Failed { node, .. } if node == who)
}

#[test]
fn a_drain_that_is_cut_off_at_once_loses_the_goodbye() {
    let shape = Shape::strict().with("drain_timeout", "1ms");
    let mut world = World::with_ring(versions()[0], shape).unwrap();
    world.sidecar("n2").unwrap().begin_stop().unwrap();
    world.sidecar("n2").unwrap().wait_stopped().unwrap();
    world.ring().node("n2").unwrap().signal(Signal::SIGTERM).unwrap();
    sleep(Duration::from_secs(15));
    let left = world.ring().node("n1").unwrap().events().iter().any(|event| is_left(&event.kind, "n2"));
    assert!(!left, "n2 said goodbye through a sidecar that was gone");
}

#[test]
fn a_rolling_restart_under_load_loses_no_key_and_grows_the_topology_by_two_per_node() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        let before = world.ring().assert_whole(3).unwrap().version;
        for name in RING {
            stop_pod(&mut world, name, Order::NodeThenSidecar);
            world.restart_proxy(name).unwrap();
            world.wait_ready(name).unwrap();
            world.restart_node(name).unwrap();
            world.ring().wait_whole(3).unwrap();
            world.ring().wait_rebalanced().unwrap();
        }
        let after = world.ring().assert_whole(3).unwrap().version;
        assert_eq!(after, before + 6, "{version}");
        nothing_lost(&load, u64::MAX).unwrap();
    }
}
