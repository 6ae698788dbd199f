//! Remembered refusals: what the proxy names as refused is refused by the kernel for a second or until the proxy
//! has it forgotten, and nothing else is.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringmail_init::config::CLOSED_PORT;
use ringmail_init::rules::Family;

use crate::lab::{APPLICATION, Lab, PROXY, SOON, as_user, each_case, inside, peer_address};

/// The port that a ring asks by a bare connect whether a node lives.
const PROBED: u16 = 47500;
/// Longer than the kernel remembers.
const FORGOTTEN: Duration = Duration::from_millis(1_100);

/// Sends the datagram that names `destination` as refused.
fn tell(lab: &Lab, user: u32, destination: SocketAddr) -> io::Result<usize> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    inside(&lab.pod, || as_user(user, user, || UdpSocket::bind((any, 0))?.send_to(&[], destination)))
}

fn connect(lab: &Lab, destination: SocketAddr) -> io::Result<TcpStream> {
    let dial = || TcpStream::connect_timeout(&destination, SOON);
    inside(&lab.pod, || as_user(APPLICATION, APPLICATION, dial))
}

/// Waits for a datagram. A signal that only ends the wait (another test's change of user sends them) is no answer.
fn hear(socket: &UdpSocket) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            heard => return heard,
        }
    }
}

/// An address beside the peer's that shares its first 32 bits also in IPv6.
fn neighbour(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 77, 0, 3].into(),
        Family::V6 => [0xfd77, 0, 0, 0, 0, 0, 0, 3].into(),
    }
}

#[test]
fn a_destination_that_the_proxy_names_is_refused_for_a_second_and_reachable_after_it() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--skip-verify"]);
        let _proxy = lab.stand_in(15001);
        let name = format!("{backend} {family:?}");
        let destination = SocketAddr::new(peer_address(family), PROBED);
        connect(&lab, destination).expect(&name);
        let told = Instant::now();
        // This error is how a sender learns that its datagram was dropped, and so that it was heard.
        assert_eq!(tell(&lab, PROXY, destination).unwrap_err().kind(), ErrorKind::PermissionDenied, "{name}");
        let asked = Instant::now();
        assert_eq!(connect(&lab, destination).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{name}");
        assert!(asked.elapsed() < Duration::from_millis(200), "{name}: took {:?}", asked.elapsed());
        for other in
            [SocketAddr::new(peer_address(family), 47100), SocketAddr::new(neighbour(family), PROBED)]
        {
            connect(&lab, other).unwrap_or_else(|error| panic!("{name}: {other}: {error}"));
        }
        sleep((FORGOTTEN).saturating_sub(told.elapsed()));
        connect(&lab, destination).expect(&name);
    }
}

#[test]
fn a_destination_that_the_proxy_has_forgotten_is_reachable_at_once() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--skip-verify", "--ring-ports=47500,48500"]);
        let _proxy = lab.stand_in(15001);
        let name = format!("{backend} {family:?}");
        for port in [PROBED, 48500] {
            let [refused, other] =
                [peer_address(family), neighbour(family)].map(|address| SocketAddr::new(address, port));
            for destination in [refused, other] {
                tell(&lab, PROXY, destination).unwrap_err();
            }
            assert_eq!(connect(&lab, refused).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{name}");
            for _ in 0..2 {
                let heard = tell(&lab, PROXY, SocketAddr::new(refused.ip(), CLOSED_PORT)).unwrap_err();
                assert_eq!(heard.kind(), ErrorKind::PermissionDenied, "{name}");
                connect(&lab, refused).unwrap_or_else(|error| panic!("{name}: {refused}: {error}"));
            }
            assert_eq!(connect(&lab, other).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{name}");
        }
    }
}

#[test]
fn the_datagram_stays_in_the_pod_and_nobody_but_the_proxy_can_name_a_destination() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--skip-verify"]);
        let _proxy = lab.stand_in(15001);
        let name = format!("{backend} {family:?}");
        let destination = SocketAddr::new(peer_address(family), PROBED);
        let heard = inside(&lab.peer, || UdpSocket::bind(destination)).unwrap();
        heard.set_read_timeout(Some(SOON)).unwrap();
        tell(&lab, APPLICATION, destination).expect(&name);
        connect(&lab, destination).expect(&name);
        let (_, source) = hear(&heard).expect(&name);
        assert_eq!(source.ip(), crate::lab::pod_address(family), "{name}");
        tell(&lab, PROXY, destination).unwrap_err();
        assert_eq!(hear(&heard).unwrap_err().kind(), ErrorKind::WouldBlock, "{name}");
    }
}

#[test]
fn with_no_ring_ports_nothing_is_remembered() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--skip-verify", "--ring-ports="]);
        let _proxy = lab.stand_in(15001);
        let destination = SocketAddr::new(peer_address(family), PROBED);
        tell(&lab, PROXY, destination).unwrap();
        connect(&lab, destination).unwrap();
        assert!(!lab.saved(backend, family).contains("recent"));
    }
}
