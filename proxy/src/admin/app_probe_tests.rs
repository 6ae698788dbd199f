use std::{net::Ipv4Addr, time::Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};

use super::{test_state::TestState, *};
use crate::fence::Fence;

/// The stats port of a sidecar whose application listens on loopback at `port`.
fn start(port: u16, fence: Arc<Fence>) -> net::SocketAddr {
    let probe = |path: &str, seconds: u64| {
        format!(
            r#""{path}": {{"httpGet": {{"path": "/health", "port": {port}}}, "timeoutSeconds": {seconds}}}"#
        )
    };
    let probes = [
        probe("/app-health/grid/livez", 30),
        probe("/app-health/grid/readyz", 1),
        probe("/app-lifecycle/grid/prestop", 30),
    ];
    let settings = format!("pod_addresses: [127.0.0.1]\napp_probes: '{{{}}}'\n", probes.join(", "));
    let stats = net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = stats.local_addr().unwrap();
    let state = TestState::of(&settings, fence).state;
    tokio::spawn(serve(state, AdminListeners { stats: vec![stats], ..AdminListeners::default() }));
    address
}

async fn get(address: net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    text
}

/// An application that answers every request after a while.
async fn application(after: Duration) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                sleep(after).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            });
        }
    });
    (port, serving)
}

#[tokio::test]
async fn the_application_is_asked_what_the_settings_say_and_nothing_else() {
    let (port, serving) = application(Duration::ZERO).await;
    let stats = start(port, Fence::off());
    assert!(get(stats, "/app-health/grid/livez").await.starts_with("HTTP/1.1 204 No Content"));
    assert!(get(stats, "/app-lifecycle/grid/prestop").await.starts_with("HTTP/1.1 204 No Content"));
    for path in
        ["/app-health/grid/startupz", "/app-health/other/livez", "/app-health/grid/livez/../x", "/health"]
    {
        assert!(get(stats, path).await.starts_with("HTTP/1.1 404 Not Found"), "{path}");
    }
    serving.abort();
    let _ = serving.await;
    let answer = get(stats, "/app-health/grid/livez").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("the application did not answer"),
        "{answer}"
    );
}

/// The injector's paths are on the one port that the capture rules leave to the kubelet.
#[tokio::test]
async fn no_other_port_asks_the_application() {
    let state = TestState::of(
        "app_probes: '{\"/app-health/a/livez\": {\"tcpSocket\": {\"port\": 1}}}'\n",
        Fence::off(),
    )
    .state;
    let bind = || net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (health, linkerd, admin) = (bind(), bind(), bind());
    let addresses = [&health, &linkerd, &admin].map(|listener| listener.local_addr().unwrap());
    let listeners = AdminListeners {
        admin: vec![admin],
        health: vec![health],
        linkerd: vec![linkerd],
        ..AdminListeners::default()
    };
    tokio::spawn(serve(state, listeners));
    for address in addresses {
        assert!(get(address, "/app-health/a/livez").await.starts_with("HTTP/1.1 404 Not Found"));
    }
}

#[tokio::test]
async fn a_slow_probe_outlives_a_crowd_of_strangers_and_too_many_probes_are_refused() {
    let (port, _serving) = application(Duration::from_secs(3)).await;
    let stats = start(port, Fence::off());
    let slow = tokio::spawn(get(stats, "/app-health/grid/livez"));
    sleep(Duration::from_millis(200)).await;
    let mut strangers = Vec::new();
    for _ in 0..3 * MAX_CONNECTIONS {
        strangers.push(TcpStream::connect(stats).await.unwrap());
    }
    assert!(
        get(stats, "/healthz/ready").await.starts_with("HTTP/1.1 503 "),
        "a probe of the sidecar is served too"
    );
    assert!(slow.await.unwrap().starts_with("HTTP/1.1 204 "), "the slow probe was cut");
    let mut probes = Vec::new();
    for _ in 0..=MAX_APP_PROBES {
        probes.push(tokio::spawn(get(stats, "/app-lifecycle/grid/prestop")));
        // A connection counts as a probe once its request is read.
        sleep(Duration::from_millis(20)).await;
    }
    let mut answers = Vec::new();
    for probe in probes {
        answers.push(probe.await.unwrap());
    }
    let served = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 204 ")).count();
    assert_eq!(served, MAX_APP_PROBES);
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 429 ")).count(), 1);
}

#[tokio::test]
async fn a_probe_ends_at_its_own_deadline() {
    let (port, _serving) = application(Duration::from_secs(20)).await;
    let stats = start(port, Fence::off());
    let began = Instant::now();
    let answer = get(stats, "/app-health/grid/readyz").await;
    assert!(answer.contains("no answer within 1s"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_fenced_application_is_called_dead_so_that_the_kubelet_restarts_it() {
    let (port, _serving) = application(Duration::ZERO).await;
    let stats = start(port, Fence::closed_since(Duration::from_secs(12)));
    let answer = get(stats, "/app-health/grid/livez").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("fenced, and to be restarted"),
        "{answer}"
    );
    assert!(get(stats, "/app-health/grid/readyz").await.starts_with("HTTP/1.1 204 "));
}
