//! Bytes one way in blocks. The first byte of a block says whether another follows, so that both ends know the whole
//! count without closing anything, and can say whether a byte was lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::measured::Measured;
use super::socket;
use super::window::{Phase, Window};

/// What is written at once: large, as the load must cost less than what it measures.
const BLOCK: usize = 256 << 10;

/// First byte of a block that others follow.
const MORE: u8 = 1;
/// First byte of the last block, whose next eight are the count of all bytes.
const LAST: u8 = 0;

/// Where the count lies in the last block.
const COUNT: std::ops::Range<usize> = 1..9;

/// Sends over so many connections.
pub(super) fn up(to: SocketAddr, streams: usize, window: Window) -> Result<Measured> {
    run(to, streams, window, |stream, stop, moved| {
        let sent = send(stream, || Ok(stop.load(Ordering::Relaxed)), moved)?;
        let mut counted = [0; 8];
        (&*stream).read_exact(&mut counted).context("read the server's count")?;
        let counted = u64::from_be_bytes(counted);
        ensure!(counted == sent, "{sent} bytes were sent, the server has read {counted}");
        Ok(())
    })
}

/// Receives over so many connections.
pub(super) fn down(to: SocketAddr, streams: usize, window: Window) -> Result<Measured> {
    run(to, streams, window, |stream, stop, moved| {
        let mut asked = false;
        receive(stream, moved, || {
            if !asked && stop.load(Ordering::Relaxed) {
                asked = true;
                (&*stream).write_all(&[LAST]).context("ask the server to stop")?;
            }
            Ok(())
        })
        .map(drop)
    })
}

/// The server's end of [`up`].
pub(super) fn sink(stream: &TcpStream) -> Result<()> {
    let received = receive(stream, &AtomicU64::new(0), || Ok(()))?;
    Ok((&*stream).write_all(&received.to_be_bytes())?)
}

/// The server's end of [`down`].
pub(super) fn source(stream: &TcpStream) -> Result<()> {
    let asked_to_stop = || {
        stream.set_nonblocking(true)?;
        let said = (&*stream).read(&mut [0]);
        stream.set_nonblocking(false)?;
        match said {
            Ok(0) => bail!("the client has gone"),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    send(stream, asked_to_stop, &AtomicU64::new(0)).map(drop)
}

fn run(
    to: SocketAddr,
    streams: usize,
    mut window: Window,
    work: impl Fn(&TcpStream, &AtomicBool, &AtomicU64) -> Result<()> + Sync,
) -> Result<Measured> {
    let connections: Vec<_> = (0..streams).map(|_| socket::connect(to)).collect::<Result<_>>()?;
    let (stop, moved) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let workers: Vec<_> =
            connections.iter().map(|stream| scope.spawn(|| work(stream, &stop, &moved))).collect();
        let (mut before, mut bytes) = (0, 0);
        // A worker that ends before it was asked to has failed: its error is found below.
        while workers.iter().all(|worker| !worker.is_finished()) {
            match window.phase(Instant::now())? {
                Phase::WarmUp => {}
                Phase::Measuring => before = moved.load(Ordering::Relaxed),
                Phase::Over => {
                    bytes = moved.load(Ordering::Relaxed) - before;
                    break;
                }
            }
            thread::sleep(window.next_change(Instant::now()).unwrap_or_default());
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        ensure!(bytes > 0, "no byte was carried");
        Ok(Measured { bytes, ..window.measured() })
    })
}

/// Sends blocks until it is told to stop; returns how many bytes.
fn send(mut stream: &TcpStream, stop: impl Fn() -> Result<bool>, moved: &AtomicU64) -> Result<u64> {
    let mut block = vec![0; BLOCK];
    block[0] = MORE;
    let mut sent = 0;
    loop {
        let last = stop()?;
        if last {
            block[0] = LAST;
            block[COUNT].copy_from_slice(&(sent + BLOCK as u64).to_be_bytes());
        }
        stream.write_all(&block).context("send a block")?;
        sent += BLOCK as u64;
        moved.fetch_add(BLOCK as u64, Ordering::Relaxed);
        if last {
            return Ok(sent);
        }
    }
}

/// Reads blocks to the last one and checks the sender's count; returns how many bytes.
fn receive(
    mut stream: &TcpStream,
    moved: &AtomicU64,
    mut between: impl FnMut() -> Result<()>,
) -> Result<u64> {
    let mut buffer = vec![0; BLOCK];
    let (mut received, mut at, mut last, mut count) = (0_u64, 0, false, [0; 8]);
    loop {
        between()?;
        // Never beyond a block: the first byte of the next one would be mistaken for its middle.
        let length = stream.read(&mut buffer[..BLOCK - at]).context("read a block")?;
        ensure!(length > 0, "the stream ended after {received} bytes, in the middle");
        for (offset, byte) in (at..).zip(&buffer[..length.min(COUNT.end.saturating_sub(at))]) {
            match offset {
                0 => last = *byte == LAST,
                _ => count[offset - COUNT.start] = *byte,
            }
        }
        received += length as u64;
        moved.fetch_add(length as u64, Ordering::Relaxed);
        at = (at + length) % BLOCK;
        if at == 0 && last {
            let counted = u64::from_be_bytes(count);
            ensure!(counted == received, "{counted} bytes were sent, {received} came");
            return Ok(received);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    fn serve_one(work: fn(&TcpStream) -> Result<()>) -> (SocketAddr, thread::JoinHandle<Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (address, thread::spawn(move || work(&listener.accept().unwrap().0)))
    }

    fn window() -> Window {
        Window::new(Duration::from_millis(10), Duration::from_millis(30), None)
    }

    #[test]
    fn both_ways_carry_bytes_and_agree_on_their_number() {
        let (address, server) = serve_one(sink);
        assert!(up(address, 1, window()).unwrap().bytes > 0);
        server.join().unwrap().unwrap();
        let (address, server) = serve_one(source);
        assert!(down(address, 1, window()).unwrap().bytes > 0);
        server.join().unwrap().unwrap();
    }

    #[test]
    fn a_lost_byte_is_told() {
        let (address, server) = serve_one(|stream| {
            let mut stream = stream;
            let mut block = vec![0; BLOCK];
            block[COUNT].copy_from_slice(&(BLOCK as u64 + 1).to_be_bytes());
            Ok(stream.write_all(&block)?)
        });
        let stream = socket::connect(address).unwrap();
        let error = receive(&stream, &AtomicU64::new(0), || Ok(())).unwrap_err().to_string();
        assert_eq!(error, "262145 bytes were sent, 262144 came");
        server.join().unwrap().unwrap();
    }
}
