//! A run: rounds in which every candidate carries every load, and what it leaves behind.

mod arguments;
mod cells;
mod figures;
pub(crate) mod machine;
mod memory;
mod recorder;
mod resumption;
mod rounds;
mod size;
mod stages;
mod statistics;
mod syscalls;
mod table;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ringmail_lab::interrupt;

pub use arguments::{Group, RunArguments};

use crate::candidates::{Candidate, Programs, open_folder};
use crate::folders::without_folders;
use crate::results::{Results, check_place, write};
use crate::root;
use recorder::Recorder;
use stages::Stages;

/// More than the connections of the largest load, on both sides of a proxy, and what a process holds besides.
const OPEN_FILES: u64 = 65_536;

/// Measures, writes the results, and prints them as a table.
///
/// # Errors
/// When nothing could be measured at all, or when the run was interrupted; what was measured until then is written.
pub fn run(arguments: &RunArguments) -> Result<()> {
    interrupt::catch()?;
    check_place(&arguments.out)?;
    let bench = std::env::current_exe().context("find the running program")?;
    let programs = arguments.programs(bench)?;
    let (results, ended) = measure(arguments, &programs)?;
    let results = without_folders(results);
    write(&results, &arguments.out)?;
    print!("{}", table::table(&results));
    println!("\nwritten to {}", arguments.out.display());
    ended
}

/// Measures; the second value is why it ended early, if it did.
pub fn measure(arguments: &RunArguments, programs: &Programs) -> Result<(Results, Result<()>)> {
    root::needed()?;
    allow_open_files()?;
    let began = Instant::now();
    let folder = open_folder()?;
    let mut recorder = Recorder::new(machine::machine(), began);
    recorder.command("run", &std::env::args().collect::<Vec<_>>().join(" "));
    let candidates = available(arguments, programs, &mut recorder)?;
    let programs = programs.copied_to(folder.path())?;
    let before = machine::CpuTicks::now();
    let ended = take_rounds(arguments, &candidates, &programs, &mut recorder);
    if let Err(error) = &ended {
        recorder.missing("run", &format!("it ended early: {error:#}"));
    }
    for candidate in candidates {
        if !recorder.has(candidate) {
            recorder.missing(candidate.name(), "it has none of the figures that were asked for");
        }
    }
    if let (Some(before), Some(after)) = (before, machine::CpuTicks::now()) {
        let stolen = format!("{:.1} % of the CPU time of the rounds", after.stolen_since(before));
        recorder.machine("taken by the hypervisor", &stolen);
    }
    let results = recorder.finish();
    ensure!(!results.figures.is_empty(), "nothing was measured: {:?}", results.missing);
    Ok((results, ended))
}

fn take_rounds(
    arguments: &RunArguments,
    candidates: &[Candidate],
    programs: &Programs,
    recorder: &mut Recorder,
) -> Result<()> {
    let cells = cells::cells(&arguments.groups());
    if !cells.is_empty() {
        let stages = Stages::prepare(arguments, candidates, programs, &cells, recorder)?;
        rounds::take(arguments, &stages, &cells, recorder)?;
    }
    if arguments.groups().contains(&Group::Resumption) {
        resumption::take(arguments.rounds, candidates, recorder)?;
    }
    if arguments.groups().contains(&Group::Size) {
        size::take(candidates, programs, recorder);
    }
    if arguments.groups().contains(&Group::Syscalls) {
        syscalls::take(arguments, candidates, programs, recorder)?;
    }
    if arguments.groups().contains(&Group::Memory) {
        memory::take(arguments, candidates, programs, recorder)?;
    }
    Ok(())
}

/// Those that were asked for and whose programs are there; the others are named missing, with how to get them.
fn available(
    arguments: &RunArguments,
    programs: &Programs,
    recorder: &mut Recorder,
) -> Result<Vec<Candidate>> {
    let mut there = Vec::new();
    for candidate in arguments.candidates()? {
        match programs.version_of(candidate) {
            Ok(version) => {
                if let Some(version) = version {
                    recorder.version(candidate.name(), &version);
                }
                there.push(candidate);
            }
            Err(error) => recorder.missing(candidate.name(), &format!("{error:#}")),
        }
    }
    ensure!(!there.is_empty(), "none of the candidates is there");
    Ok(there)
}

/// As many as the machine allows: a candidate that meets the limit shows it when its connections are refused.
fn allow_open_files() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    let most = hard.min(OPEN_FILES);
    setrlimit(Resource::RLIMIT_NOFILE, most, hard)
        .with_context(|| format!("raise the limit of open files to {most}"))
}
