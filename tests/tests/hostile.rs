//! A hostile network: whatever arrives on a port of ours ends within its deadline, with its reason, and
//! good clients do not notice.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_lab::{
    process::wait_until,
    sidecar::{ADMIN_PORT, HEALTH_PORT, INBOUND_PORT, OUTBOUND_PORT},
    wire,
};
use ringmail_tests::{
    Shape, World, said,
    streams::{OWN_PORT, listen, pair},
    versions,
    world::{CA, CLIENT, STRANGER},
};

/// The handshake deadline of these sidecars: short, so that the test is.
const HANDSHAKE_DEADLINE: &str = "2s";

/// By then every hostile connection must have ended.
const ENDED_WITHIN: Duration = Duration::from_secs(20);

/// A handshake and two dials, on a busy machine; far below the 15 s after which silence is given up.
const GOOD_CLIENT_WITHIN: Duration = Duration::from_secs(2);

const STATS_PORT: u16 = 15020;
const LINKERD_PORT: u16 = 4191;
const CA_PORT: u16 = 15012;

/// A ClientHello of TLS 1.2: signature algorithms and groups, no supported versions.
fn hello_of_tls_12() -> Vec<u8> {
    let extensions: &[u8] = &[0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 23];
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

/// What is thrown at every port, with the reason that the inbound port gives for it.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("ignite's own bytes", vec![0, 0, 0x47, 0x47, 0xac, 0xed, 0, 5], "plaintext_refused"),
        ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "plaintext_refused"),
        ("random bytes", (0..200u8).map(|byte| byte.wrapping_mul(197) | 0x80).collect(), "plaintext_refused"),
        ("tls 1.2", hello_of_tls_12(), "tls_version_refused"),
        ("half a handshake", vec![0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3], "handshake_timeout"),
        ("silence", Vec::new(), "handshake_timeout"),
    ]
}

/// Sends and reads to the end; how long it took, or `None` where it did not end.
fn throw(mut stream: TcpStream, bytes: &[u8]) -> Option<Duration> {
    let begin = Instant::now();
    stream.set_read_timeout(Some(ENDED_WITHIN)).unwrap();
    if stream.write_all(bytes).is_err() {
        return Some(begin.elapsed());
    }
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return Some(begin.elapsed()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            Err(_) => return Some(begin.elapsed()),
        }
    }
}

#[test]
fn whatever_is_thrown_at_a_captured_port_ends_with_its_reason_and_good_clients_do_not_notice() {
    let mut world =
        World::new(versions()[0], Shape::strict().with("handshake_timeout", HANDSHAKE_DEADLINE)).unwrap();
    let node = world.pod("n1").unwrap();
    let stranger = world.pod(STRANGER).unwrap();
    let application = listen(node).unwrap();
    let (mut near, mut far) = pair(world.pod(CLIENT).unwrap(), node, &application).unwrap();
    for (what, bytes, reason) in hostile() {
        let before = said::ended(&world.sidecars["n1"], node, reason).unwrap();
        let streams: Vec<_> = (0..20)
            .map(|_| wire::connect(stranger.namespace(), (node.ip(), OWN_PORT).into()).unwrap())
            .collect();
        let took: Vec<_> = thread::scope(|scope| {
            let bytes = &bytes;
            let throws: Vec<_> =
                streams.into_iter().map(|stream| scope.spawn(move || throw(stream, bytes))).collect();
            let slow = slow_answer(&mut near, &mut far);
            assert!(slow < Duration::from_millis(200), "{what}: a good client waited {slow:?}");
            throws.into_iter().map(|throw| throw.join().unwrap()).collect()
        });
        assert!(took.iter().all(Option::is_some), "{what}: still open after {ENDED_WITHIN:?}");
        wait_until(Duration::from_secs(3), reason, || {
            let now = said::ended(&world.sidecars["n1"], node, reason)?;
            anyhow::ensure!(now == before + 20.0, "{what}: {} of 20 for {reason}", now - before);
            Ok(Some(()))
        })
        .unwrap();
    }
    assert_eq!(application_saw_nobody(&application), 0);
    world.wait_ready("n1").unwrap();
}

/// Fifty questions and answers on an established connection: how long all but the five slowest took at most, which may be the
/// machine's doing.
fn slow_answer(near: &mut TcpStream, far: &mut TcpStream) -> Duration {
    let mut took = Vec::new();
    for number in 0..50u8 {
        let begin = Instant::now();
        near.write_all(&[number]).unwrap();
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        far.write_all(&byte).unwrap();
        near.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], number);
        took.push(begin.elapsed());
        sleep(Duration::from_millis(5));
    }
    took.sort_unstable();
    took[took.len() - 6]
}

fn application_saw_nobody(listener: &std::net::TcpListener) -> usize {
    listener.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| listener.accept().ok()).count()
}

#[test]
fn the_proxys_own_ports_never_dial_and_never_loop() {
    let world =
        World::new(versions()[0], Shape::strict().with("handshake_timeout", HANDSHAKE_DEADLINE)).unwrap();
    let node = world.pod("n1").unwrap();
    let application = listen(node).unwrap();
    let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // From another pod a captured port takes the connection: 15001 and 15006 are refused by capture or by
    // the proxy, and nobody behind them is dialled.
    let attempts: Vec<(&str, &str, SocketAddr)> = vec![
        ("outbound port from its own pod", "n1", (own, OUTBOUND_PORT).into()),
        ("inbound port from its own pod", "n1", (own, INBOUND_PORT).into()),
        ("inbound port at the pod's address", "n1", (node.ip(), INBOUND_PORT).into()),
        ("outbound port at the pod's address", "n1", (node.ip(), OUTBOUND_PORT).into()),
        ("outbound port from a stranger", STRANGER, (node.ip(), OUTBOUND_PORT).into()),
        ("inbound port from a stranger", STRANGER, (node.ip(), INBOUND_PORT).into()),
        ("inbound port from a peer's application", "n2", (node.ip(), INBOUND_PORT).into()),
        ("outbound port from a peer's application", "n2", (node.ip(), OUTBOUND_PORT).into()),
    ];
    for (what, from, to) in attempts {
        let open_before = said::connections(&world.sidecars["n1"], node).unwrap().len();
        if let Ok(stream) = wire::connect(world.pod(from).unwrap().namespace(), to) {
            let ended = throw(stream, b"GET / HTTP/1.1\r\n\r\n");
            assert!(ended.is_some(), "{what}: still open after {ENDED_WITHIN:?}");
        }
        sleep(Duration::from_millis(100));
        let open = said::connections(&world.sidecars["n1"], node).unwrap().len();
        assert!(open <= open_before, "{what}: {open_before} connections became {open}");
    }
    let refused: f64 = ["no_original_destination", "own_address"]
        .iter()
        .map(|reason| said::ended(&world.sidecars["n1"], node, reason).unwrap())
        .sum();
    assert!(refused >= 4.0, "only {refused} connections were refused for their destination");
    assert_eq!(application_saw_nobody(&application), 0);
}

#[test]
fn a_pod_that_dials_its_own_address_stays_local() {
    let world = World::new(versions()[0], Shape::strict()).unwrap();
    let node = world.pod("n1").unwrap();
    let application = listen(node).unwrap();
    let (mut near, mut far) = pair(node, node, &application).unwrap();
    near.write_all(b"self").unwrap();
    far.read_exact(&mut [0; 4]).unwrap();
    assert_eq!(said::connections(&world.sidecars["n1"], node).unwrap().len(), 0, "it was captured");
}

#[test]
fn the_admin_ports_and_the_ca_survive_the_same() {
    let world = World::new(versions()[0], Shape::strict()).unwrap();
    let node = world.pod("n1").unwrap();
    let ca = world.pod(CA).unwrap();
    let targets = [
        ("n1", SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT))),
        (STRANGER, (node.ip(), STATS_PORT).into()),
        (STRANGER, (node.ip(), HEALTH_PORT).into()),
        (STRANGER, (node.ip(), LINKERD_PORT).into()),
        (STRANGER, (ca.ip(), CA_PORT).into()),
    ];
    let mut thrown = 0;
    for (from, target) in targets {
        for (what, bytes, _) in hostile() {
            let streams: Vec<_> = (0..10)
                .map(|_| wire::connect(world.pod(from).unwrap().namespace(), target).unwrap())
                .collect();
            let ended: Vec<_> = thread::scope(|scope| {
                let bytes = &bytes;
                let throws: Vec<_> =
                    streams.into_iter().map(|stream| scope.spawn(move || throw(stream, bytes))).collect();
                let answer = world.sidecars["n1"].readiness(node).unwrap();
                assert_eq!(answer.status, 200, "{target}, {what}: readiness says {answer:?}");
                throws.into_iter().map(|throw| throw.join().unwrap()).collect()
            });
            assert!(ended.iter().all(Option::is_some), "{target}: {what} is open after {ENDED_WITHIN:?}");
            thrown += ended.len();
        }
    }
    shown!(
        "A13",
        "hostile connections to the admin ports and the CA that ended while readiness was answered",
        format!("{thrown} of {thrown}"),
        "exactly"
    );
    let world = &mut { world };
    world.start_sidecar(STRANGER).unwrap();
    world.wait_ready(STRANGER).unwrap();
}

#[test]
fn the_admin_port_is_closed_to_other_pods() {
    let world = World::new(versions()[0], Shape::strict()).unwrap();
    let node = world.pod("n1").unwrap();
    let stranger = world.pod(STRANGER).unwrap();
    let reached = wire::connect(stranger.namespace(), (node.ip(), ADMIN_PORT).into());
    let answered = reached.ok().and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET /config_dump HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()
    });
    assert!(answered.is_none(), "the admin port answered another pod");
}

#[test]
fn connections_that_say_nothing_take_no_turn_at_the_handshake_from_others() {
    let world = World::new(versions()[0], Shape::strict().with("max_handshakes", "2")).unwrap();
    let (client, node, stranger) =
        (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap(), world.pod(STRANGER).unwrap());
    let listener = listen(node).unwrap();
    let to = SocketAddr::new(node.ip(), OWN_PORT);
    let silent: Vec<_> = (0..10).map(|_| wire::connect(stranger.namespace(), to).unwrap()).collect();
    sleep(Duration::from_millis(300));
    let began = Instant::now();
    let (mut near, mut far) = pair(client, node, &listener).unwrap();
    near.write_all(b"good").unwrap();
    far.read_exact(&mut [0; 4]).unwrap();
    assert!(began.elapsed() < GOOD_CLIENT_WITHIN, "{:?}", began.elapsed());
    drop(silent);
}
