//! A thousand simulated proxies against one `ringmail-control` and one `ringmail-ca` that run in pods: the real
//! protocols, no data plane. Prints a table of what they cost and how fast they learn, and fails where a bound is broken.
//!
//! The proxies' pods are real objects of the API server, on a node that nobody runs; their addresses are written here.
//! Beside them two real pods with sidecars exchange a steady load. Processes are read in `/proc` of this machine, so it
//! must be the node's. Whatever is made is removed at the end, also after a signal.

mod certificate;
mod churn;
mod cluster;
mod connection;
mod lateness;
mod learnt;
mod metrics;
mod phases;
mod process;
mod proxy;
mod rows;
mod sidecar;
mod sources;
mod table;

use std::{net::IpAddr, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use cluster::Cluster;
use phases::Phases;
use table::Table;

/// How many proxies on one control and one CA, at what cost
#[derive(Clone, Debug, Parser)]
struct CommandLine {
    /// The cluster; without it, KUBECONFIG's
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where control and the CA run
    #[arg(long, value_name = "NAMESPACE", default_value = "ringmail-system")]
    system: String,
    /// Control's pod; without it, the first that runs
    #[arg(long, value_name = "ADDRESS:PORT")]
    control: Option<SocketAddr>,
    /// The CA's pod; without it, the first that runs
    #[arg(long, value_name = "ADDRESS:PORT")]
    ca: Option<SocketAddr>,
    /// Control's process, where it runs in no pod
    #[arg(long, value_name = "PID")]
    control_pid: Option<u32>,
    /// Own addresses to connect from, in turn: control takes 512 connections from one; without it, all that there are
    #[arg(long, value_name = "ADDRESS")]
    source: Vec<IpAddr>,
    /// What the names of everything that is made begin with
    #[arg(long, default_value = "scale")]
    name: String,
    /// Proxies
    #[arg(long, default_value_t = 1000)]
    proxies: usize,
    /// Pods that come and go
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// How many of these each proxy asks for
    #[arg(long, default_value_t = 20)]
    peers: usize,
    /// Pods replaced per second
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// For so many seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// No real pods with sidecars beside them
    #[arg(long)]
    without_sidecar: bool,
    /// What the real pods run; it holds sh, socat and curl
    #[arg(long, default_value = "docker.io/ringmail/toolbox:0.1.0")]
    image: String,
    /// Fails also where a bound of time is broken while the machine had no CPU for those that are measured
    #[arg(long)]
    judge_starved: bool,
    /// How long a sidecar is looked at, in seconds
    #[arg(long, default_value_t = 20)]
    look: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(CommandLine::parse()).await {
        Ok(table) if table.broken().is_empty() => ExitCode::SUCCESS,
        Ok(table) => {
            eprintln!("error: bounds are broken: {}", table.broken().join("; "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(line: CommandLine) -> anyhow::Result<Table> {
    let cluster = Cluster::open(&line).await?;
    cluster.clean().await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let measured = tokio::select! {
        measured = Phases::new(line, cluster.clone()).run() => measured,
        _ = terminate.recv() => Err(anyhow::anyhow!("ended by SIGTERM")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("ended by SIGINT")),
    };
    cluster.clean().await?;
    let table = measured?;
    print!("{table}");
    Ok(table)
}
