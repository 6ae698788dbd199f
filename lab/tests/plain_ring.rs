//! A real ring of three without a mesh: what the lab must be able to show before anything is compared with it.
//!
//! Needs root, Java 17 and Maven, and fails without them. Prints the times that the plain ring takes.

#![expect(clippy::unwrap_used, reason = "a test fails where it meets what it did not expect")]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringmail_lab::ignite::{
    Atomicity, BINARY_REST_PORT, COMMUNICATION_PORT, DISCOVERY_PORT, EventKind, Formation, HTTP_REST_PORT,
    IgniteVersion, Installation, LoadShape, Ring, THIN_PORT, ThinLoad, now_ms,
};
use ringmail_lab::network::{Network, Pod};
use ringmail_lab::pcap::{Capture, Captured, IgniteMark, find_ignite_bytes, judge};
use ringmail_lab::wire::{self, Silence};

const KEYS: u64 = 10_000;

/// A cache that keeps each key on one node alone: what a kill takes from it shows that losses are seen.
const FRAGILE: &str = "fragile";

/// Without a proxy the ring learns of a dead node from its next connection check, which it makes every 500 ms.
const PLAIN_FAILURE: Duration = Duration::from_millis(2000);

/// The stories are told one after another: two rings at once would measure each other.
static QUIET: Mutex<()> = Mutex::new(());

#[test]
fn a_plain_ring_of_2_16_forms_shows_its_bytes_and_loses_no_key_with_a_node() {
    story(IgniteVersion::V2_16);
}

#[test]
fn a_plain_ring_of_2_17_forms_shows_its_bytes_and_loses_no_key_with_a_node() {
    story(IgniteVersion::V2_17);
}

fn story(version: IgniteVersion) {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let installation = Installation::prepare(version).unwrap();
    println!("{version}: installation ready in {:?}", begin.elapsed());
    let network = Network::create(&["n1", "n2", "n3", "client"]).unwrap();
    let pods: Vec<_> = network.pods()[..3].iter().collect();
    let slow = Ring::form(&installation, &pods, Formation::OneAfterAnother, folder.path()).unwrap();
    println!("{version}: one after another: 3 servers in {:?}", slow.formed_in());
    drop(slow);

    let capture = Capture::start(&network).unwrap();
    let mut ring = Ring::form(&installation, &pods, Formation::AtOnce, folder.path()).unwrap();
    println!("{version}: at once: 3 servers in {:?}", ring.formed_in());
    let load = loaded(&installation, &network, &pods, folder.path());
    every_port_answers(&network, ring.node("n1").unwrap().ip());
    kill_one(&mut ring, &load, version);
    everything_is_there(&load);
    ring.assert_whole(2).unwrap();
    the_wire_shows_ignite(&capture.finish().unwrap(), version);
}

fn loaded(installation: &Installation, network: &Network, pods: &[&Pod], folder: &Path) -> ThinLoad {
    let load = ThinLoad::start(installation, network.pod("client").unwrap(), folder).unwrap();
    let addresses: Vec<_> = pods.iter().map(|pod| SocketAddr::new(pod.ip(), THIN_PORT)).collect();
    load.connect(&addresses, true).unwrap();
    assert_eq!(load.servers().unwrap(), 3);
    load.create_cache("keys", 1, Atomicity::Atomic).unwrap();
    load.fill("keys", KEYS, 100).unwrap();
    load.create_cache(FRAGILE, 0, Atomicity::Transactional).unwrap();
    load.fill(FRAGILE, KEYS, 100).unwrap();
    load.run("keys", LoadShape::default()).unwrap();
    load
}

fn every_port_answers(network: &Network, node: IpAddr) {
    let client = network.pod("client").unwrap().namespace();
    let at = |port| SocketAddr::new(node, port);
    assert_eq!(wire::node_id(client, at(COMMUNICATION_PORT)).unwrap().answer.len(), wire::NODE_ID_BYTES);
    wire::thin_handshake(client, at(THIN_PORT)).unwrap();
    wire::binary_rest_ping(client, at(BINARY_REST_PORT)).unwrap();
    let rest = wire::http_rest_version(client, at(HTTP_REST_PORT)).unwrap();
    assert!(rest.status == 200 && rest.body.contains("\"successStatus\":0"), "{rest:?}");
    let silence = wire::stay_silent(client, at(DISCOVERY_PORT), Duration::from_secs(7)).unwrap();
    let (Silence::Ended(after) | Silence::Reset(after)) = silence else {
        panic!("discovery leaves a silent connection open");
    };
    assert!((4500..6000).contains(&after.as_millis()), "closed after {after:?}, not after 5 s");
}

fn kill_one(ring: &mut Ring, load: &ThinLoad, version: IgniteVersion) {
    let before = load.mark().unwrap();
    assert!(before.operations > 0 && before.errors == 0, "{before:?}");
    let killed = now_ms();
    ring.node_mut("n2").unwrap().kill9().unwrap();
    for name in ["n1", "n3"] {
        let failed = ring.node(name).unwrap().wait_failed("n2", Duration::from_secs(20)).unwrap();
        let took = Duration::from_millis(failed.at_ms.saturating_sub(killed));
        println!("{version}: kill -9 of n2: NODE_FAILED on {name} after {took:?}");
        assert!(took < PLAIN_FAILURE, "{name} needed {took:?}");
    }
    let view = ring.wait_whole(2).unwrap();
    assert_eq!(view.version, 4);
    for name in ["n1", "n3"] {
        let node = ring.node(name).unwrap();
        assert!(!node.is_segmented(), "{name} segmented");
        let left = node.events().into_iter().any(|event| matches!(event.kind, EventKind::Left { .. }));
        assert!(!left, "{name} took a kill for a goodbye");
    }
    thread::sleep(Duration::from_secs(1)); // the load goes on with one node less
}

fn everything_is_there(load: &ThinLoad) {
    let progress = load.halt().unwrap();
    println!("load: {progress:?}");
    assert_eq!((progress.errors, progress.stale), (0, 0), "{progress:?}");
    for verified in [load.check().unwrap(), load.verify("keys", KEYS).unwrap()] {
        assert!(verified.found > 0 && verified.lost == 0 && verified.corrupt == 0, "{verified:?}");
    }
    let lost = load.verify(FRAGILE, KEYS).unwrap();
    assert!(lost.lost > 0 && lost.found + lost.lost == KEYS, "a loss is seen where it happens: {lost:?}");
}

fn the_wire_shows_ignite(captured: &Captured, version: IgniteVersion) {
    let conversations = captured.conversations();
    let incomplete =
        conversations.iter().filter(|each| each.to_server.incomplete || each.to_client.incomplete);
    assert_eq!(incomplete.count(), 0, "the capture lost packets");
    let found = find_ignite_bytes(&conversations);
    for (mark, port) in [
        (IgniteMark::Magic, DISCOVERY_PORT),
        (IgniteMark::Magic, COMMUNICATION_PORT),
        (IgniteMark::NodeId, COMMUNICATION_PORT),
        (IgniteMark::JavaObjects, DISCOVERY_PORT),
        (IgniteMark::ThinHandshake, THIN_PORT),
        (IgniteMark::HttpRequest, HTTP_REST_PORT),
        (IgniteMark::ClassName, DISCOVERY_PORT),
    ] {
        let count = found.iter().filter(|finding| finding.mark == mark && finding.port == port).count();
        assert!(count > 0, "no {mark} on {port} among {found:?}");
    }
    let judgement = judge(&conversations);
    assert!(!judgement.is_tls13_only());
    println!(
        "{version}: {} frames, {} conversations, {} findings; first offender: {}",
        captured.frames().len(),
        conversations.len(),
        found.len(),
        judgement.offenders[0]
    );
}
