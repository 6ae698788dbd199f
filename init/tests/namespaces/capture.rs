//! Who reaches the proxy, and who does not.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ringmail_init::rules::Family;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{
    APPLICATION, FAMILIES, Lab, PROXY, accepted, as_user, each_case, inside, listen, peer_address,
    pod_address,
};

/// Asks the stand-in what the original destination was.
fn original_destination(stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (&stream).write_all(b"d").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn peer(family: Family, port: u16) -> String {
    SocketAddr::new(peer_address(family), port).to_string()
}

fn pod(family: Family, port: u16) -> String {
    SocketAddr::new(pod_address(family), port).to_string()
}

#[test]
fn outbound_connections_reach_the_proxy_with_their_original_destination() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--outbound-exclude-ports=443"]);
        let _proxy = lab.stand_in(15001);
        for user in [(0, 0), (APPLICATION, APPLICATION)] {
            let stream = lab.connect_out(user, family, 47500).unwrap();
            assert_eq!(original_destination(stream), peer(family, 47500));
        }
        let excluded = lab.connect_out((APPLICATION, APPLICATION), family, 443);
        assert_eq!(
            excluded.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused,
            "reached the peer itself"
        );
    }
}

#[test]
fn the_proxy_and_exempt_users_reach_the_peer_itself() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--exclude-uids=2102"]);
        let _proxy = lab.stand_in(15001);
        let listener = listen(&lab.peer, 47500);
        for user in [(PROXY, APPLICATION), (APPLICATION, PROXY), (2102, APPLICATION)] {
            let stream = lab.connect_out(user, family, 47500).unwrap();
            let (_, source) = accepted(&listener);
            assert_eq!(source.port(), stream.local_addr().unwrap().port(), "{user:?}");
        }
    }
}

#[test]
fn a_pod_that_dials_itself_stays_local() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &[]);
        let _proxies = (lab.stand_in(15001), lab.stand_in(15006));
        let listener = listen(&lab.pod, 47500);
        let own = SocketAddr::new(pod_address(family), 47500);
        let connect = || TcpStream::connect_timeout(&own, Duration::from_secs(2)).unwrap();
        let stream = inside(&lab.pod, || as_user(APPLICATION, APPLICATION, connect));
        let (_, source) = accepted(&listener);
        assert_eq!(source.port(), stream.local_addr().unwrap().port());
    }
}

#[test]
fn inbound_connections_reach_the_proxy_with_their_original_destination() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--inbound-exclude-ports=9000"]);
        let _proxy = lab.stand_in(15006);
        let stream = lab.connect_in(family, 47500).unwrap();
        assert_eq!(original_destination(stream), pod(family, 47500));
        for port in [4191, 15020, 15021, 9000] {
            let _listener = listen(&lab.pod, port);
            let stream = lab.connect_in(family, port).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            (&stream).write_all(b"d").unwrap();
            let mut line = String::new();
            let read = BufReader::new(stream).read_line(&mut line);
            assert!(read.is_err(), "port {port} was captured: {line}");
        }
    }
}

#[test]
fn a_list_of_inbound_ports_captures_those_alone() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--inbound-include-ports=47100,47500"]);
        let _proxy = lab.stand_in(15006);
        assert_eq!(original_destination(lab.connect_in(family, 47500).unwrap()), pod(family, 47500));
        let other = lab.connect_in(family, 47501);
        assert_eq!(other.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

/// A listener that takes connections for addresses and ports that are not its own.
fn transparent_listener(lab: &Lab, family: Family) -> Socket {
    inside(&lab.pod, || {
        let (domain, any): (_, SocketAddr) = match family {
            Family::V4 => (Domain::IPV4, ([0, 0, 0, 0], 15006).into()),
            Family::V6 => (Domain::IPV6, (Ipv6Addr::UNSPECIFIED, 15006).into()),
        };
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
        match family {
            Family::V4 => socket.set_ip_transparent_v4(true).unwrap(),
            Family::V6 => socket.set_ip_transparent_v6(true).unwrap(),
        }
        socket.bind(&any.into()).unwrap();
        socket.listen(8).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    })
}

#[test]
fn tproxy_hands_over_inbound_connections_with_source_and_destination_as_they_were() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--mode=tproxy", "--inbound-exclude-ports=9000"]);
        let unheard = lab.connect_in(family, 47500).unwrap_err();
        assert_eq!(unheard.kind(), std::io::ErrorKind::TimedOut, "without a listener the connect is dropped");

        let listener = transparent_listener(&lab, family);
        let stream = lab.connect_in(family, 47500).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let (taken, source) = listener.accept().unwrap();
        assert_eq!(taken.local_addr().unwrap().as_socket().unwrap().to_string(), pod(family, 47500));
        assert_eq!(source.as_socket().unwrap(), stream.local_addr().unwrap());
        (&taken).write_all(b"hello\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert_eq!(line, "hello\n");

        let _own = listen(&lab.pod, 15020);
        lab.connect_in(family, 15020).unwrap();
        let excluded = lab.connect_in(family, 9000);
        assert_eq!(excluded.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn tproxy_leaves_the_answers_to_the_pods_own_connections_alone() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--mode=tproxy"]);
        let _listeners = FAMILIES.map(|family| match family {
            Family::V4 => None,
            Family::V6 => Some(transparent_listener(&lab, family)),
        });
        let peer = listen(&lab.peer, 15006);
        let stream = lab.connect_out((PROXY, PROXY), family, 15006).unwrap();
        let (mut stream_in, _) = accepted(&peer);
        stream_in.write_all(b"hello\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert_eq!(line, "hello\n");
    }
}
