//! `ringmail`: what a person asks of the mesh, at a glance or as JSON.
//!
//! One file per subcommand. `certs` and `connections` ask a proxy's admin endpoint, `describe` and `explain` decide from the
//! objects of a cluster or from a proxy's files, `inject` changes manifests, `demo` shows a real ring. The exit code is part of the answer: see [`Answer`].

#![forbid(unsafe_code)]

mod admin;
mod certs;
mod cluster;
mod command_line;
mod connections;
mod demo;
mod describe;
mod explain;
mod inject;
mod output;
mod table;
mod units;

use std::process::ExitCode;

use clap::Parser;

use command_line::{CommandLine, Subcommand};
use ringmail_process::causes;

/// What the exit code says. Errors of the command line itself end with 64, as those of the other binaries do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// 0: it was done; for `explain`, the connection is served; for `demo`, all of it held.
    Yes,
    /// 2: it was done, and the answer is no: `explain` finds that the connection is refused, `certs` no valid certificate,
    /// `inject` a workload that must not be applied.
    No,
}

/// 1: it could not be done, or the demo found something that does not hold.
const FAILED: u8 = 1;
/// EX_USAGE of sysexits.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let answer = match line.subcommand {
        Subcommand::Certs(args) => certs::run(&args),
        Subcommand::Connections(args) => connections::run(&args),
        Subcommand::Demo(args) => demo::run(&args),
        Subcommand::Describe(args) => describe::run(&args),
        Subcommand::Explain(args) => explain::run(&args),
        Subcommand::Inject(args) => inject::run(&args),
    };
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(2),
        Err(error) => {
            eprintln!("ringmail: {}", causes::each_once(error.chain()));
            FAILED.into()
        }
    }
}
