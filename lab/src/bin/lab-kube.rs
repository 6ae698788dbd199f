//! `lab-kube`: a Kubernetes of plain processes that stays up between runs, for those who develop against it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use ringmail_lab::interrupt;
use ringmail_lab::kube::{Cluster, KEPT_CLUSTERS, Shape};

/// How soon an interrupt is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Keeps a Kubernetes of plain processes on this machine, or some (needs root).
#[derive(Debug, Parser)]
struct Arguments {
    /// Which of those that are kept
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..i64::from(KEPT_CLUSTERS)))]
    cluster: u8,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Starts it, unless it is there, and prints how to reach it
    Up {
        /// How many nodes, one or two
        #[arg(long, default_value_t = 1)]
        nodes: usize,
        /// Gives pods and Services no IPv6 addresses
        #[arg(long)]
        ipv4: bool,
    },
    /// Starts one without such a number, which ends with this program: when stdin does
    Hold {
        /// How many nodes, one or two
        #[arg(long, default_value_t = 1)]
        nodes: usize,
    },
    /// Takes it away, whatever is left of it
    Down,
    /// Prints the path of its kubeconfig
    Kubeconfig,
    /// Runs kubectl against it
    #[command(trailing_var_arg = true)]
    Kubectl {
        /// What kubectl is told
        #[arg(allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Puts the images of docker-archives into every node
    Load {
        /// The archives
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Stops and starts a node's kubelet and containerd
    RestartNode {
        /// Its number, from one
        node: usize,
    },
    /// Stops the API server
    StopApi,
    /// Starts the API server
    StartApi,
    /// Prints nodes, pods, events and the ends of logs, and what memory it holds
    Report,
}

fn main() -> ExitCode {
    let done = interrupt::catch().and_then(|()| run(Arguments::parse()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-kube: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { cluster: number, action }: Arguments) -> Result<()> {
    match action {
        Action::Up { nodes, ipv4 } => up(number, Shape { nodes, dual_stack: !ipv4 }),
        Action::Hold { nodes } => hold(nodes),
        Action::Down => Cluster::remove_kept(number),
        Action::Kubeconfig => {
            println!("{}", Cluster::kept(number)?.client().kubeconfig().display());
            Ok(())
        }
        Action::Kubectl { args } => {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            print!("{}", Cluster::kept(number)?.kubectl(&args)?);
            Ok(())
        }
        Action::Load { archives } => {
            let cluster = Cluster::kept(number)?;
            archives.iter().try_for_each(|archive| cluster.load_image(archive))
        }
        Action::RestartNode { node } => Cluster::kept(number)?.restart_node(node),
        Action::StopApi => Cluster::kept(number)?.stop_api(),
        Action::StartApi => Cluster::kept(number)?.start_api(),
        Action::Report => {
            let cluster = Cluster::kept(number)?;
            print!("{}", cluster.report());
            println!("-- memory: {} MB", cluster.memory()? / 1_000_000);
            Ok(())
        }
    }
}

fn up(number: u8, shape: Shape) -> Result<()> {
    let begin = Instant::now();
    let cluster = match Cluster::kept(number) {
        Ok(cluster) => {
            let answer = cluster.kubectl(&["get", "--raw=/readyz"]);
            answer.context("there is one that does not answer: take it away with `down`")?;
            println!("it is up already: take it away with `down`");
            cluster
        }
        Err(_) => Cluster::start_kept(number, shape)?,
    };
    announce(&cluster, begin)?;
    let program = std::env::current_exe()?;
    println!("export RINGMAIL_KUBE_LOAD_IMAGE='{} --cluster {number} load'", program.display());
    Ok(())
}

fn hold(nodes: usize) -> Result<()> {
    let begin = Instant::now();
    let cluster = Cluster::start(nodes)?;
    announce(&cluster, begin)?;
    let (said_end, end) = std::sync::mpsc::channel();
    thread::spawn(move || {
        // Whatever is read, its end counts; nobody listens when the program was interrupted.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = said_end.send(());
    });
    while end.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        interrupt::check()?;
    }
    Ok(())
}

fn announce(cluster: &Cluster, begin: Instant) -> Result<()> {
    println!("up after {:.1} s, {} MB", begin.elapsed().as_secs_f64(), cluster.memory()? / 1_000_000);
    println!("export KUBECONFIG={}", cluster.client().kubeconfig().display());
    Ok(())
}
