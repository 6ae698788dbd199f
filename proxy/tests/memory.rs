//! What a connection holds while nothing is said on it, and what it allocates while something is.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

mod kit;

use std::time::Duration;

use dhat::{HeapStats, Profiler};
use kit::{
    Ca, Handles, context, pair,
    wire::{NO_POLICY, PATIENCE, run, start},
};
use ringmail_proxy::{
    copy::{Duplex, End},
    record::{ByteCounts, Direction},
    tls,
    tls::Credentials,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
    time::sleep,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CONNECTIONS: usize = 200;

/// Bytes of the heap for an idle connection, both sidecars together. The allocator's own part comes on top; the
/// ciphers' contexts, which are allocated in C, are given back while it is idle.
const IDLE_BYTES: usize = 5_100;

/// Round trips, and megabytes, after which allocations per message would show.
const MESSAGES: usize = 1_000;
const MEGABYTES: usize = 64;

/// For tasks that were woken.
const SETTLED: Duration = Duration::from_millis(100);

/// What may be allocated meanwhile: a waker here and there, the part of a record that a read ends with.
const ALLOCATIONS: u64 = 100;

struct Sidecars {
    client: std::sync::Arc<Credentials>,
    server: std::sync::Arc<Credentials>,
    outbound: Handles,
    inbound: Handles,
}

impl Sidecars {
    fn new() -> Self {
        let ca = Ca::new("root");
        let (client, server) = (ca.credentials("n1"), ca.credentials("n2"));
        let (outbound, inbound) = (context(&client, "", NO_POLICY), context(&server, "", NO_POLICY));
        Self { client, server, outbound, inbound }
    }

    /// A connection that has carried a message each way: both applications' ends.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let (near, far) = pair().await;
        let address = near.peer_addr().unwrap().ip();
        let (connected, accepted) = tokio::join!(
            tls::connect(near, address, &self.client, PATIENCE),
            tls::accept(far, Vec::new(), &self.server, PATIENCE)
        );
        let (mut a, a_side) = pair().await;
        let (b_side, mut b) = pair().await;
        start(&self.outbound, Direction::Outbound, connected.unwrap(), a_side).await;
        start(&self.inbound, Direction::Inbound, accepted.unwrap(), b_side).await;
        round_trip(&mut a, &mut b).await;
        (a, b)
    }
}

async fn round_trip(a: &mut TcpStream, b: &mut TcpStream) {
    let mut buffer = [0; 128];
    a.write_all(&[1; 128]).await.unwrap();
    b.read_exact(&mut buffer).await.unwrap();
    b.write_all(&[2; 128]).await.unwrap();
    a.read_exact(&mut buffer).await.unwrap();
}

/// A connection that is copied between two plain ends: both applications' ends.
async fn plain() -> (TcpStream, TcpStream) {
    let ((a, downstream), (upstream, b)) = (pair().await, pair().await);
    spawn_local(async move {
        let (mut downstream, mut upstream) = (End::Plain(downstream), End::Plain(upstream));
        Duplex::new(PATIENCE, &[]).run(&mut downstream, &mut upstream, &ByteCounts::default()).await
    });
    (a, b)
}

async fn allocated_by_bulk(a: &mut TcpStream, b: &mut TcpStream) -> u64 {
    let chunk = vec![7; 1 << 20];
    let mut buffer = vec![0; 1 << 20];
    let before = HeapStats::get().total_blocks;
    for _ in 0..MEGABYTES {
        let (written, read) = tokio::join!(a.write_all(&chunk), b.read_exact(&mut buffer));
        written.unwrap();
        read.unwrap();
    }
    HeapStats::get().total_blocks - before
}

/// Has every connection look at itself twice, as a worker does within a second, and give back what it can.
async fn rest(sidecars: &Sidecars) {
    for _ in 0..2 {
        for handles in [&sidecars.outbound, &sidecars.inbound] {
            handles.context.registry.probe();
        }
        sleep(SETTLED).await;
    }
}

/// Bytes of the heap that each of many holds, of which the first, which may make what all share, does not count.
async fn held_by_each<T>(mut make: impl AsyncFnMut() -> T, settle: impl AsyncFn()) -> (usize, Vec<T>) {
    let mut held = Vec::with_capacity(CONNECTIONS + 1);
    held.push(make().await);
    settle().await;
    let before = HeapStats::get().curr_bytes;
    for _ in 0..CONNECTIONS {
        held.push(make().await);
    }
    settle().await;
    ((HeapStats::get().curr_bytes - before) / CONNECTIONS, held)
}

/// One test: a heap is counted for the whole process.
#[tokio::test]
async fn an_idle_connection_holds_little_and_a_message_allocates_nothing() {
    let _profiler = Profiler::builder().testing().build();
    run(async {
        // The applications' two sockets are this test's own.
        let (sockets, _) = held_by_each(pair, async || ()).await;
        let sidecars = Sidecars::new();
        let connecting = async || sidecars.connect().await;
        let (connection, mut idle) = held_by_each(connecting, async || rest(&sidecars).await).await;
        let connection = connection - sockets;
        println!("{connection} bytes");
        assert!(connection <= IDLE_BYTES, "{connection} bytes, at most {IDLE_BYTES}");

        // One that has rested wakes up.
        let (mut a, mut b) = idle.pop().unwrap();
        let (mut c, mut d) = plain().await;
        for (what, near, far) in [("in the mesh", &mut a, &mut b), ("outside", &mut c, &mut d)] {
            round_trip(near, far).await;
            let before = HeapStats::get().total_blocks;
            for _ in 0..MESSAGES {
                round_trip(near, far).await;
            }
            let messages = HeapStats::get().total_blocks - before;
            let bulk = allocated_by_bulk(near, far).await;
            println!("{what}: {messages} allocations for {MESSAGES} messages, {bulk} for {MEGABYTES} MiB");
            assert!(
                messages <= ALLOCATIONS && bulk <= ALLOCATIONS,
                "{what}: {messages} and {bulk}, at most {ALLOCATIONS}"
            );
        }
    })
    .await;
}
