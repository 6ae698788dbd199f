//! The proxy's own dials are never captured, not even from a port whose connection was captured a moment ago: the kernel goes on to
//! translate what comes from there for ten seconds after a reset.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener};

use ringmail_init::rules::Family;
use socket2::{Domain, SockRef, Socket, Type};

use crate::lab::{APPLICATION, Lab, PROXY, SOON, accepted, as_user, each_case, inside, listen, peer_address};

/// What the proxy listens on for connections of its application.
const OUTBOUND: u16 = 15001;

/// Where the application wants to go.
const PORT: u16 = 47500;

/// A dial of the proxy's to that place, from this address and port.
fn dial_from(lab: &Lab, local: SocketAddr, to: SocketAddr) -> io::Result<()> {
    inside(&lab.pod, || {
        as_user(PROXY, PROXY, || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&local.into())?;
            socket.connect_timeout(&to.into(), SOON)
        })
    })
}

/// The application's connection to the peer, captured, and reset by the proxy; where it came from.
fn captured_and_reset(lab: &Lab, listener: &TcpListener, to: SocketAddr) -> SocketAddr {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut application = lab.connect_out((APPLICATION, APPLICATION), family, PORT).unwrap();
    let local = application.local_addr().unwrap();
    let (stream, _) = inside(&lab.pod, || as_user(PROXY, PROXY, || accepted(listener)));
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
    application.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(application.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    local
}

#[test]
fn a_dial_of_the_proxys_from_a_port_whose_connection_it_has_just_reset_does_not_reach_itself() {
    for (backend, family) in each_case() {
        for (guard, reaches_itself) in [("true", false), ("false", true)] {
            let lab = Lab::new();
            lab.capture(backend, &[&format!("--closed-port-guard={guard}"), "--skip-verify"]);
            let listener = listen(&lab.pod, OUTBOUND);
            let to = SocketAddr::new(peer_address(family), PORT);
            let local = captured_and_reset(&lab, &listener, to);
            let dialled = dial_from(&lab, local, to);
            assert_eq!(dialled.is_ok(), reaches_itself, "{backend} {family:?}: {dialled:?}");
            let came = listener.accept().map(drop).map_err(|error| error.kind());
            assert_eq!(came.is_ok(), reaches_itself, "{backend} {family:?}: {came:?}");
        }
    }
}
