//! Every byte between pods is mutual TLS, and every peer has a name.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::time::Duration;

use ringmail_lab::{
    ignite::{COMMUNICATION_PORT, DISCOVERY_PORT, THIN_PORT},
    pcap::{Capture, find_ignite_bytes, judge},
    wire,
};
use ringmail_tests::{
    Shape, World, said, versions,
    world::{CLIENT, RING, nothing_lost},
};

const IDENTITY: &str = "spiffe://cluster.local/ns/ignite/sa/ignite";

#[test]
fn on_the_bridge_is_tls_13_and_nothing_else_and_every_peer_is_named_in_the_access_log() {
    for version in versions() {
        let mut world = World::new(version, Shape::strict()).unwrap();
        let capture = Capture::start(&world.network).unwrap();
        world.form(&RING, ringmail_lab::ignite::Formation::AtOnce).unwrap();
        let load = world.load().unwrap();
        let node = world.pod("n2").unwrap().ip();
        let client = world.pod(CLIENT).unwrap().namespace();
        wire::binary_rest_ping(client, (node, 11211).into()).unwrap();
        let rest = wire::http_rest_version(client, (node, 8080).into()).unwrap();
        assert_eq!(rest.status, 200);
        std::thread::sleep(Duration::from_secs(3));
        let captured = capture.finish().unwrap();
        let conversations = captured.conversations();
        let between_pods: Vec<_> =
            conversations.iter().filter(|each| each.server.port() != 15012).cloned().collect();
        let verdict = judge(&conversations);
        assert!(verdict.is_tls13_only(), "{:?}", verdict.offenders);
        assert_eq!(find_ignite_bytes(&conversations), Vec::new());
        for port in [DISCOVERY_PORT, COMMUNICATION_PORT, THIN_PORT, 11211, 8080] {
            let seen = between_pods.iter().filter(|each| each.server.port() == port).count();
            assert!(seen > 0, "nothing was captured on {port}");
        }
        println!(
            "{version}: {} frames, {} conversations, {} protected records, nothing else",
            captured.frames().len(),
            conversations.len(),
            verdict.counts.protected
        );
        nothing_lost(&load, 0).unwrap();
        drop(load);
        every_peer_is_named(&mut world);
    }
}

fn every_peer_is_named(world: &mut World) {
    world.ring = None;
    for name in RING {
        let sidecar = world.sidecar(name).unwrap();
        for direction in ["inbound", "outbound"] {
            let lines =
                said::access_lines(sidecar, &[&format!("direction={direction}"), "protection=mutual_tls"]);
            assert!(!lines.is_empty(), "{name} logged no {direction} connection");
            for line in lines {
                assert!(line.matches(IDENTITY).count() >= 2, "a peer without a name: {line}");
            }
        }
        let unprotected = said::access_lines(sidecar, &["direction=inbound", "protection=plaintext"]);
        assert_eq!(unprotected, Vec::<String>::new());
    }
}

#[test]
fn the_same_look_at_a_plain_ring_finds_ignites_own_bytes() {
    for version in versions() {
        let mut world = World::new(version, Shape::plain()).unwrap();
        let capture = Capture::start(&world.network).unwrap();
        world.form(&RING, ringmail_lab::ignite::Formation::AtOnce).unwrap();
        let conversations = capture.finish().unwrap().conversations();
        assert!(!judge(&conversations).is_tls13_only());
        assert!(!find_ignite_bytes(&conversations).is_empty());
    }
}
