//! Copies between two plain ends on real sockets: `near application | downstream copy upstream | far application`.

use std::{env, future::Future, iter, os::fd::AsRawFd, process::Command, thread, time::Duration};

use nix::sys::{
    resource::{Resource, setrlimit},
    socket::{MsgFlags, send},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Builder,
    time::{sleep, timeout},
};

use super::*;
use crate::{
    copy::{Duplex, End, Fault, Outcome},
    record::ByteCounts,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// After this a copy that has something to do has done it.
const SETTLED: Duration = Duration::from_millis(150);

const MEGABYTE: usize = 1 << 20;

/// Every test has a pool of its own: those of a thread.
fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let tested = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(PATIENCE, test()).await.unwrap() });
    });
    tested.join().unwrap();
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (connected, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (connected.unwrap(), accepted.unwrap().0)
}

struct Passing {
    duplex: Duplex,
    downstream: End,
    upstream: End,
    counts: ByteCounts,
}

impl Passing {
    async fn new() -> (TcpStream, Self, TcpStream) {
        let (near, downstream) = pair().await;
        let (upstream, far) = pair().await;
        let passing = Self {
            duplex: Duplex::new(PATIENCE, &[]),
            downstream: End::Plain(downstream),
            upstream: End::Plain(upstream),
            counts: ByteCounts::default(),
        };
        (near, passing, far)
    }

    async fn run(&mut self) -> Outcome {
        self.duplex.run(&mut self.downstream, &mut self.upstream, &self.counts).await
    }

    /// Copies while `doing` is done.
    async fn during<T>(&mut self, doing: impl Future<Output = T>) -> T {
        tokio::select! {
            outcome = self.run() => panic!("the copy ended: {outcome:?}"),
            done = doing => done,
        }
    }

    /// Copies until nothing moves any more; what waits in the pipe onward then.
    async fn settle(&mut self) -> usize {
        loop {
            let before = self.counts.from_downstream() + self.counts.to_downstream();
            self.during(sleep(SETTLED)).await;
            if self.counts.from_downstream() + self.counts.to_downstream() == before {
                return self.duplex.onward.piped().held();
            }
        }
    }
}

/// Bytes that tell where they stand.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    iter::repeat_with(|| random(&mut state).to_le_bytes()).flatten().take(len).collect()
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Writes all of `bytes`, as many at a time as come up.
async fn write_in_random_steps(socket: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8], mut seed: u64) {
    let mut left = bytes;
    while !left.is_empty() {
        let most = if random(&mut seed).is_multiple_of(4) { 2_000 } else { 500_000 };
        let step = (1 + random(&mut seed) as usize % most).min(left.len());
        socket.write_all(&left[..step]).await.unwrap();
        left = &left[step..];
    }
    socket.shutdown().await.unwrap();
}

async fn read_all(socket: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    socket.read_to_end(&mut all).await.unwrap();
    all
}

/// Writes until the socket takes no more for a while.
async fn stuff(socket: &mut TcpStream) -> usize {
    let (mut taken, block) = (0, vec![7; 128 << 10]);
    while let Ok(written) = timeout(SETTLED, socket.write(&block)).await {
        taken += written.unwrap();
    }
    taken
}

async fn small_messages(near: &mut TcpStream, far: &mut TcpStream, count: usize) {
    let mut room = [0; 128];
    for _ in 0..count {
        near.write_all(&[1; 128]).await.unwrap();
        far.read_exact(&mut room).await.unwrap();
        far.write_all(&[2; 128]).await.unwrap();
        near.read_exact(&mut room).await.unwrap();
    }
}

fn kept() -> usize {
    POOL.with_borrow(|pool| pool.kept.len())
}

fn lent() -> usize {
    POOL.with_borrow(|pool| pool.lent)
}

fn forget_kept() {
    POOL.with_borrow_mut(|pool| pool.kept.clear());
}

/// Twelve megabytes each way at once, whole and counted.
async fn passes_bulk_both_ways() {
    let (near, mut passing, far) = Passing::new().await;
    let (up, down) = (bytes(12 * MEGABYTE + 7, 3), bytes(11 * MEGABYTE + 1, 5));
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let (outcome, (), (), seen_far, seen_near) = tokio::join!(
        passing.run(),
        write_in_random_steps(&mut near_write, &up, 11),
        write_in_random_steps(&mut far_write, &down, 13),
        read_all(&mut far_read),
        read_all(&mut near_read),
    );
    assert_eq!(outcome, Outcome::Complete);
    assert!(seen_far == up && seen_near == down, "{} and {} bytes", seen_far.len(), seen_near.len());
    let counted = (passing.counts.from_downstream(), passing.counts.to_downstream());
    assert_eq!(counted, (up.len() as u64, down.len() as u64));
}

#[test]
fn bulk_of_any_size_passes_whole_both_ways_at_once_through_pipes_that_come_back() {
    alone(async || {
        passes_bulk_both_ways().await;
        assert!((1..=KEPT).contains(&kept()) && lent() == 0, "{} kept, {} lent", kept(), lent());
    });
}

#[test]
fn bulk_passes_by_slabs_where_every_pipe_is_lent() {
    alone(async || {
        let all: Vec<_> = iter::from_fn(Pipe::lend).collect();
        assert_eq!(all.len(), MAX_LENT);
        let (mut near, mut passing, far) = Passing::new().await;
        stuff(&mut near).await;
        assert_eq!(passing.settle().await, 0);
        assert!(passing.counts.from_downstream() > 0);
        drop((near, passing, far, all));
        assert_eq!((lent(), kept()), (0, KEPT));
        let all: Vec<_> = iter::from_fn(Pipe::lend).collect();
        passes_bulk_both_ways().await;
        assert_eq!(lent(), all.len());
    });
}

/// Set in a process of its own for one test.
const WITHOUT_DESCRIPTORS: &str = "RINGMAIL_TEST_WITHOUT_DESCRIPTORS";

#[test]
fn bulk_passes_by_slabs_where_no_pipe_can_be_made() {
    if env::var_os(WITHOUT_DESCRIPTORS).is_some() {
        alone(async || {
            let (mut near, mut passing, mut far) = Passing::new().await;
            // Those that are open stay, and none can be added.
            setrlimit(Resource::RLIMIT_NOFILE, 0, 0).unwrap();
            let sent = passing.during(stuff(&mut near)).await;
            assert_eq!(passing.settle().await, 0);
            passing.during(far.read_exact(&mut vec![0; sent])).await.unwrap();
            assert_eq!((lent(), kept()), (0, 0));
        });
        return;
    }
    // The limit holds for a whole process, and other tests run in this one.
    let name = "copy::splice::tests::bulk_passes_by_slabs_where_no_pipe_can_be_made";
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name])
        .env(WITHOUT_DESCRIPTORS, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_slow_reader_holds_back_the_sender_and_no_more_than_one_pipe_of_bytes() {
    alone(async || {
        let (mut near, mut passing, mut far) = Passing::new().await;
        let sent = passing.during(stuff(&mut near)).await;
        let held = passing.settle().await;
        assert!((1..=CAPACITY as usize).contains(&held), "bulk waits in a pipe: {held}");
        assert_eq!(lent(), 1);
        let written = passing.counts.from_downstream() as usize;
        assert!(written + held < sent, "what is unsent keeps the rest unread: {written}, {held}, {sent}");
        let mut all = vec![0; sent];
        passing.during(far.read_exact(&mut all)).await.unwrap();
        assert!(all.iter().all(|byte| *byte == 7));
        assert_eq!(passing.counts.from_downstream() as usize, sent);
        passing.settle().await;
        assert_eq!((lent(), kept()), (0, 1), "an idle connection holds no pipe");
    });
}

#[test]
fn small_messages_never_pass_through_a_pipe_not_even_after_bulk() {
    alone(async || {
        let (mut near, mut passing, mut far) = Passing::new().await;
        passing.during(small_messages(&mut near, &mut far, 500)).await;
        assert_eq!(kept(), 0);
        let sent = passing.during(stuff(&mut near)).await;
        passing.during(far.read_exact(&mut vec![0; sent])).await.unwrap();
        assert_eq!(kept(), 1);
        passing.during(small_messages(&mut near, &mut far, 5)).await;
        forget_kept();
        passing.during(small_messages(&mut near, &mut far, 500)).await;
        assert_eq!(kept(), 0);
    });
}

/// Has the next pipe be full long before its bytes say so, as with many small segments.
fn keep_one_that_is_full_early() {
    let mut ends = Ends::new().unwrap();
    let real = fcntl(&ends.inlet, FcntlArg::F_SETPIPE_SZ(MIN_CAPACITY as c_int)).unwrap();
    assert!(real < CAPACITY);
    ends.capacity = CAPACITY as usize;
    POOL.with_borrow_mut(|pool| pool.kept.push(Box::new(ends)));
}

#[test]
fn a_pipe_that_is_full_before_the_socket_is_empty_leaves_nothing_behind() {
    alone(async || {
        keep_one_that_is_full_early();
        let (mut near, mut passing, mut far) = Passing::new().await;
        for _ in 0..8 {
            let mut all = vec![0; passing.during(stuff(&mut near)).await];
            let read = timeout(PATIENCE / 4, far.read_exact(&mut all));
            passing.during(read).await.expect("bytes were left behind").unwrap();
        }
    });
}

#[test]
fn a_half_closed_connection_passes_bulk_back_and_both_ends_in_order() {
    alone(async || {
        let (mut near, mut passing, mut far) = Passing::new().await;
        let (up, down) = (bytes(3 * MEGABYTE, 23), bytes(5 * MEGABYTE + 3, 29));
        let near_side = async {
            write_in_random_steps(&mut near, &up, 31).await;
            read_all(&mut near).await
        };
        let far_side = async {
            let seen = read_all(&mut far).await;
            write_in_random_steps(&mut far, &down, 37).await;
            seen
        };
        let (outcome, seen_near, seen_far) = tokio::join!(passing.run(), near_side, far_side);
        assert_eq!(outcome, Outcome::Complete);
        assert!(seen_far == up && seen_near == down);
    });
}

#[test]
fn a_sender_that_resets_is_told_after_what_was_spliced_before_is_delivered() {
    alone(async || {
        let (mut near, mut passing, mut far) = Passing::new().await;
        let sent = passing.during(stuff(&mut near)).await;
        let held = passing.settle().await;
        let written = passing.counts.from_downstream() as usize;
        SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
        drop(near);
        let (outcome, seen) = tokio::join!(
            async {
                let outcome = passing.run().await;
                let delivered = passing.counts.from_downstream() as usize;
                drop(passing);
                (outcome, delivered)
            },
            read_all(&mut far)
        );
        assert_eq!(outcome, (Outcome::Downstream(Fault::Reset), seen.len()));
        assert!((written + held..=sent).contains(&seen.len()), "{written}, {held}, {}, {sent}", seen.len());
        assert!(seen.iter().all(|byte| *byte == 7));
        assert_eq!((lent(), kept()), (0, 1));
    });
}

#[test]
fn a_reader_that_resets_ends_the_copy_and_its_pipe_is_closed_with_what_is_in_it() {
    alone(async || {
        let (mut near, mut passing, far) = Passing::new().await;
        passing.during(stuff(&mut near)).await;
        assert!(passing.settle().await > 0);
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        assert_eq!(passing.run().await, Outcome::Upstream(Fault::Reset));
        drop(passing);
        assert_eq!((lent(), kept()), (0, 0));
    });
}

#[test]
fn an_urgent_byte_in_the_middle_of_bulk_stops_nothing() {
    alone(async || {
        let (mut near, mut passing, mut far) = Passing::new().await;
        let (before, after) = (bytes(4 * MEGABYTE, 41), bytes(4 * MEGABYTE + 5, 43));
        let near_side = async {
            near.write_all(&before).await.unwrap();
            near.writable().await.unwrap();
            assert_eq!(send(near.as_raw_fd(), b"!", MsgFlags::MSG_OOB), Ok(1));
            near.write_all(&after).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let far_side = async {
            far.shutdown().await.unwrap();
            read_all(&mut far).await
        };
        let (outcome, (), seen) = tokio::join!(passing.run(), near_side, far_side);
        assert_eq!(outcome, Outcome::Complete);
        assert!(seen == [before, after].concat(), "{} bytes", seen.len());
    });
}
