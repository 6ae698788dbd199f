//! Loads that another process times: connections that stay, and messages that are counted.

use std::io::{BufRead, Read, Write, stdin};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use anyhow::{Context, Result};

use super::measured::Measured;
use super::socket;

/// What is printed when everything that was asked for is there.
pub const HELD: &str = "held";

/// Connections opened at the same time: enough to keep both proxies busy, and far below any limit on handshakes.
const OPENERS: usize = 8;

/// The size of a counted message.
pub(super) const COUNTED_BYTES: usize = 128;

/// Opens connections, says so, and holds them until stdin ends.
pub(super) fn hold(to: SocketAddr, connections: usize) -> Result<Measured> {
    let held = thread::scope(|scope| {
        let openers: Vec<_> = (0..OPENERS)
            .map(|opener| {
                scope.spawn(move || {
                    open(to, connections / OPENERS + usize::from(opener < connections % OPENERS))
                })
            })
            .collect();
        let opened = openers
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        opened.collect::<Result<Vec<_>>>()
    })?;
    println!("{HELD}");
    stdin().read_to_end(&mut Vec::new()).context("wait for the end of stdin")?;
    Ok(Measured { operations: held.iter().map(Vec::len).sum::<usize>() as u64, ..Measured::default() })
}

fn open(to: SocketAddr, connections: usize) -> Result<Vec<TcpStream>> {
    let mut held = Vec::with_capacity(connections);
    for number in 0..connections {
        let mut stream = socket::connect(to)?;
        let exchanged = stream.write_all(&[0]).and_then(|()| stream.read_exact(&mut [0]));
        exchanged.with_context(|| format!("carry a byte on connection {number} of one opener"))?;
        held.push(stream);
    }
    Ok(held)
}

/// Exchanges so many messages over one connection each time that a line comes, and says so; ends with stdin.
pub(super) fn count(to: SocketAddr, messages: u64) -> Result<Measured> {
    let mut stream = socket::connect(to)?;
    let mut message = [0; COUNTED_BYTES];
    let mut operations = 0;
    println!("{HELD}");
    for line in stdin().lock().lines() {
        line.context("wait for a line")?;
        for _ in 0..messages {
            stream.write_all(&message).context("send a message")?;
            stream.read_exact(&mut message).context("read an answer")?;
        }
        operations += messages;
        println!("{HELD}");
    }
    Ok(Measured { operations, ..Measured::default() })
}
