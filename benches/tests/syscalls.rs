//! System calls of a round trip through both sidecars: in a program of its own, because whatever runs beside it would
//! change what a read finds.

use std::path::PathBuf;

use clap::Parser;
use ringmail_bench::candidates::{Candidate, Programs};
use ringmail_bench::run::{RunArguments, measure};

/// A request is read and written by each of the two proxies, after the kernel has said that it is there, and so is its
/// response: three calls, four times.
const CALLS: f64 = 12.0;

/// What the clock does, whatever is carried, is taken off, and its share varies by some hundred calls of the whole run.
const WITHIN: f64 = 0.05;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    run: RunArguments,
}

#[test]
fn a_round_trip_through_both_sidecars_takes_twelve_system_calls() {
    let line = "run --figures syscalls --candidates ringmail";
    let arguments = Line::try_parse_from(line.split_whitespace()).unwrap().run;
    let programs = Programs::find(PathBuf::from(env!("CARGO_BIN_EXE_ringmail-bench")), None).unwrap();
    let (results, ended) = measure(&arguments, &programs).unwrap();
    ended.unwrap();
    let figure = results.figures.iter().find(|figure| figure.id == "syscalls-rr");
    let figure = figure.unwrap_or_else(|| panic!("nothing was counted: {:?}", results.missing));
    let calls = figure.samples[Candidate::Ringmail.name()][0].unwrap();
    println!("{calls} system calls for a request and its response");
    // Less would mean that not every process was counted.
    assert!((calls - CALLS).abs() < WITHIN, "{calls} system calls, expected {CALLS} within {WITHIN}");
}
