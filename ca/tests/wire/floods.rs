//! Floods of HTTP/2 against the program: each ends with its reason, memory stays, and good clients are served meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rcgen::KeyPair;
use ringmail_evidence::shown;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::support::floods::floods;
use crate::support::{Ca, TOKEN, ask, client_config, csr, eventually, request};

/// Connections that pour at once.
const AT_ONCE: usize = 4;

/// KiB of a process that no file backs.
fn anonymous(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Asks for one certificate after the other until `stop`; how long each took.
async fn good_client(ca: Arc<Ca>, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let channel = ca.connect().await;
    let csr = csr(&KeyPair::generate().unwrap());
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        ask(channel.clone(), Some(TOKEN), request(&csr)).await.unwrap();
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took.sort();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_frames_ends_with_its_reason_while_others_are_served() {
    let ca = Arc::new(Ca::start(&["--idle-timeout", "1s"]));
    ca.leaf().await;
    let ended = |end: &str| ca.metric(&format!("ringmail_ca_connections_closed_total{{reason=\"{end}\"}}"));
    let before = anonymous(ca.pid());
    let stop = Arc::new(AtomicBool::new(false));
    let good = tokio::spawn(good_client(Arc::clone(&ca), Arc::clone(&stop)));
    let (mut most, mut rounds) = (before, 0u64);
    for flood in floods() {
        let ends = ended(flood.end);
        let (flood, mut poured) = (Arc::new(flood), tokio::task::JoinSet::new());
        for _ in 0..AT_ONCE {
            let connector = TlsConnector::from(client_config(&ca.bundle()));
            let stream = tokio::net::TcpStream::connect(ca.address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let (flood, stream) = (Arc::clone(&flood), connector.connect(name, stream).await.unwrap());
            poured.spawn(async move { flood.pour(stream).await });
        }
        while let Some(ended) = poured.join_next().await {
            rounds += u64::from(ended.unwrap());
        }
        most = most.max(anonymous(ca.pid()));
        eventually(flood.name, || ended(flood.end) - ends > AT_ONCE as f64 - 0.5);
    }
    stop.store(true, Ordering::Relaxed);
    let took = good.await.unwrap();
    let slowest = took[took.len() - 1];
    let grown = (most - before) / 1024;
    shown!("A22", "kinds of flood that the CA ends with their reason", floods().len(), "all");
    shown!("A22", "MiB that the CA grew by, and rounds of floods", format!("{grown}, {rounds}"), "<= 16");
    shown!(
        "A22",
        "slowest of a good client's requests meanwhile, in ms",
        slowest.as_millis(),
        "< 3,000, none failed"
    );
    assert!(grown <= 16, "{grown} MiB");
    assert!(slowest < Duration::from_secs(3), "{slowest:?} of {}", took.len());
}
