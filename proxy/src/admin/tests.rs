use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Instant, SystemTime},
};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    test_state::{ID, TestState},
    *,
};
use crate::{
    credentials::{RefreshError, RefreshErrorReason},
    reason::Reason,
    record::Direction,
};

/// The addresses that a running admin listens on.
struct Addresses {
    admin: SocketAddr,
    stats: SocketAddr,
    health: SocketAddr,
    linkerd: SocketAddr,
}

fn start(test: &TestState) -> Addresses {
    let listener = || net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (admin, stats, health, linkerd) = (listener(), listener(), listener(), listener());
    let addresses = Addresses {
        admin: admin.local_addr().unwrap(),
        stats: stats.local_addr().unwrap(),
        health: health.local_addr().unwrap(),
        linkerd: linkerd.local_addr().unwrap(),
    };
    let listeners = AdminListeners {
        admin: vec![admin],
        stats: vec![stats],
        health: vec![health],
        linkerd: vec![linkerd],
    };
    tokio::spawn(serve(Arc::clone(&test.state), listeners));
    addresses
}

struct Reply {
    head: String,
    body: String,
}

async fn ask(address: SocketAddr, request: &str) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Reply { head: head.to_owned(), body: body.to_owned() }
}

async fn get(address: SocketAddr, path: &str) -> Reply {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

async fn json(address: SocketAddr, path: &str) -> Value {
    let reply = get(address, path).await;
    assert!(reply.head.contains("content-type: application/json"), "{}", reply.head);
    serde_json::from_str(&reply.body).unwrap()
}

#[tokio::test]
async fn every_path_is_on_its_ports_and_on_no_other() {
    let test = TestState::ready("");
    let Addresses { admin, stats, health, linkerd } = start(&test);
    let all = [
        "/",
        "/certs",
        "/config_dump",
        "/connections",
        "/healthz/ready",
        "/help",
        "/live",
        "/metrics",
        "/ready",
        "/stats/prometheus",
    ];
    for (address, served) in [
        (admin, &all[..6]),
        (stats, &["/healthz/ready", "/stats/prometheus"]),
        (health, &["/healthz/ready"]),
        (linkerd, &["/live", "/metrics", "/ready"]),
    ] {
        for path in all {
            let expected = if served.contains(&path) || (address == admin && path == "/stats/prometheus") {
                "HTTP/1.1 200 OK"
            } else {
                "HTTP/1.1 404 Not Found"
            };
            let reply = get(address, path).await;
            assert!(reply.head.starts_with(expected), "{address} {path}: {}", reply.head);
        }
    }
}

#[tokio::test]
async fn an_unknown_path_is_told_what_there_is() {
    let test = TestState::ready("");
    let reply = get(start(&test).health, "/quitquitquit").await;
    assert!(reply.head.starts_with("HTTP/1.1 404 Not Found"));
    assert_eq!(
        reply.body,
        "there is no \"/quitquitquit\" here; there is:\n\
         /healthz/ready     200 when connections can be served, else 503 with what is missing\n"
    );
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let test = TestState::ready("");
    let admin = start(&test).admin;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = ask(admin, &format!("{method} /certs HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(reply.head.starts_with("HTTP/1.1 405 Method Not Allowed"), "{}", reply.head);
        assert!(reply.head.contains("allow: GET, HEAD"), "{}", reply.head);
        assert_eq!(reply.body, format!("{method} does not work here: nothing can be changed; GET does\n"));
    }
    let reply = ask(admin, "HEAD /certs HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(reply.head.starts_with("HTTP/1.1 200 OK") && reply.body.is_empty());
}

#[tokio::test]
async fn readiness_names_what_is_missing_with_its_last_error() {
    let test = TestState::empty();
    let Addresses { stats, health, linkerd, .. } = start(&test);
    let reply = get(health, "/healthz/ready").await;
    assert!(reply.head.starts_with("HTTP/1.1 503 Service Unavailable"), "{}", reply.head);
    assert_eq!(
        reply.body,
        "not ready: no certificate is held yet; no error so far\n\
         not ready: the first complete set of policies is not in yet; no error so far\n"
    );

    let error = RefreshError {
        reason: RefreshErrorReason::Denied,
        text: "token expired".to_owned(),
        at: SystemTime::UNIX_EPOCH,
    };
    test.state.identity_status.failed(error, None);
    test.state.discovery_status.reject("p.yaml:3: unknown field".to_owned());
    assert_eq!(
        get(stats, "/healthz/ready").await.body,
        "not ready: no certificate is held yet; last error: denied: token expired\n\
         not ready: the first complete set of policies is not in yet; last error: p.yaml:3: unknown field\n"
    );

    let ready = TestState::ready("");
    test.credentials.send_replace(ready.state.credentials.borrow().clone());
    let reply = get(linkerd, "/ready").await;
    assert!(reply.head.starts_with("HTTP/1.1 503 "), "{}", reply.head);
    assert!(reply.body.starts_with("not ready: the first complete set of policies"), "{}", reply.body);

    test.snapshots.send_replace(ready.state.snapshots.borrow().clone());
    for (address, path) in [(stats, "/healthz/ready"), (health, "/healthz/ready"), (linkerd, "/ready")] {
        let reply = get(address, path).await;
        assert!(reply.head.starts_with("HTTP/1.1 200 OK"), "{}", reply.head);
        assert_eq!(reply.body, "ready\n");
    }
    assert!(get(linkerd, "/live").await.head.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_scrape_has_the_media_type_of_the_text_format() {
    let test = TestState::ready("");
    let Addresses { admin, stats, linkerd, .. } = start(&test);
    for (address, path) in [(admin, "/stats/prometheus"), (stats, "/stats/prometheus"), (linkerd, "/metrics")]
    {
        let reply = get(address, path).await;
        assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
        assert!(
            reply.body.contains("\nistio_build{") && reply.body.contains("\nringmail_policy_version 7\n")
        );
    }
}

#[tokio::test]
async fn certs_show_the_chain_and_the_roots_and_no_key() {
    let test = TestState::empty();
    let admin = start(&test).admin;
    assert_eq!(json(admin, "/certs").await["certificates"], Value::Array(Vec::new()));

    let ready = TestState::ready("");
    test.credentials.send_replace(ready.state.credentials.borrow().clone());
    let certs = json(admin, "/certs").await;
    let credentials = test.state.credentials.borrow().clone().unwrap();
    assert_eq!(certs["identity"], ID);
    assert_eq!(certs["generation"], 3);
    let leaf = &certs["certificates"][0]["cert_chain"][0];
    assert_eq!((&leaf["serial_number"], credentials.svid.serial()), (&"800a1b".into(), "800a1b"));
    assert_eq!(leaf["subject_alt_names"][0]["uri"], ID);
    assert_eq!(leaf["is_ca"], false);
    let root = &certs["certificates"][0]["ca_cert"][0];
    assert_eq!((&root["subject"], &root["is_ca"]), (&"CN=test root".into(), &true.into()));
    assert_eq!(leaf["issuer"], root["subject"]);
    assert_eq!(root["valid_from"], "1975-01-01T00:00:00Z");
    let text = get(admin, "/certs").await.body;
    assert!(!text.contains("BEGIN") && !text.to_lowercase().contains("private"));
}

#[tokio::test]
async fn connections_lists_open_ones_with_all_that_is_known() {
    let test = TestState::ready("");
    let admin = start(&test).admin;
    let mesh = test.mesh(1, Direction::Outbound);
    mesh.live().bytes.add_to_downstream(5);
    let handshaking = test.open(0, Direction::Inbound, "10.244.0.7:47100");
    test.open(0, Direction::Inbound, "10.244.0.7:47100").close(Reason::Complete, None);
    let list = json(admin, "/connections").await;
    let list = list["connections"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(list[0]["direction"], "outbound");
    assert_eq!(list[0]["peer_identity"], ID);
    assert_eq!(list[0]["peer_workload"], "ignite/ignite-1");
    assert_eq!(list[0]["protection"], "mutual_tls");
    assert_eq!((&list[0]["bytes_sent"], &list[0]["bytes_received"]), (&5.into(), &0.into()));
    assert_eq!((&list[0]["established"], &list[1]["established"]), (&true.into(), &false.into()));
    assert_eq!((&list[1]["peer_identity"], &list[1]["protection"]), (&Value::Null, &"undecided".into()));
    drop(handshaking);
}

#[tokio::test]
async fn config_dump_shows_settings_policies_and_workloads() {
    let test = TestState::ready("");
    test.state.discovery_status.reject("bad: unknown field".to_owned());
    let admin = start(&test).admin;
    let record = test.mesh(0, Direction::Inbound);
    let dump = json(admin, "/config_dump").await;
    assert_eq!(dump["settings"]["namespace"], "ignite");
    assert_eq!(dump["settings"]["permissive_wait"], "200ms");
    assert_eq!(dump["settings"].as_object().unwrap().len(), crate::config::SETTINGS.len());
    assert_eq!((&dump["policy"]["version"], &dump["policy"]["rejected"]), (&7.into(), &1.into()));
    assert_eq!(dump["policy"]["last_error"], "bad: unknown field");
    let mode = &dump["policy"]["modes"][0];
    assert_eq!((&mode["port"], &mode["mode"]), (&47500.into(), &"PERMISSIVE".into()));
    assert_eq!(dump["workloads"][1]["name"], "ignite-1");
    assert_eq!(dump["workloads"][1]["identity"], ID);
    drop(record);
}

async fn ends_within(mut stream: TcpStream, deadline: Duration) -> Duration {
    let start = Instant::now();
    let mut rest = Vec::new();
    timeout(deadline, stream.read_to_end(&mut rest)).await.expect("cut in time").ok();
    start.elapsed()
}

#[tokio::test]
async fn silent_and_slow_clients_are_cut_at_the_deadline() {
    let test = TestState::ready("");
    let stats = start(&test).stats;
    let silent = TcpStream::connect(stats).await.unwrap();
    let mut half = TcpStream::connect(stats).await.unwrap();
    half.write_all(b"GET /healthz/ready HTTP/1.1\r\nHost:").await.unwrap();
    let tolerance = Duration::from_secs(2);
    let (silent, half) = tokio::join!(
        ends_within(silent, HEAD_DEADLINE + tolerance),
        ends_within(half, HEAD_DEADLINE + tolerance)
    );
    let early = HEAD_DEADLINE - Duration::from_millis(500);
    assert!(silent > early && half > early, "{silent:?} {half:?}");
}

#[tokio::test]
async fn a_client_that_drips_its_request_is_cut_as_well() {
    let test = TestState::ready("");
    let health = start(&test).health;
    let mut stream = TcpStream::connect(health).await.unwrap();
    let start = Instant::now();
    let dripped = timeout(CONNECTION_DEADLINE + Duration::from_secs(2), async {
        loop {
            if stream.write_all(b"G").await.is_err() {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(dripped.await.is_ok(), "still open after {:?}", start.elapsed());
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_as_well() {
    let test = TestState::ready("");
    let admin = start(&test).admin;
    let open: Vec<_> = (0..20_000).map(|_| test.mesh(0, Direction::Outbound)).collect();
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(b"GET /connections HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    sleep(CONNECTION_DEADLINE + Duration::from_secs(1)).await;
    let mut read = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut read)).await.expect("cut in time").ok();
    let head = String::from_utf8_lossy(&read[..200]).into_owned();
    let length = head.split_once("content-length: ").unwrap().1.split("\r\n").next().unwrap();
    assert!(read.len() < length.parse().unwrap(), "the whole answer of {length} bytes came");
    drop(open);
}

#[tokio::test]
async fn more_silent_clients_than_places_do_not_lock_out_a_probe() {
    let test = TestState::ready("");
    let health = start(&test).health;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS * 4 {
        silent.push(TcpStream::connect(health).await.unwrap());
    }
    let start = Instant::now();
    assert_eq!(get(health, "/healthz/ready").await.body, "ready\n");
    assert!(start.elapsed() < HEAD_DEADLINE, "{:?}", start.elapsed());
    let oldest = silent.remove(0);
    ends_within(oldest, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn the_listeners_of_one_port_share_its_places() {
    let test = TestState::ready("");
    let listeners = ["127.0.0.1:0", "[::1]:0"].map(|address| net::TcpListener::bind(address).unwrap());
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let listeners = AdminListeners { health: listeners.into(), ..AdminListeners::default() };
    tokio::spawn(serve(Arc::clone(&test.state), listeners));
    let oldest = TcpStream::connect(addresses[0]).await.unwrap();
    let mut silent = Vec::new();
    for number in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(addresses[number % 2]).await.unwrap());
        // One after the other, whatever listener they come by.
        sleep(Duration::from_millis(20)).await;
    }
    ends_within(oldest, Duration::from_secs(1)).await;
    let open = |stream: &TcpStream| stream.try_read(&mut [0]).is_err();
    assert!(silent.iter().all(open), "more than the oldest one was ended");
}

#[tokio::test]
async fn a_head_beyond_its_bound_is_refused() {
    let test = TestState::ready("");
    let health = start(&test).health;
    let mut stream = TcpStream::connect(health).await.unwrap();
    let request = format!("GET /healthz/ready HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(4 * MAX_HEAD));
    // The server may have answered and closed before it has read everything.
    stream.write_all(request.as_bytes()).await.ok();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 431");
}

#[tokio::test]
async fn what_is_not_http_is_answered_with_an_end() {
    let test = TestState::ready("");
    let Addresses { admin, stats, health, linkerd } = start(&test);
    for address in [admin, stats, health, linkerd] {
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"\x00\x00\x47\x47\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            ends_within(stream, Duration::from_secs(1)).await;
        }
        assert!(get(address, "/nowhere").await.head.starts_with("HTTP/1.1 404"));
    }
}
