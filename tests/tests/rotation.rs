//! Certificates and roots change under a ring at work, and the CA may be away meanwhile.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::{Duration, Instant},
};

use ringmail_lab::process::wait_until;
use ringmail_tests::{
    Shape, World,
    roots::{Root, trust},
    said, versions,
    world::{CLIENT, RING, nothing_lost},
};
use serde_json::Value;

/// A leaf of 20 s is renewed at half of its life.
const SHORT_TTL: &[&str] = &["--ttl", "20s"];

/// What a sidecar presents and trusts now.
fn certificates(world: &World, name: &str) -> Value {
    let pod = world.network.pod(name).unwrap();
    let answer = world.sidecars[name].admin(pod, "/certs").unwrap();
    let mut value: Value = serde_json::from_str(&answer.body).unwrap();
    value["certificates"][0].take()
}

/// The serial number of the leaf that a sidecar presents now.
fn serial(world: &World, name: &str) -> String {
    let held = certificates(world, name);
    let leaf = &held["cert_chain"][0]["serial_number"];
    leaf.as_str().unwrap_or_else(|| panic!("no serial in {held}")).to_owned()
}

/// How many roots a sidecar trusts now.
fn roots(world: &World, name: &str) -> usize {
    certificates(world, name)["ca_cert"].as_array().map_or(0, Vec::len)
}

/// Ends of established connections that an application sees as a reset.
fn resets(world: &World) -> f64 {
    RING.iter()
        .map(|name| {
            let pod = world.network.pod(name).unwrap();
            ["application_reset", "peer_failed", "authorization_changed", "tls_failed", "black_holed"]
                .iter()
                .map(|reason| said::ended(&world.sidecars[*name], pod, reason).unwrap())
                .sum::<f64>()
        })
        .sum()
}

#[test]
fn ten_renewals_under_load_reset_nothing_and_new_connections_use_the_new_leaf() {
    for version in versions() {
        let mut world =
            World::with_ring(version, Shape::strict().with_ca(SHORT_TTL).with("certificate_ttl", "20s"))
                .unwrap();
        let load = world.load().unwrap();
        let resets_before = resets(&world);
        let mut serials = BTreeSet::from([serial(&world, "n2")]);
        let end = Instant::now() + Duration::from_secs(150);
        while serials.len() < 11 {
            assert!(Instant::now() < end, "only {} leaves in 150 s", serials.len());
            sleep(Duration::from_millis(500));
            serials.insert(serial(&world, "n2"));
        }
        assert_eq!(resets(&world), resets_before, "{version}: a renewal reset a connection");
        assert_eq!(world.ring().assert_whole(3).unwrap().version, 3);
        nothing_lost(&load, 0).unwrap();
        new_connections_use_the_new_leaf(&mut world);
    }
}

fn new_connections_use_the_new_leaf(world: &mut World) {
    let now = serial(world, "n2");
    let from = world.pod("n1").unwrap().namespace();
    let to = world.pod("n2").unwrap().ip();
    ringmail_lab::wire::thin_handshake(from, (to, 10800).into()).unwrap();
    let wanted = format!("peer.serial={now}");
    wait_until(Duration::from_secs(5), "n1 logs the new leaf of n2", || {
        let lines = said::access_lines(&world.sidecars["n1"], &["direction=outbound", &wanted]);
        Ok((!lines.is_empty()).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_ca_that_is_away_across_a_renewal_is_asked_again_and_the_old_leaf_serves_meanwhile() {
    for version in versions() {
        let shape = Shape::strict().with_ca(&["--ttl", "60s"]).with("certificate_ttl", "60s");
        let mut world = World::with_ring(version, shape).unwrap();
        let load = world.load().unwrap();
        let before = serial(&world, "n2");
        world.ca.as_mut().unwrap().kill9().unwrap();
        a_new_sidecar_waits_and_says_why(&mut world);
        sleep(Duration::from_secs(45) - Duration::from_secs(5));
        assert_eq!(serial(&world, "n2"), before, "nobody could have issued another leaf");
        let pod = world.network.pod("n2").unwrap();
        let metrics = said::metrics(&world.sidecars["n2"], pod).unwrap();
        let failures = said::sum(&metrics, "ringmail_certificate_issue_errors_total", &[]);
        assert!(failures >= 2.0, "{failures} failed tries in 45 s without a CA");
        assert_eq!(world.ring().assert_whole(3).unwrap().version, 3);
        world.restart_ca().unwrap();
        wait_until(Duration::from_secs(30), "n2 has a new leaf", || {
            Ok((serial(&world, "n2") != before).then_some(()))
        })
        .unwrap();
        world.wait_ready("stranger").unwrap();
        assert_eq!(world.ring().assert_whole(3).unwrap().version, 3);
        nothing_lost(&load, 0).unwrap();
    }
}

fn a_new_sidecar_waits_and_says_why(world: &mut World) {
    world.start_sidecar("stranger").unwrap();
    sleep(Duration::from_secs(5));
    let pod = world.network.pod("stranger").unwrap();
    let answer = world.sidecars["stranger"].readiness(pod).unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("certificate") && answer.body.contains("refused"), "{answer:?}");
}

#[test]
fn a_root_rotated_by_overlap_leaves_the_ring_as_it_was() {
    for version in versions() {
        let shape = Shape::strict().with_mounted_root().with_ca(SHORT_TTL).with("certificate_ttl", "20s");
        let mut world = World::with_ring(version, shape).unwrap();
        let load = world.load().unwrap();
        let resets_before = resets(&world);
        let (old, new) = (world.first_root.take().unwrap(), Root::new("second root").unwrap());

        trust(&world.files, &[&old, &new]).unwrap();
        everywhere(&world, "both roots are trusted", |world, name| roots(world, name) == 2);
        new.mount(&world.files).unwrap();
        for _ in 0..2 {
            // The first renewal may have been on its way when the key changed.
            let before: BTreeMap<&str, String> =
                MESHED.iter().map(|name| (*name, serial(&world, name))).collect();
            everywhere(&world, "the new root has signed", |world, name| serial(world, name) != before[name]);
        }
        assert_eq!(removed(&world), 0.0, "no root has left yet");
        trust(&world.files, &[&new]).unwrap();
        everywhere(&world, "the old root has left", |world, name| roots(world, name) == 1);
        sleep(Duration::from_secs(12)); // longer than the failure-detection timeout

        assert!(removed(&world) > 0.0, "{version}: no connection was vouched for by the old root");
        assert_eq!(resets(&world), resets_before, "{version}: the rotation reset a connection");
        assert_eq!(world.ring().assert_whole(3).unwrap().version, 3, "{version}: the topology changed");
        let progress = nothing_lost(&load, u64::MAX).unwrap();
        println!(
            "{version}: {} connections moved, {} operations tried again",
            removed(&world),
            progress.errors
        );
        new_connections_use_the_new_leaf(&mut world);
    }
}

/// The pods that have a sidecar.
const MESHED: [&str; 4] = ["n1", "n2", "n3", CLIENT];

/// Two renewals of leaves that live for 20 s.
const ROTATED_WITHIN: Duration = Duration::from_secs(40);

fn everywhere(world: &World, what: &str, holds: impl Fn(&World, &str) -> bool) {
    for name in MESHED {
        wait_until(ROTATED_WITHIN, &format!("{what} at {name}"), || Ok(holds(world, name).then_some(())))
            .unwrap();
    }
}

/// Connections that ended because the root behind their peer had left.
fn removed(world: &World) -> f64 {
    let of = |name| said::ended(&world.sidecars[name], world.network.pod(name).unwrap(), "root_removed");
    MESHED.iter().map(|name| of(*name).unwrap()).sum()
}
