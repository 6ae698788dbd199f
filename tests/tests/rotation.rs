//! Certificates and roots change under a ring at work, and the CA may be away meanwhile.

use std::{
    collections::BTreeSet,
    thread::sleep,
    time::{Duration, Instant},
};

use ringmail_lab::process::wait_until;
use ringmail_tests::{
    Shape, World, said, versions,
    world::{CA, RING, nothing_lost},
};
use serde_json::Value;

/// A leaf of 20 s is renewed at half of its life.
const SHORT_TTL: &[&str] = &["--ttl", "20s"];

/// The serial number of the leaf that a sidecar presents now.
fn serial(world: &World, name: &str) -> String {
    let pod = world.network.pod(name).unwrap();
    let answer = world.sidecars[name].admin(pod, "/certs").unwrap();
    let value: Value = serde_json::from_str(&answer.body).unwrap();
    find_serial(&value).unwrap_or_else(|| panic!("no serial in {}", answer.body))
}

fn find_serial(value: &Value) -> Option<String> {
    match value {
        Value::Object(fields) => fields
            .get("serial")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| fields.values().find_map(find_serial)),
        Value::Array(items) => items.iter().find_map(find_serial),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
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
    let wanted = format!("peer_serial={now}");
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
        restart_ca(&mut world);
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

fn restart_ca(world: &mut World) {
    let flags = world.shape.ca_flags.clone();
    let folder = world.folder().to_owned();
    world.ca = Some(ringmail_lab::ca::Ca::start(&world.network, CA, &world.files, &flags, &folder).unwrap());
}
