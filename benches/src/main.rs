//! `ringmail-bench`: measures, and makes the report of what was measured.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use ringmail_bench::candidates::linkerd::{ControlArguments, control};
use ringmail_bench::handshake::{HandshakeArguments, handshake};
use ringmail_bench::load::{LoadArguments, load};
use ringmail_bench::relay::{RelayArguments, relay};
use ringmail_bench::run::{RunArguments, run};
use ringmail_bench::{ignite, report};

/// Measures Ringmail beside the proxies that a user could pick instead.
#[derive(Debug, Parser)]
#[command(name = "ringmail-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures every candidate side by side. Needs root.
    Run(Box<RunArguments>),
    /// Measures real Ignite rings: plain, with Ignite's own TLS, and behind sidecars. Needs root, Java 17 and Maven.
    Ignite(Box<ignite::Options>),
    /// Makes the page, its plots and the table in README from the results of one or more runs.
    Report(report::Options),
    /// Measures what a handshake would cost if sessions were resumed, which Ringmail does not do.
    Handshake(HandshakeArguments),
    /// The stand-in of Linkerd's control plane, for `run`.
    #[command(hide = true)]
    LinkerdControl(ControlArguments),
    /// One end of the load, for `run`.
    #[command(hide = true)]
    Load(LoadArguments),
    /// A relay without TLS, for `run`.
    #[command(hide = true)]
    Relay(RelayArguments),
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmail-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Run(arguments) => run(&arguments),
        Command::Ignite(options) => ignite::run(&options),
        Command::Report(options) => report::run(&options),
        Command::Handshake(arguments) => handshake(&arguments),
        Command::LinkerdControl(arguments) => control(&arguments),
        Command::Load(arguments) => load(&arguments),
        Command::Relay(arguments) => relay(&arguments),
    }
}
