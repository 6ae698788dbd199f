//! A connect that only asks whether somebody listens is answered through sidecars as it is without them: from the
//! second time on, for a moment.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::ensure;
use ringmail_lab::{
    ignite::{DISCOVERY_PORT, IgniteVersion, THIN_PORT},
    process::wait_until,
};
use ringmail_tests::{
    Shape, World,
    world::{CLIENT, SERVICE_ACCOUNT, STRANGER},
};

/// A ring asks again sooner.
const ASKED_AGAIN: Duration = Duration::from_millis(100);

/// Longer than a refusal is remembered.
const FORGOTTEN: Duration = Duration::from_millis(600);

const SOON: Duration = Duration::from_secs(2);

/// A change of the files is noticed within a second.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// A mesh that knows the stranger as a workload without a sidecar, and no node anywhere.
fn world(shape: Shape) -> World {
    let world = World::new(IgniteVersion::V2_17, shape).unwrap();
    let stranger = world.pod(STRANGER).unwrap();
    world.files.announce(stranger, SERVICE_ACCOUNT, false).unwrap();
    let never_probed = SocketAddr::new(stranger.ip(), THIN_PORT);
    wait_until(KNOWN_WITHIN, "the stranger is known", || {
        let answer = scan(&world, never_probed);
        ensure!(answer == ErrorKind::ConnectionReset, "a connect to it: {answer}");
        Ok(Some(()))
    })
    .unwrap();
    world
}

/// Connects and closes at once, as a ring does; what it was told. A reset comes after the kernel has taken the
/// connection, and is seen here where this thread was late to look.
fn probe(world: &World, destination: SocketAddr) -> Result<(), ErrorKind> {
    let pod = world.pod("n1").unwrap();
    let asked = pod.namespace().enter(|| TcpStream::connect_timeout(&destination, SOON)).unwrap();
    match asked.map_err(|error| error.kind()) {
        Ok(_) | Err(ErrorKind::ConnectionReset) => Ok(()),
        Err(other) => Err(other),
    }
}

/// Connects and says something, as a node does that starts; how it was answered.
fn scan(world: &World, destination: SocketAddr) -> ErrorKind {
    let pod = world.pod("n1").unwrap();
    let said = || {
        let mut stream = pod.namespace().enter(|| TcpStream::connect_timeout(&destination, SOON)).unwrap()?;
        stream.write_all(b"hello")?;
        stream.set_read_timeout(Some(ASKED_AGAIN))?;
        stream.read(&mut [0])
    };
    said().unwrap_err().kind()
}

/// In the mesh and behind a sidecar, and outside of it: in both nobody listens.
fn destinations(world: &World) -> Vec<SocketAddr> {
    let addresses = ["n2", STRANGER].map(|name| {
        let pod = world.pod(name).unwrap();
        [pod.ip(), IpAddr::V6(pod.ipv6())]
    });
    addresses.concat().into_iter().map(|address| SocketAddr::new(address, DISCOVERY_PORT)).collect()
}

#[test]
fn a_bare_probe_of_a_dead_port_is_refused_by_the_kernel_the_second_time_and_for_a_moment() {
    let mut world = world(Shape::strict());
    for destination in destinations(&world) {
        assert_eq!(probe(&world, destination), Ok(()), "{destination}: nothing is known yet");
        sleep(ASKED_AGAIN);
        let asked = Instant::now();
        assert_eq!(probe(&world, destination), Err(ErrorKind::ConnectionRefused), "{destination}");
        assert!(asked.elapsed() < ASKED_AGAIN, "{destination}: took {:?}", asked.elapsed());
        let other = SocketAddr::new(world.pod(CLIENT).unwrap().ip(), DISCOVERY_PORT);
        assert_eq!(probe(&world, other), Ok(()), "another address");
        sleep(FORGOTTEN);
        assert_eq!(probe(&world, destination), Ok(()), "{destination} is to be asked again");
        sleep(FORGOTTEN);
    }
    let log = world.sidecar("n1").unwrap().log_text();
    assert!(log.contains("peer_refused") && log.contains("dial_refused"), "{log}");
}

#[test]
fn a_node_that_starts_and_asks_with_bytes_makes_nobody_unreachable() {
    let world = world(Shape::strict());
    for destination in destinations(&world) {
        for _ in 0..5 {
            assert_eq!(scan(&world, destination), ErrorKind::ConnectionReset, "{destination}");
        }
        sleep(ASKED_AGAIN);
        assert_eq!(probe(&world, destination), Ok(()), "{destination}");
        sleep(FORGOTTEN);
    }
}

#[test]
fn without_the_setting_or_without_the_rules_nothing_is_remembered() {
    for shape in [Shape::strict().with("ring_ports", "[]"), Shape::strict().with_init("--ring-ports=")] {
        let world = world(shape);
        for destination in destinations(&world) {
            for _ in 0..3 {
                assert_eq!(probe(&world, destination), Ok(()), "{destination}");
                sleep(ASKED_AGAIN);
            }
        }
    }
}
