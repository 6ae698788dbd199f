//! The closed-port guard: a proxy that is not running is silent, one that is running is heard, and one that was
//! killed is noticed at once by those it was talking to.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringmail_init::backend::Backend;
use ringmail_init::rules::Family;

use crate::lab::{APPLICATION, Lab, SOON, each_case};

/// The two ways to a port of the proxy, and the port they lead to.
const WAYS: [(Way, u16); 2] = [(Way::Inbound, 15006), (Way::Outbound, 15001)];

#[derive(Debug, Clone, Copy)]
enum Way {
    Inbound,
    Outbound,
}

impl Way {
    /// A connect to port 47500 that the rules send to the proxy.
    fn connect(self, lab: &Lab, family: Family) -> io::Result<TcpStream> {
        let stream = match self {
            Self::Inbound => lab.connect_in(family, 47500),
            Self::Outbound => lab.connect_out((APPLICATION, APPLICATION), family, 47500),
        }?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(stream)
    }
}

/// Connects through the stand-in and makes sure that it answers.
fn established(way: Way, lab: &Lab, family: Family) -> TcpStream {
    let mut stream = way.connect(lab, family).unwrap();
    let mut echo = [0; 1];
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut echo).unwrap();
    stream
}

fn with_guard_and_without(mut check: impl FnMut(&Lab, Backend, Family, ErrorKind)) {
    for (backend, family) in each_case() {
        for (guard, expected) in [("true", ErrorKind::TimedOut), ("false", ErrorKind::ConnectionRefused)] {
            let lab = Lab::new();
            lab.capture(backend, &[&format!("--closed-port-guard={guard}"), "--skip-verify"]);
            check(&lab, backend, family, expected);
        }
    }
}

#[test]
fn a_captured_connect_without_a_proxy_is_silent_with_the_guard_and_refused_without() {
    with_guard_and_without(|lab, backend, family, expected| {
        for (way, _) in WAYS {
            let error = way.connect(lab, family).unwrap_err();
            assert_eq!(error.kind(), expected, "{way:?} {backend} {family:?}");
        }
    });
}

#[test]
fn a_direct_connect_to_a_port_of_the_proxy_is_silent_with_the_guard_and_refused_without() {
    with_guard_and_without(|lab, backend, family, expected| {
        for port in [15001, 15006] {
            let error = lab.connect_in(family, port).unwrap_err();
            assert_eq!(error.kind(), expected, "{port} {backend} {family:?}");
        }
    });
}

#[test]
fn a_closed_port_that_is_not_the_proxys_is_refused_as_ever() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--skip-verify"]);
        assert_eq!(lab.connect_in(family, 15020).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn a_reset_by_a_living_proxy_arrives_and_would_not_without_its_exemption() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--skip-verify"]);
        for (way, port) in WAYS {
            let _proxy = lab.stand_in(port);
            let mut stream = established(way, &lab, family);
            stream.write_all(b"r").unwrap();
            let error = stream.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{way:?} {backend} {family:?}");
        }
        lab.iptables(backend, family, "-D RINGMAIL_GUARD -p tcp -m owner --uid-owner 1337 -j RETURN");
        for (way, port) in WAYS {
            let _proxy = lab.stand_in(port);
            let mut stream = established(way, &lab, family);
            stream.write_all(b"r").unwrap();
            let error = stream.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{way:?} {backend} {family:?}");
        }
    }
}

#[test]
fn those_connected_to_a_proxy_learn_at_once_that_it_was_killed() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--skip-verify"]);
        for (way, port) in WAYS {
            let proxy = lab.stand_in(port);
            let mut reader = established(way, &lab, family);
            let mut writer = established(way, &lab, family);
            let mut unread = established(way, &lab, family);
            // Data that the proxy has not read makes the kernel reset the connection, and not end it.
            unread.write_all(b"h").unwrap();
            std::thread::sleep(Duration::from_millis(50));
            unread.write_all(b"unread").unwrap();
            std::thread::sleep(Duration::from_millis(50));
            let killed = Instant::now();
            proxy.kill();
            let name = format!("{way:?} {backend} {family:?}");
            assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "{name}: a reader sees the end");
            let error = unread.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{name}: unread data means a reset");
            let error = write_until_refused(&mut writer);
            let expected = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(expected.contains(&error.kind()), "{name}: a writer is told: {error}");
            assert!(killed.elapsed() < SOON, "{name}: took {:?}", killed.elapsed());
            assert_eq!(way.connect(&lab, family).unwrap_err().kind(), ErrorKind::TimedOut, "{name}");
        }
    }
}

#[test]
fn a_connection_that_the_killed_proxy_had_not_accepted_ends_with_the_first_write() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--skip-verify"]);
        for (way, port) in WAYS {
            let proxy = lab.stand_in(port);
            proxy.stop();
            let mut queued = way.connect(&lab, family).unwrap();
            proxy.kill();
            let error = write_until_refused(&mut queued);
            assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()), "{error}");
        }
    }
}

/// The first write after the end draws the reset, the next one finds it.
fn write_until_refused(stream: &mut TcpStream) -> io::Error {
    for _ in 0..20 {
        if let Err(error) = stream.write_all(b"x") {
            return error;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("twenty writes to a dead proxy were taken");
}

#[test]
fn a_connect_that_waits_is_served_when_the_proxy_comes_back() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--skip-verify"]);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let destination = std::net::SocketAddr::new(crate::lab::pod_address(family), 47500);
                crate::lab::inside(&lab.peer, || {
                    TcpStream::connect_timeout(&destination, Duration::from_secs(5))
                })
            });
            std::thread::sleep(Duration::from_millis(300));
            let _proxy = lab.stand_in(15006);
            waiting.join().unwrap().unwrap();
        });
    }
}
