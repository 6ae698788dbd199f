//! Every connection is judged under one snapshot, whatever changes while it is.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_lab::{network::Pod, sidecar::SidecarSettings, wire};
use ringmail_tests::{
    Shape, World,
    calls::Ends,
    roots::{Root, trust},
    streams::{OWN_PORT, listen},
    versions,
    world::{CA, CLIENT, STRANGER, nightly},
};

/// Plaintext is let through by the mode of the one and by the policy of the other, and by neither alone.
const DENYING: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: flips, namespace: istio-system}
spec:
  action: DENY
  rules:
  - from: [{source: {notPrincipals: [\"*\"]}}]
  - from: [{source: {principals: [cluster.local/ns/ignite/sa/other]}}]
";

/// What the clients of [`every_connection_is_judged_under_one_snapshot_while_policies_and_roots_change`] saw.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    /// The application ends after its clients: a connection that nobody serves is lost to no policy.
    closed: AtomicBool,
    /// Whether the identity that is now and then denied has a connection.
    held: AtomicBool,
    good: AtomicU64,
    lost: AtomicU64,
    plaintext: AtomicU64,
    probes: AtomicU64,
}

impl Seen {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }
}

/// Sends back what comes, and notes plaintext by its first byte.
fn serve(listener: &TcpListener, seen: &Arc<Seen>) {
    listener.set_nonblocking(true).unwrap();
    while !seen.closed.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            sleep(Duration::from_millis(2));
            continue;
        };
        let seen = Arc::clone(seen);
        thread::spawn(move || {
            stream.set_nonblocking(false).unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() {
                seen.plaintext.fetch_add(u64::from(byte == *b"P"), Ordering::Relaxed);
                if stream.write_all(&byte).is_err() {
                    return;
                }
            }
        });
    }
}

fn dialled(from: &Pod, to: SocketAddr, first: u8) -> std::io::Result<TcpStream> {
    let mut stream = wire::connect(from.namespace(), to).map_err(std::io::Error::other)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&[first])?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

/// One connection after the other, which no policy denies.
fn good(from: &Pod, to: SocketAddr, seen: &Seen) {
    while seen.goes_on() {
        let count = if dialled(from, to, b'G').is_ok() { &seen.good } else { &seen.lost };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn plain(from: &Pod, to: SocketAddr, seen: &Seen) {
    while seen.goes_on() {
        let _ = dialled(from, to, b'P');
        seen.probes.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(2));
    }
}

/// Holds a connection whenever it gets one.
fn denied_at_times(from: &Pod, to: SocketAddr, seen: &Seen) {
    while seen.goes_on() {
        let Ok(mut stream) = dialled(from, to, b'D') else {
            sleep(Duration::from_millis(20));
            continue;
        };
        seen.held.store(true, Ordering::Relaxed);
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        while seen.goes_on() {
            match stream.read(&mut [0]) {
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Ok(_) | Err(_) => break,
            }
        }
        seen.held.store(false, Ordering::Relaxed);
    }
}

#[test]
fn every_connection_is_judged_under_one_snapshot_while_policies_and_roots_change() {
    let changes = if nightly() { 1_000 } else { 100 };
    let shape = Shape::strict().with_mounted_root();
    let mut world = World::new(versions()[0], shape).unwrap();
    let other = SidecarSettings { service_account: "other".to_owned(), ..world.shape.sidecar.clone() };
    world.start_sidecar_as(STRANGER, &other).unwrap();
    world.wait_ready(STRANGER).unwrap();
    let (first, second) = (world.first_root.take().unwrap(), Root::new("second root").unwrap());
    let node = world.pod("n1").unwrap();
    let (listener, to) = (listen(node).unwrap(), SocketAddr::new(node.ip(), OWN_PORT));
    let (seen, mut slowest) = (Arc::new(Seen::default()), Duration::ZERO);
    let pods = [CLIENT, CA, STRANGER].map(|name| world.pod(name).unwrap());
    thread::scope(|scope| {
        let (closed, over) = (Ends(&seen.closed), Ends(&seen.over));
        scope.spawn(|| serve(&listener, &seen));
        let clients = [
            scope.spawn(|| good(pods[0], to, &seen)),
            scope.spawn(|| plain(pods[1], to, &seen)),
            scope.spawn(|| denied_at_times(pods[2], to, &seen)),
        ];
        let waited = |held: bool| {
            let began = Instant::now();
            while seen.held.load(Ordering::Relaxed) != held && began.elapsed() < Duration::from_secs(30) {
                sleep(Duration::from_millis(5));
            }
            began.elapsed()
        };
        waited(true);
        for change in 0..changes / 2 {
            world.files.write_policy("strict", DENYING).unwrap();
            slowest = slowest.max(waited(false));
            world.files.write_policy("strict", ringmail_tests::world::STRICT).unwrap();
            if change % 5 == 0 {
                let also: &[&Root] = if change % 10 == 0 { &[&first, &second] } else { &[&first] };
                trust(&world.files, also).unwrap();
            }
            assert!(waited(true) < Duration::from_secs(30), "nobody is let in after change {change}");
        }
        drop(over);
        for client in clients {
            client.join().unwrap();
        }
        drop(closed);
    });
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (good, lost, probes) = (count(&seen.good), count(&seen.lost), count(&seen.probes));
    assert_eq!((count(&seen.plaintext), lost), (0, 0));
    assert!(good > changes && probes > changes, "{good} {probes}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    shown!(
        "F17",
        "plaintext that got through between two snapshots, of so many tries",
        format!("{} of {probes}", count(&seen.plaintext)),
        "0"
    );
    shown!(
        "F17",
        format!("connections lost of an identity that {changes} changes never denied"),
        format!("{lost} of {good}"),
        "0"
    );
    shown!("F17", "slowest end of a denied identity's connection, in ms", slowest.as_millis(), "< 5,000");
}
