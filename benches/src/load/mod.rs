//! The load: a server in one pod, a client in the other, both this same binary.
//!
//! Nothing here waits on a timer of a runtime: their milliseconds would be most of what is measured. Sockets are
//! blocking with a thread each where bytes flow, and one epoll loop where messages do.

mod bulk;
mod connect;
mod hold;
mod measured;
mod request;
mod schedule;
mod serve;
pub(crate) mod socket;
mod tally;
mod window;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};

use crate::cost::CpuClock;

pub use hold::HELD;
pub use measured::{Latency, Measured};
pub use serve::LISTENING;

/// The ports of the server, by what it does there: ordinary ones, which every candidate captures.
pub mod ports {
    /// Takes bytes and counts them.
    pub const SINK: u16 = 7101;
    /// Sends bytes until it is told to stop.
    pub const SOURCE: u16 = 7102;
    /// Answers each message of so many bytes with as many.
    pub const ECHO: [(u16, usize); 3] = [(7201, 1), (7202, 128), (7203, 4096)];
}

/// `ringmail-bench load`.
#[derive(Args, Clone, Debug)]
pub struct LoadArguments {
    /// Which end.
    #[command(subcommand)]
    pub end: End,
}

/// Which end of the load.
#[derive(Clone, Debug, Subcommand)]
pub enum End {
    /// Serves every port until killed.
    Serve,
    /// Puts one load on a server and prints what was measured as JSON.
    Run(RunArguments),
}

/// What a client does.
#[derive(Args, Clone, Debug)]
pub struct RunArguments {
    /// The server.
    #[arg(long)]
    pub to: IpAddr,
    /// Where the CPU time of the proxies is read when the measuring begins and ends.
    #[arg(long)]
    pub cpu: Option<CpuClock>,
    /// How long the load runs before anything counts.
    #[arg(long, default_value_t = 0)]
    pub warm_up_ms: u64,
    /// How long is measured.
    #[arg(long, default_value_t = 1000)]
    pub measure_ms: u64,
    /// The load.
    #[command(subcommand)]
    pub shape: Shape,
}

/// A load.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Shape {
    /// Bytes one way, as fast as they go.
    Bulk {
        /// Which way.
        #[arg(long, value_enum)]
        direction: Direction,
        /// Over so many connections.
        #[arg(long)]
        streams: usize,
    },
    /// A message and its answer, the next when the answer is there.
    Request {
        /// Bytes of each.
        #[arg(long)]
        size: usize,
        /// Over so many connections at the same time.
        #[arg(long)]
        connections: usize,
    },
    /// Messages at fixed times, whether or not answers have come.
    Schedule {
        /// Bytes of each.
        #[arg(long)]
        size: usize,
        /// Messages per second, over all connections together.
        #[arg(long)]
        rate: u64,
        /// In turn over so many connections.
        #[arg(long)]
        connections: usize,
    },
    /// New connections: each carries one byte and its answer, and is reset.
    Connect {
        /// So many at the same time.
        #[arg(long)]
        in_flight: usize,
    },
    /// Connections that carry one byte and its answer, and then nothing until stdin ends.
    Hold {
        /// So many.
        #[arg(long)]
        connections: usize,
    },
    /// So many messages of 128 bytes and their answers over one connection, each when stdin says so in a line.
    Count {
        /// So many.
        #[arg(long)]
        messages: u64,
    },
}

/// Which way bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Shape {
    /// The words of the command line that mean this load.
    pub fn words(&self) -> Vec<String> {
        let words = match self {
            Self::Bulk { direction, streams } => {
                let direction = match direction {
                    Direction::Up => "up",
                    Direction::Down => "down",
                };
                format!("bulk --direction {direction} --streams {streams}")
            }
            Self::Request { size, connections } => {
                format!("request --size {size} --connections {connections}")
            }
            Self::Schedule { size, rate, connections } => {
                format!("schedule --size {size} --rate {rate} --connections {connections}")
            }
            Self::Connect { in_flight } => format!("connect --in-flight {in_flight}"),
            Self::Hold { connections } => format!("hold --connections {connections}"),
            Self::Count { messages } => format!("count --messages {messages}"),
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

/// Serves or runs; what was measured is printed.
pub fn load(arguments: &LoadArguments) -> Result<()> {
    match &arguments.end {
        End::Serve => serve::serve(),
        End::Run(run) => {
            let measured = run_shape(run)?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
    }
}

fn run_shape(run: &RunArguments) -> Result<Measured> {
    let window = window::Window::new(
        Duration::from_millis(run.warm_up_ms),
        Duration::from_millis(run.measure_ms),
        run.cpu.clone(),
    );
    let at = |port| SocketAddr::new(run.to, port);
    match run.shape {
        Shape::Bulk { direction: Direction::Up, streams } => bulk::up(at(ports::SINK), streams, window),
        Shape::Bulk { direction: Direction::Down, streams } => bulk::down(at(ports::SOURCE), streams, window),
        Shape::Request { size, connections } => request::run(at(echo_port(size)?), size, connections, window),
        Shape::Schedule { size, rate, connections } => {
            let plan = schedule::Plan { size, rate, connections };
            schedule::run(at(echo_port(size)?), plan, window)
        }
        Shape::Connect { in_flight } => connect::run(at(echo_port(1)?), in_flight, window),
        Shape::Hold { connections } => hold::hold(at(echo_port(1)?), connections),
        Shape::Count { messages } => hold::count(at(echo_port(hold::COUNTED_BYTES)?), messages),
    }
}

fn echo_port(size: usize) -> Result<u16> {
    let found = ports::ECHO.iter().find(|(_, known)| *known == size);
    found.map(|(port, _)| *port).ok_or_else(|| {
        let known: Vec<_> = ports::ECHO.iter().map(|(_, size)| size.to_string()).collect();
        anyhow::anyhow!("messages of {size} bytes: expected one of {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArguments,
    }

    #[test]
    fn every_load_is_read_back_from_its_words() {
        for shape in [
            Shape::Bulk { direction: Direction::Down, streams: 8 },
            Shape::Bulk { direction: Direction::Up, streams: 1 },
            Shape::Request { size: 128, connections: 32 },
            Shape::Schedule { size: 4096, rate: 2000, connections: 16 },
            Shape::Connect { in_flight: 64 },
            Shape::Hold { connections: 9000 },
            Shape::Count { messages: 5 },
        ] {
            let mut words: Vec<_> = ["load", "--to", "10.0.0.1"].map(str::to_owned).to_vec();
            words.extend(shape.words());
            assert_eq!(Line::try_parse_from(words).unwrap().run.shape, shape);
        }
    }

    #[test]
    fn a_size_that_no_port_serves_names_those_that_are() {
        assert_eq!(echo_port(4096).unwrap(), 7203);
        assert!(echo_port(5).unwrap_err().to_string().contains("1, 128, 4096"));
    }
}
