//! Strangers on the port: each ends within its deadline, and good clients do not notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rcgen::KeyPair;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::support::{Ca, TOKEN, ask, client_config, csr, eventually, request};

/// A whole ClientHello that offers TLS 1.2 and nothing newer.
const TLS12_HELLO: &[u8] = &[
    0x16, 0x03, 0x01, 0x00, 0x41, 0x01, 0x00, 0x00, 0x3d, 0x03, 0x03, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 0x00, 0x00, 0x04, 0xc0,
    0x2f, 0xc0, 0x2b, 0x01, 0x00, 0x00, 0x10, 0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17, 0x00, 0x0d,
    0x00, 0x04, 0x00, 0x02, 0x04, 0x03,
];

fn ended(ca: &Ca, end: &str) -> f64 {
    ca.metric(&format!("ringmail_ca_connections_closed_total{{reason=\"{end}\"}}"))
}

/// Sends `bytes`, then reads until the server ends the connection; how long that took.
fn until_closed(address: SocketAddr, bytes: &[u8]) -> Duration {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = stream.write_all(bytes);
    let mut sink = Vec::new();
    if let Err(error) = stream.read_to_end(&mut sink) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "not ended by the server: {error}");
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_end_within_the_deadline_while_good_clients_are_served() {
    let ca = Ca::start(&["--handshake-timeout", "1s"]);
    let hello = TLS12_HELLO;
    let random: Vec<u8> = (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not_tls", b"GET / HTTP/1.1\r\nhost: ca\r\n\r\n".to_vec()),
        ("not_tls", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("not_tls", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("not_tls", random),
        ("tls_incompatible", hello.to_vec()),
        ("handshake_timeout", Vec::new()),
        ("handshake_timeout", hello[..1].to_vec()),
        ("handshake_timeout", hello[..20].to_vec()),
    ];
    let address = ca.address;
    let strangers: Vec<_> = cases
        .iter()
        .cloned()
        .map(|(end, bytes)| (end, std::thread::spawn(move || until_closed(address, &bytes))))
        .collect();
    let channel = ca.connect().await;
    let csr = csr(&KeyPair::generate().unwrap());
    while strangers.iter().any(|(_, stranger)| !stranger.is_finished()) {
        let began = Instant::now();
        ask(channel.clone(), Some(TOKEN), request(&csr)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    for (end, stranger) in strangers {
        let took = stranger.join().unwrap();
        let earliest = if end == "handshake_timeout" { 1.0 } else { 0.0 };
        assert!((earliest..5.0).contains(&took.as_secs_f64()), "{end}: {took:?}");
    }
    for end in ["not_tls", "tls_incompatible", "handshake_timeout"] {
        let expected = cases.iter().filter(|case| case.0 == end).count();
        eventually(end, || ended(&ca, end) > expected as f64 - 0.5);
        assert!((ended(&ca, end) - expected as f64).abs() < 0.5, "{end}: {}", ended(&ca, end));
    }
}

#[tokio::test]
async fn a_client_that_drips_its_handshake_meets_the_same_deadline() {
    let ca = Ca::start(&["--handshake-timeout", "1s"]);
    let mut stream = TcpStream::connect(ca.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let began = Instant::now();
    // A record header that announces 4 KiB, so that every further byte is still part of a hello.
    let mut bytes = [0x16, 0x03, 0x01, 0x10, 0x00, 0x01].into_iter().chain(std::iter::repeat(0));
    while stream.write_all(&[bytes.next().unwrap()]).is_ok() && ended(&ca, "handshake_timeout") < 0.5 {
        assert!(began.elapsed() < Duration::from_secs(3), "still held after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(began.elapsed() >= Duration::from_millis(900));
}

/// HTTP/2 itself waits for its preface for ever, and an idle connection holds a place.
#[tokio::test]
async fn silence_after_the_handshake_and_between_requests_ends() {
    let ca = Ca::start(&["--idle-timeout", "1s"]);
    let connector = TlsConnector::from(client_config(&ca.bundle()));
    let stream = tokio::net::TcpStream::connect(ca.address).await.unwrap();
    let _silent = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let channel = ca.connect().await;
    ask(channel.clone(), Some(TOKEN), request(&csr(&KeyPair::generate().unwrap()))).await.unwrap();
    let began = Instant::now();
    eventually("both connections end", || ended(&ca, "idle") > 1.5);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    ca.await_metric("ringmail_ca_connections", 0.0);
}

#[tokio::test]
async fn connections_beyond_the_limits_are_closed_at_once_and_places_come_back() {
    let ca = Ca::start(&["--max-connections", "8", "--max-connections-per-source", "4"]);
    let held: Vec<_> = (0..4).map(|_| TcpStream::connect(ca.address).unwrap()).collect();
    ca.await_metric("ringmail_ca_connections", 4.0);
    assert!(until_closed(ca.address, b"") < Duration::from_secs(1));
    assert!((ended(&ca, "limit_source") - 1.0).abs() < 0.5);
    // Another source of the same host still has its own places.
    let others: Vec<_> = (0..4).map(|_| from("127.0.0.2", ca.address)).collect();
    ca.await_metric("ringmail_ca_connections", 8.0);
    let mut refused = from("127.0.0.3", ca.address);
    refused.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)));
    eventually("the total is at its limit", || ended(&ca, "limit_total") > 0.5);
    drop((held, others));
    ca.await_metric("ringmail_ca_connections", 0.0);
    ca.leaf().await;
}

/// A connection from another loopback address.
fn from(source: &str, target: SocketAddr) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    let local: SocketAddr = format!("{source}:0").parse().unwrap();
    let address = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => SockaddrIn::from(v4),
        SocketAddr::V6(v6) => panic!("an IPv4 address was expected, not {v6}"),
    };
    bind(socket.as_raw_fd(), &address(local)).unwrap();
    connect(socket.as_raw_fd(), &address(target)).unwrap();
    TcpStream::from(socket)
}
