//! Who may speak to a node: STRICT refuses with a reason, PERMISSIVE serves both, a policy cuts off one.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use ringmail_lab::{
    ignite::{BINARY_REST_PORT, COMMUNICATION_PORT, DISCOVERY_PORT, Formation, HTTP_REST_PORT, THIN_PORT},
    process::wait_until,
    sidecar::SidecarSettings,
    wire,
};
use ringmail_tests::{
    Shape, World, intruder, said,
    streams::{OWN_PORT, listen},
    versions,
    world::{CLIENT, RING, SERVICE_ACCOUNT, STRANGER, STRICT},
};
use rustls::pki_types::PrivateKeyDer;

/// A plaintext client of a server-first port may wait this long for the first bytes.
const FIRST_BYTES: Duration = Duration::from_millis(500);

/// A policy that denies a live connection has closed it by then.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// The handshake of a thin client whose length is 22, the type byte of a TLS handshake record.
const THIN_OF_22_BYTES: &[u8] =
    &[22, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 2, 9, 3, 0, 0, 0, b'x', b'y', b'z', 9, 0, 0, 0, 0, 101];

#[test]
fn strict_refuses_plaintext_and_every_wrong_certificate_and_the_application_never_sees_a_byte() {
    let mut world = World::new(versions()[0], Shape::strict()).unwrap();
    let node = world.pod("n1").unwrap();
    let stranger = world.pod(STRANGER).unwrap();
    let application = listen(node).unwrap();
    application.set_nonblocking(true).unwrap();
    let to = SocketAddr::new(node.ip(), OWN_PORT);
    let plaintext: [(&str, &[u8]); 5] = [
        ("discovery", &[0, 0, 0x47, 0x47, 0xac, 0xed, 0, 5]),
        ("thin client", THIN_OF_22_BYTES),
        ("http", b"GET /ignite?cmd=version HTTP/1.1\r\n\r\n"),
        ("memcached", &[0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("binary rest", &[0x90, 0, 0, 0, 0]),
    ];
    for (what, bytes) in plaintext {
        let mut stream = wire::connect(stranger.namespace(), to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        assert!(end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "{what}: no reset");
        assert!(answer.is_empty(), "{what}: it was answered {answer:?}");
    }
    assert!(intruder::knock(stranger, to, None).is_err());
    assert!(intruder::knock(stranger, to, Some(foreign_identity())).is_err());
    wrong_identity_is_not_dialled_into(&mut world);
    let node = world.pod("n1").unwrap();
    for (reason, times) in
        [("plaintext_refused", 5.0), ("no_client_certificate", 1.0), ("certificate_unknown_issuer", 1.0)]
    {
        let seen = said::ended_in_the_end(&world.sidecars["n1"], node, reason, times).unwrap();
        assert_eq!(seen, times, "{reason}");
        let lines = said::access_lines(&world.sidecars["n1"], &[&format!("reason={reason}")]);
        assert!(!lines.is_empty(), "no line says {reason}");
    }
    assert_eq!(
        application.accept().unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "the application was dialled"
    );
}

/// A root nobody trusts, and a leaf of it with the very identity of a node.
fn foreign_identity() -> intruder::Identity {
    let issuer_key = KeyPair::generate().unwrap();
    let mut issuer = CertificateParams::default();
    issuer.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    issuer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = rcgen::CertifiedIssuer::self_signed(issuer, issuer_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names =
        vec![SanType::URI("spiffe://cluster.local/ns/ignite/sa/ignite".try_into().unwrap())];
    leaf.is_ca = rcgen::IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    (vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// Discovery names another account for n2 than its sidecar has: whoever dials it must refuse.
fn wrong_identity_is_not_dialled_into(world: &mut World) {
    let application = listen(world.pod("n2").unwrap()).unwrap();
    application.set_nonblocking(true).unwrap();
    world.files.announce(world.pod("n2").unwrap(), "somebody-else", true).unwrap();
    sleep(Duration::from_millis(1_200));
    let to = SocketAddr::new(world.pod("n2").unwrap().ip(), OWN_PORT);
    let mut stream = wire::connect(world.pod("n1").unwrap().namespace(), to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let n1 = world.pod("n1").unwrap();
    assert_eq!(said::ended_in_the_end(&world.sidecars["n1"], n1, "identity_mismatch", 1.0).unwrap(), 1.0);
    let lines = said::access_lines(&world.sidecars["n1"], &["reason=identity_mismatch"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("sa/somebody-else") && lines[0].contains("sa/ignite"), "{}", lines[0]);
    // Its sidecar dials it when the handshake is complete, and learns of the refusal a moment later: no
    // byte of a client that was refused is there to be read.
    if let Ok((mut dialled, _)) = application.accept() {
        dialled.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(!matches!(dialled.read(&mut [0]), Ok(1)), "the application read a byte");
    }
    world.files.announce(world.pod("n2").unwrap(), SERVICE_ACCOUNT, true).unwrap();
}

#[test]
fn a_plaintext_node_cannot_join_a_strict_ring_and_does_not_disturb_it() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let before = world.ring().assert_whole(3).unwrap();
        let stranger = world.start_stranger_node().unwrap();
        assert_eq!(stranger.servers, [STRANGER], "the stranger is alone");
        assert_eq!(world.ring().assert_whole(3).unwrap(), before);
        let refused: f64 = RING
            .iter()
            .map(|name| {
                said::ended(&world.sidecars[*name], world.network.pod(name).unwrap(), "plaintext_refused")
                    .unwrap()
            })
            .sum();
        assert!(refused > 0.0, "nobody recorded the refused node");
    }
}

#[test]
fn permissive_serves_a_plaintext_client_on_all_five_ports_and_a_mesh_client_too() {
    for version in versions() {
        let mut shape = Shape::strict();
        shape.strict = false;
        let mut world = World::with_ring(version, shape).unwrap();
        let node = world.pod("n1").unwrap().ip();
        for (who, protection) in [(STRANGER, "plaintext_permissive"), (CLIENT, "mutual_tls")] {
            let from = world.pod(who).unwrap().namespace();
            let at = |port| SocketAddr::new(node, port);
            let first = wire::node_id(from, at(COMMUNICATION_PORT)).unwrap();
            println!("{version}: {who}: 18 bytes of 47100 after {:?}", first.took);
            assert!(first.took < FIRST_BYTES, "{who}: {:?}", first.took);
            wire::thin_handshake(from, at(THIN_PORT)).unwrap();
            let odd = wire::exchange(from, at(THIN_PORT), THIN_OF_22_BYTES, 1).unwrap();
            assert_eq!(odd.answer.len(), 1, "{who}: a handshake of 22 bytes was not answered");
            wire::binary_rest_ping(from, at(BINARY_REST_PORT)).unwrap();
            assert_eq!(wire::http_rest_version(from, at(HTTP_REST_PORT)).unwrap().status, 200);
            wire::exchange(from, at(DISCOVERY_PORT), &[0, 0, 0x47, 0x47], 0).unwrap();
            let wanted = ["direction=inbound", &format!("protection={protection}")];
            wait_until(Duration::from_secs(10), "five ports in the access log", || {
                let lines = said::access_lines(&world.sidecars["n1"], &wanted);
                let all = [COMMUNICATION_PORT, THIN_PORT, BINARY_REST_PORT, HTTP_REST_PORT, DISCOVERY_PORT]
                    .iter()
                    .all(|port| lines.iter().any(|line| line.contains(&format!("dst.addr={node}:{port}"))));
                Ok(all.then_some(()))
            })
            .unwrap();
        }
        world.ring().assert_whole(3).unwrap();
    }
}

const DENY_GUEST_ON_10800: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-guest, namespace: ignite}
spec:
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/ignite/sa/guest]}}]
    to: [{operation: {ports: ['10800']}}]
";

#[test]
fn a_silent_plaintext_connection_does_not_outlive_the_policy_that_let_it_in() {
    let world = World::new(versions()[0], Shape { strict: false, ..Shape::strict() }).unwrap();
    let (stranger, node) = (world.pod(STRANGER).unwrap(), world.pod("n1").unwrap());
    let application = listen(node).unwrap();
    let to = SocketAddr::new(node.ip(), OWN_PORT);
    let mut silent = wire::connect(stranger.namespace(), to).unwrap();
    // Its sidecar has dialled the application, in case that is the one to speak first. It is not.
    let (mut dialled, _) = application.accept().unwrap();
    sleep(Duration::from_millis(500));
    world.files.write_policy("strict", STRICT).unwrap();
    assert!(is_reset(&silent, CLOSED_WITHIN), "still open under STRICT");
    assert!(silent.write_all(b"plaintext").is_err());
    dialled.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let end = dialled.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset), "the application read something or an end in order");
    assert_eq!(said::ended_in_the_end(&world.sidecars["n1"], node, "mode_changed", 1.0).unwrap(), 1.0);
}

#[test]
fn a_policy_that_denies_one_identity_closes_its_live_connection_within_a_second_and_no_other() {
    for version in versions() {
        let mut shape = Shape::strict();
        shape.meshed = RING.to_vec();
        let mut world = World::new(version, shape).unwrap();
        world.start_sidecar_as(CLIENT, &SidecarSettings::new("guest")).unwrap();
        world.wait_ready(CLIENT).unwrap();
        sleep(Duration::from_millis(500)); // every sidecar has read who the guest is
        world.form(&RING, Formation::AtOnce).unwrap();
        let to = SocketAddr::new(world.pod("n1").unwrap().ip(), THIN_PORT);
        let guest = open_thin(&world, CLIENT, to);
        let member = open_thin(&world, "n2", to);
        let other_port =
            wire::connect(world.pod(CLIENT).unwrap().namespace(), (to.ip(), COMMUNICATION_PORT).into())
                .unwrap();
        let began = Instant::now();
        world.files.write_policy("deny-guest", DENY_GUEST_ON_10800).unwrap();
        let closed = is_reset(&guest, Duration::from_secs(5));
        let took = began.elapsed();
        println!("{version}: closed {took:?} after the policy was written");
        assert!(closed && took < CLOSED_WITHIN, "closed: {closed}, after {took:?}");
        assert!(is_open(&member) && is_open(&other_port), "another connection was closed too");
        let n1 = world.network.pod("n1").unwrap();
        assert_eq!(
            said::ended_in_the_end(&world.sidecars["n1"], n1, "authorization_changed", 1.0).unwrap(),
            1.0
        );
        let again = wire::connect(world.pod(CLIENT).unwrap().namespace(), to).unwrap();
        assert!(is_reset(&again, Duration::from_secs(5)), "the guest came in again");
        let lines = said::access_lines(&world.sidecars["n1"], &["reason=policy_denied", "ignite/deny-guest"]);
        assert!(!lines.is_empty(), "no line names the policy that denied");
        world.ring().assert_whole(3).unwrap();
    }
}

fn open_thin(world: &World, from: &str, to: SocketAddr) -> TcpStream {
    let mut stream = wire::connect(world.pod(from).unwrap().namespace(), to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&[8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 2]).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    stream
}

fn is_reset(stream: &TcpStream, deadline: Duration) -> bool {
    stream.set_read_timeout(Some(deadline)).unwrap();
    let mut sink = [0; 4096];
    loop {
        match (&*stream).read(&mut sink) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sink = [0; 4096];
    loop {
        match (&*stream).read(&mut sink) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
fn an_own_listener_is_what_the_strict_test_believes_it_to_be() {
    // Guards the guard: with its sidecar's consent the same listener is dialled.
    let world = World::new(versions()[0], Shape::strict()).unwrap();
    let listener: TcpListener = listen(world.pod("n1").unwrap()).unwrap();
    let pair = ringmail_tests::streams::pair(world.pod(CLIENT).unwrap(), world.pod("n1").unwrap(), &listener);
    assert!(pair.is_ok(), "{pair:?}");
}
