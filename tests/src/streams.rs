//! Plain sockets of a test inside pods: what an application of one's own sees through two sidecars.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use ringmail_lab::{network::Pod, wire};

/// The port that the tests' own applications listen on: captured like any other.
pub const OWN_PORT: u16 = 7_777;

/// Nothing in a test waits longer for a single read or write.
const IO_DEADLINE: Duration = Duration::from_secs(90);

/// Listens in a pod on [`OWN_PORT`].
pub fn listen(pod: &Pod) -> Result<TcpListener> {
    let address = SocketAddr::new(pod.ip(), OWN_PORT);
    pod.namespace().enter(|| TcpListener::bind(address))?.with_context(|| format!("listen on {address}"))
}

/// Connects from one pod to a listener in another, and accepts there.
pub fn pair(from: &Pod, to: &Pod, listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let near = wire::connect(from.namespace(), SocketAddr::new(to.ip(), OWN_PORT))?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(IO_DEADLINE))?;
        stream.set_write_timeout(Some(IO_DEADLINE))?;
    }
    Ok((near, far))
}

/// A small seeded generator: the same seed gives the same bytes on both ends.
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl Seeded {
    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fills `buffer`.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next_number().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// The most that one write of [`send`] gives.
const LARGEST_WRITE: usize = 128 * 1024;

/// Writes `length` seeded bytes in pieces of random sizes, and ends the direction.
pub fn send(mut stream: &TcpStream, seed: u64, length: u64) -> io::Result<()> {
    let (mut bytes, mut sizes) = (Seeded(seed), Seeded(!seed));
    let mut piece = vec![0; LARGEST_WRITE];
    let mut left = length;
    while left > 0 {
        // Whole words, so that both ends cut the generator's output alike.
        let size = (sizes.next_number() % (LARGEST_WRITE as u64 / 8) + 1) * 8;
        let size = usize::try_from(size.min(left)).unwrap_or(LARGEST_WRITE);
        bytes.fill(&mut piece[..size]);
        stream.write_all(&piece[..size])?;
        left -= size as u64;
    }
    stream.shutdown(Shutdown::Write)
}

/// Reads to the end and says how many bytes came and whether each is what [`send`] wrote.
pub fn receive(mut stream: &TcpStream, seed: u64) -> io::Result<(u64, bool)> {
    let mut expected = Seeded(seed);
    let (mut total, mut equal) = (0u64, true);
    let mut buffer = vec![0; 64 * 1024];
    let (mut word, mut used) = ([0u8; 8], 8);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok((total, equal));
        }
        for byte in &buffer[..read] {
            if used == 8 {
                word = expected.next_number().to_le_bytes();
                used = 0;
            }
            equal &= word[used] == *byte;
            used += 1;
        }
        total += read as u64;
    }
}

/// Seeded bytes both ways on so many connections at once, each direction with a length of its own below `longest`, so that one
/// half closes long before the other. Every byte is compared. Gives how many passed.
///
/// # Panics
/// If one byte differs, is missing or is too much, or a connection fails.
#[expect(clippy::unwrap_used, reason = "a stream that fails fails its scenario")]
pub fn both_ways(pods: (&Pod, &Pod), listener: &TcpListener, count: u64, longest: u64, round: u64) -> u64 {
    let pairs: Vec<_> = (0..count).map(|_| pair(pods.0, pods.1, listener).unwrap()).collect();
    let one_way = |from, to, seed: u64| {
        let length = Seeded(!seed).next_number() % longest;
        thread::scope(|scope| {
            scope.spawn(move || send(from, seed, length).unwrap());
            assert_eq!(receive(to, seed).unwrap(), (length, true), "seed {seed}");
        });
        length
    };
    thread::scope(|scope| {
        let running: Vec<_> = (round * 1_000..)
            .zip(&pairs)
            .flat_map(|(seed, (near, far))| {
                [
                    scope.spawn(move || one_way(near, far, seed)),
                    scope.spawn(move || one_way(far, near, seed + 500)),
                ]
            })
            .collect();
        running.into_iter().map(|stream| stream.join().unwrap()).sum()
    })
}

/// What a process holds: open descriptors and resident memory in KiB.
pub fn holds(pid: u32) -> Result<(usize, u64)> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse().ok())
        .context("no RssAnon")?;
    Ok((descriptors, resident))
}
