use std::{fs::File, os::fd::OwnedFd};

use tokio::time::timeout;

use super::*;
use crate::drain::{Drained, drain};

const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a thread to come and go.
const A_WHILE: Duration = Duration::from_millis(300);

fn wiring(workers: usize, outbound: TcpListener) -> Wiring {
    let config = Config::from_text("test.yaml", &format!("workers: {workers}\n")).unwrap();
    Wiring {
        config: Arc::new(config),
        access_log: AccessLog::collecting().0,
        snapshots: watch::channel(None).1,
        asker: Asker::nobody(),
        credentials: watch::channel(None).1,
        fence: Fence::off(),
        outbound: vec![outbound],
        inbound: Vec::new(),
    }
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// A descriptor that the kernel does not watch, as when it is out of watches.
fn unwatchable() -> TcpListener {
    TcpListener::from(OwnedFd::from(File::open("/proc/self/exe").unwrap()))
}

#[tokio::test]
async fn a_thread_that_accepts_no_more_is_reported() {
    for (workers, name) in [(1, "worker-0"), (3, "acceptor")] {
        let (_workers, mut gone) = Workers::start(wiring(workers, unwatchable())).unwrap();
        assert_eq!(timeout(PATIENCE, gone.recv()).await.unwrap().as_deref(), Some(name));
    }
}

#[tokio::test]
async fn a_thread_that_panics_is_reported() {
    let (farewells, mut gone) = mpsc::unbounded_channel();
    spawn("worker-7".to_owned(), &farewells, || async { panic!("as expected by a test") }).unwrap();
    assert_eq!(timeout(PATIENCE, gone.recv()).await.unwrap().as_deref(), Some("worker-7"));
}

#[tokio::test]
async fn threads_that_are_well_report_nothing() {
    for workers in [1, 3] {
        let (_workers, mut gone) = Workers::start(wiring(workers, listener())).unwrap();
        assert!(timeout(A_WHILE, gone.recv()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_a_leg_whose_record_is_closed() {
    let (workers, _gone) = Workers::start(wiring(2, listener())).unwrap();
    let workers = Arc::new(workers);
    let leg = Load::on(&workers.loads[1]);
    assert_eq!(workers.ledgers().iter().map(|ledger| ledger.live_count()).sum::<usize>(), 0);
    let never = std::future::pending;
    assert_eq!(drain(&workers, PATIENCE, never()).await, Drained::Deadline { left: 1 });
    drop(leg);
    assert_eq!(drain(&workers, PATIENCE, never()).await, Drained::Quiet);
}
