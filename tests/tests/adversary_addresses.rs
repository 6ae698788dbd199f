//! Addresses that lead nowhere, back, or to the proxy itself, and the ends that only a network or a lifecycle brings
//! about: each with its reason, each once.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt},
};
use ringmail_evidence::shown;
use ringmail_lab::{
    network::Pod,
    process::wait_until,
    sidecar::{INBOUND_PORT, OUTBOUND_PORT},
    wire,
};
use ringmail_tests::{
    adversary::{Ending, read_to_end, throw},
    arena::{Arena, NEIGHBOUR, Trial, VICTIM, timed},
    said,
    streams::OWN_PORT,
    world::{SERVICE_ACCOUNT, STRANGER},
};
use socket2::{Domain, Socket, Type};

/// Nobody answers later who answers at all.
const DIALLED_WITHIN: Duration = Duration::from_secs(5);

/// An address that is nobody's, and outside the mesh.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// One of the mesh's range that no pod has.
const ABSENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);

/// Dials, sends something, and reads to the end; none where the kernel refused. Some are reset before the dial returns,
/// so the source is chosen ahead.
fn dialled(from: &Pod, to: SocketAddr, reason: &'static str, expected: Ending) -> Option<Trial> {
    let own = match to.ip() {
        loopback if loopback.is_loopback() => loopback,
        IpAddr::V4(_) => from.ip(),
        IpAddr::V6(_) => IpAddr::V6(from.ipv6()),
    };
    let dial = || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(own, 0).into()).unwrap();
        let source = socket.local_addr().unwrap().as_socket().unwrap();
        (source, socket.connect_timeout(&to.into(), DIALLED_WITHIN).map(|()| TcpStream::from(socket)))
    };
    let (source, connected) = from.namespace().enter(dial).unwrap();
    let (ended, took) = timed(|| match connected {
        Ok(mut tcp) => match tcp.write_all(b"GET / HTTP/1.1\r\n\r\n") {
            Ok(()) => Some(read_to_end(&tcp).1),
            Err(_) => Some(Ending::Reset),
        },
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(Ending::Reset),
        Err(_) => None,
    });
    let name = format!("{} dials {to}", from.name());
    Some(Trial { name, source, reason, ends: Some((expected, ended?)), took })
}

fn both_families(pod: &Pod) -> [IpAddr; 2] {
    [pod.ip(), IpAddr::V6(pod.ipv6())]
}

#[test]
fn a_port_of_the_proxy_that_was_not_captured_dials_nobody_from_wherever_it_is_dialled() {
    let arena = Arena::new(&[]).unwrap();
    let (victim, stranger) = (arena.pod(VICTIM).unwrap(), arena.pod(STRANGER).unwrap());
    let before = arena.counts().unwrap();
    let mut trials = Vec::new();
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for port in [INBOUND_PORT, OUTBOUND_PORT] {
        for to in loopback.into_iter().chain(both_families(victim)) {
            let to = (to, port).into();
            trials.extend(dialled(victim, to, "no_original_destination", Ending::Reset));
        }
        for to in both_families(victim) {
            trials.extend(dialled(stranger, (to, port).into(), "no_original_destination", Ending::Reset));
        }
    }
    assert_eq!(trials.len(), 12, "not all were taken: {trials:?}");
    arena.judge(&before, &trials).unwrap();
    shown!(
        "A13",
        "dials of the proxy's own ports, loopback and IPv6 among them, refused and counted once each",
        format!("{0} of {0}", trials.len()),
        "exactly"
    );

    // Without rules there is no entry in the connection tracking that says where it was meant for.
    let init = arena.files.program("ringmail-init");
    victim.namespace().run(&init.to_string_lossy(), &["--remove"]).unwrap();
    let before = arena.counts().unwrap();
    let trials: Vec<_> = [INBOUND_PORT, OUTBOUND_PORT]
        .into_iter()
        .flat_map(|port| both_families(victim).map(|to| SocketAddr::from((to, port))))
        .filter_map(|to| dialled(stranger, to, "no_original_destination", Ending::Reset))
        .collect();
    assert_eq!(trials.len(), 4);
    arena.judge(&before, &trials).unwrap();
    shown!("A14", "dials without an original destination that were refused and counted", "4 of 4", "exactly");
}

#[test]
fn a_destination_of_nobody_is_refused_by_both_of_two_sidecars_that_point_at_each_other() {
    let arena = Arena::new(&[]).unwrap();
    let [victim, neighbour, stranger] = [VICTIM, NEIGHBOUR, STRANGER].map(|name| arena.pod(name).unwrap());
    let to = SocketAddr::from((NOWHERE, OWN_PORT));
    for (pod, via) in [(stranger, victim), (neighbour, victim), (victim, neighbour)] {
        pod.namespace().ip_batch(&format!("route add {NOWHERE} via {}\n", via.ip())).unwrap();
    }
    let before = arena.counts().unwrap();
    let trial = dialled(stranger, to, "foreign_destination", Ending::Reset).unwrap();
    arena.judge(&before, &[trial]).unwrap();
    shown!("A14", "foreign destinations that were refused and counted", "1 of 1", "exactly");

    // Each sidecar is the other's way to it: outside the mesh first, and then as a member.
    for as_member in [false, true] {
        if as_member {
            announce(&arena, NOWHERE);
        }
        let before = arena.counts().unwrap();
        let trial = dialled(neighbour, to, "handshake_eof", Ending::Reset).unwrap();
        let ended = trial.ends.unwrap().1;
        assert_ne!(ended, Ending::Open, "as a member: {as_member}");
        let after = wait_until(Duration::from_secs(10), "it is counted", || {
            let after = arena.counts().unwrap();
            let more = |reason: &str| after.get(reason).unwrap_or(&0) - before.get(reason).unwrap_or(&0);
            Ok((more("foreign_destination") > 0).then(|| after.values().sum::<u64>()))
        })
        .unwrap();
        assert_eq!(after - before.values().sum::<u64>(), 1, "it went round");
        assert_eq!(said::connections(arena.victim(), victim).unwrap().len(), 0);
    }
    shown!("A16", "connections that two sidecars pointing at each other made of one", 1, "exactly");
}

/// A member of the mesh at an address.
fn announce(arena: &Arena, address: Ipv4Addr) {
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
         metadata: {{name: absent-{0}, namespace: ignite}}\n\
         spec:\n  address: '{address}'\n  serviceAccount: {SERVICE_ACCOUNT}\n  \
         labels: {{app: absent, service.istio.io/workload-name: absent, security.istio.io/tlsMode: istio}}\n",
        address.octets()[3],
    );
    arena.files.write_policy(&format!("absent-{}", address.octets()[3]), &entry).unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
}

#[test]
fn strange_destinations_of_the_own_application_end_and_neither_loop_nor_leak() {
    let arena = Arena::new(&[("unknown_wait", "300ms")]).unwrap();
    let victim = arena.pod(VICTIM).unwrap();
    let listener = arena.ambush().unwrap();
    listener.set_nonblocking(true).unwrap();
    let IpAddr::V4(stranger) = arena.pod(STRANGER).unwrap().ip() else { panic!("an IPv4 address") };
    let before: u64 = arena.counts().unwrap().values().sum();
    let strange = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, OWN_PORT)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, OWN_PORT)),
        SocketAddr::from((Ipv4Addr::LOCALHOST, OWN_PORT)),
        SocketAddr::from((victim.ip(), OWN_PORT)),
        SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), 80)),
        SocketAddr::from((Ipv4Addr::new(224, 0, 0, 1), OWN_PORT)),
        SocketAddr::from((Ipv4Addr::BROADCAST, OWN_PORT)),
        SocketAddr::from((Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), OWN_PORT)),
        SocketAddr::from((Ipv4Addr::new(240, 0, 0, 1), OWN_PORT)),
        SocketAddr::from((stranger, 0)),
        SocketAddr::from((ABSENT, OWN_PORT)),
        SocketAddr::from((victim.ip(), INBOUND_PORT)),
        SocketAddr::from((victim.ip(), OUTBOUND_PORT)),
    ];
    for to in strange {
        // Refused by the kernel, or taken and ended.
        if let Ok(tcp) = wire::connect(victim.namespace(), to) {
            throw(&tcp, b"anybody?");
            assert_ne!(read_to_end(&tcp).1, Ending::Open, "{to}");
        }
    }
    assert!(listener.accept().is_err(), "somebody was reached");
    let counted: u64 = arena.counts().unwrap().values().sum::<u64>() - before;
    assert!(counted <= strange.len() as u64, "{counted} connections of {}: one went round", strange.len());
    assert_eq!(said::connections(arena.victim(), victim).unwrap().len(), 0, "left behind");
    shown!(
        "A15",
        "strange destinations that ended without a loop, a leak or a leftover",
        format!("{0} of {0}", strange.len()),
        "exactly"
    );

    // In IPv6 clothes it is the IPv4 address, for the route and for the record.
    let mapped = SocketAddr::from((stranger.to_ipv6_mapped(), OWN_PORT));
    let tcp = wire::connect(victim.namespace(), mapped).unwrap();
    let source = SocketAddr::new(victim.ip(), tcp.local_addr().unwrap().port());
    wait_until(Duration::from_secs(5), "the stranger is dialled", || Ok(listener.accept().ok().map(drop)))
        .unwrap();
    read_to_end(&tcp);
    let lines = said::access_lines(arena.victim(), &[&format!("src.addr={source}")]);
    assert!(lines[0].contains(&format!("dst.addr={stranger}:{OWN_PORT}")), "{}", lines[0]);
    assert!(lines[0].contains("reason=handshake_eof"), "the stranger shakes no hands: {}", lines[0]);
}

/// More than the victim of the next test takes from one source.
const CONNECTIONS: usize = 60;
const CONNECTIONS_TAKEN: usize = 50;

/// `ip rule` has an answer for each way in which a network fails, here for the proxy's user alone.
const FAILING: &str = "rule add to 203.0.113.21 uidrange 1337-1337 prohibit\n\
                       rule add to 203.0.113.22 uidrange 1337-1337 unreachable\n";

#[test]
fn each_way_in_which_a_dial_fails_a_source_exceeds_or_a_drain_ends_has_its_reason() {
    let settings = [
        ("connect_timeout", "1s"),
        ("drain_timeout", "2s"),
        // The rules do not know of it, and capture it like any other.
        ("linkerd_admin_port", "18191"),
        ("max_connections_per_source", "50"),
        ("unknown_wait", "300ms"),
    ];
    let mut arena = Arena::new(&settings).unwrap();
    announce(&arena, ABSENT);
    arena.serve().unwrap();
    let victim = arena.pod(VICTIM).unwrap();
    victim.namespace().ip_batch(FAILING).unwrap();
    let before = arena.counts().unwrap();
    let rows = [
        (Ipv4Addr::new(203, 0, 113, 21), "dial_failed"),
        (Ipv4Addr::new(203, 0, 113, 22), "dial_unreachable"),
        (NOWHERE, "dial_refused"),
        (ABSENT, "dial_timeout"),
        (Ipv4Addr::new(10, 77, 0, 201), "unknown_destination"),
    ];
    let trials: Vec<_> = rows
        .iter()
        .map(|(to, reason)| dialled(victim, (*to, OWN_PORT).into(), reason, Ending::Reset).unwrap())
        .collect();
    let own = SocketAddr::new(victim.ip(), 18191);
    let own = dialled(arena.pod(STRANGER).unwrap(), own, "own_address", Ending::Reset);
    let trials: Vec<_> = trials.into_iter().chain(own).collect();
    assert_eq!(trials.len(), rows.len() + 1);
    arena.judge(&before, &trials).unwrap();

    a_host_outside_that_resets_is_told_apart(&arena);

    let before = arena.counts().unwrap();
    let to = SocketAddr::new(victim.ip(), OWN_PORT);
    let knock = || wire::connect_or_reset(arena.pod(STRANGER).unwrap().namespace(), to).unwrap();
    let held: Vec<_> = (0..CONNECTIONS).map(|_| knock()).collect();
    let beyond = (CONNECTIONS - CONNECTIONS_TAKEN) as u64;
    let refused = wait_until(Duration::from_secs(10), "the others are refused", || {
        let counts = arena.counts()?;
        Ok(counts.get("limit_connections_per_source").copied().filter(|refused| *refused >= beyond))
    });
    assert_eq!(refused.unwrap(), beyond);
    assert!(!before.contains_key("limit_connections_per_source"));
    drop(held);

    without_a_certificate_nothing_is_sent(&arena);
    without_policies_nobody_is_let_in(&arena);

    let mut open = wire::connect(arena.pod(NEIGHBOUR).unwrap().namespace(), to).unwrap();
    open.write_all(b"x").unwrap();
    open.read_exact(&mut [0]).unwrap();
    let victim = arena.sidecar(VICTIM).unwrap();
    victim.begin_stop().unwrap();
    assert_eq!(read_to_end(&open).1, Ending::Fin);
    victim.wait_stopped().unwrap();
    assert_eq!(said::access_lines(victim, &["reason=drained"]).len(), 1);
}

/// What a host outside the mesh does to a leg without TLS.
fn a_host_outside_that_resets_is_told_apart(arena: &Arena) {
    let (victim, stranger) = (arena.pod(VICTIM).unwrap(), arena.pod(STRANGER).unwrap());
    let outside = Ipv4Addr::new(203, 0, 113, 5);
    stranger.namespace().ip_batch(&format!("addr add {outside}/32 dev lo\n")).unwrap();
    victim.namespace().ip_batch(&format!("route add {outside} via {}\n", stranger.ip())).unwrap();
    let listener = stranger.namespace().enter(|| TcpListener::bind((outside, OWN_PORT)).unwrap()).unwrap();
    let before = arena.counts().unwrap();
    let application = wire::connect(victim.namespace(), (outside, OWN_PORT).into()).unwrap();
    let source = application.local_addr().unwrap();
    let (host, _) = listener.accept().unwrap();
    setsockopt(&host, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(host);
    let (ended, took) = timed(|| read_to_end(&application).1);
    let ends = Some((Ending::Reset, ended));
    let name = "a host outside resets".to_owned();
    arena.judge(&before, &[Trial { name, source, reason: "remote_reset", ends, took }]).unwrap();
}

/// A sidecar whose CA is nowhere.
fn without_a_certificate_nothing_is_sent(arena: &Arena) {
    let listener = ringmail_tests::streams::listen(arena.pod(NEIGHBOUR).unwrap()).unwrap();
    let stranger = arena.pod(STRANGER).unwrap();
    let sidecar = arena
        .start_sidecar(STRANGER, &[("ca_address", "https://10.77.0.250:15012"), ("unknown_wait", "1s")])
        .unwrap();
    listens(stranger);
    // Its policies are read within a second.
    std::thread::sleep(Duration::from_secs(1));
    let to = SocketAddr::new(arena.pod(NEIGHBOUR).unwrap().ip(), OWN_PORT);
    let trial = dialled(stranger, to, "no_credentials", Ending::Reset).unwrap();
    let lines = said::access_lines(&sidecar, &[&format!("src.addr={}", trial.source)]);
    assert!(lines[0].contains("reason=no_credentials"), "{}", lines[0]);
    assert_eq!(trial.ends, Some((Ending::Reset, Ending::Reset)));
    assert!(said::metrics(&sidecar, stranger).unwrap().contains("reason=\"no_credentials\""));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody was reached");
}

/// A sidecar whose policies are nowhere.
fn without_policies_nobody_is_let_in(arena: &Arena) {
    let stranger = arena.pod(STRANGER).unwrap();
    let sidecar = arena.start_sidecar(STRANGER, &[("policy_dir", "/nowhere")]).unwrap();
    listens(stranger);
    let to = SocketAddr::new(stranger.ip(), OWN_PORT);
    if let Some(tcp) = wire::connect_or_reset(arena.network.switch(), to).unwrap() {
        assert_eq!(read_to_end(&tcp).1, Ending::Reset);
    }
    assert_eq!(said::access_lines(&sidecar, &["reason=no_policy"]).len(), 1);
}

fn listens(pod: &Pod) {
    wait_until(Duration::from_secs(20), "it listens", || {
        wire::connect(pod.namespace(), (Ipv4Addr::LOCALHOST, OUTBOUND_PORT).into()).map(Some)
    })
    .unwrap();
}
