//! What a run is told.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::candidates::{Candidate, Programs};

/// `ringmail-bench run`.
#[derive(Args, Clone, Debug)]
pub struct RunArguments {
    /// What is measured, by name, separated by commas: plain, relay-copy, relay-splice, haproxy-plain, haproxy, haproxy-default, envoy,
    /// envoy-default, ztunnel, linkerd2-proxy, ringmail, ringmail-baseline. All that are there by default.
    #[arg(long, value_delimiter = ',')]
    pub candidates: Vec<String>,
    /// Which figures, separated by commas. All by default.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Group::ALL, hide_default_value = true)]
    pub figures: Vec<Group>,
    /// Rounds: every candidate carries every load once in each.
    #[arg(long, default_value_t = 15)]
    pub rounds: usize,
    /// Rounds of the figures of memory, which take minutes each and vary little.
    #[arg(long, default_value_t = 3)]
    pub memory_rounds: usize,
    /// How long each load is measured, in seconds.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// How long each load runs before it is measured, in seconds.
    #[arg(long, default_value_t = 0.5)]
    pub warm_up: f64,
    /// Worker threads of each proxy.
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// The folder of ringmail-proxy, ringmail-init and ringmail-ca; by default that of this program.
    #[arg(long)]
    pub binaries: Option<PathBuf>,
    /// Another build of ringmail-proxy, to compare with.
    #[arg(long)]
    pub baseline: Option<PathBuf>,
    /// HAProxy; by default where Debian puts it.
    #[arg(long)]
    pub haproxy: Option<PathBuf>,
    /// Envoy.
    #[arg(long)]
    pub envoy: Option<PathBuf>,
    /// Istio's ztunnel.
    #[arg(long)]
    pub ztunnel: Option<PathBuf>,
    /// Linkerd's linkerd2-proxy.
    #[arg(long)]
    pub linkerd: Option<PathBuf>,
    /// Where the results go.
    #[arg(long, default_value = "target/bench/results.json")]
    pub out: PathBuf,
}

/// Figures that are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Bytes one way.
    Bulk,
    /// Requests and responses.
    Rr,
    /// New connections.
    Conn,
    /// Memory.
    Memory,
    /// What resumed sessions would save, which Ringmail does not resume.
    Resumption,
    /// The size of Ringmail's program.
    Size,
    /// System calls.
    Syscalls,
}

impl Group {
    /// All.
    pub const ALL: [Self; 7] =
        [Self::Bulk, Self::Rr, Self::Conn, Self::Memory, Self::Resumption, Self::Size, Self::Syscalls];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Rr => "rr",
            Self::Conn => "conn",
            Self::Memory => "memory",
            Self::Resumption => "resumption",
            Self::Size => "size",
            Self::Syscalls => "syscalls",
        }
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl RunArguments {
    /// The programs that it names, with `bench` for the load and the relay.
    ///
    /// # Errors
    /// Names the option whose program is not there, before anything has been measured.
    pub fn programs(&self, bench: PathBuf) -> Result<Programs> {
        let named = [
            ("--baseline", &self.baseline),
            ("--haproxy", &self.haproxy),
            ("--envoy", &self.envoy),
            ("--ztunnel", &self.ztunnel),
            ("--linkerd", &self.linkerd),
        ];
        for (option, path) in named {
            if let Some(path) = path {
                ensure!(path.is_file(), "{option} {}: expected a program, there is none", path.display());
            }
        }
        let mut programs = Programs::find(bench, self.binaries.clone())?;
        programs.baseline.clone_from(&self.baseline);
        programs.haproxy = self.haproxy.clone().or(programs.haproxy);
        programs.envoy.clone_from(&self.envoy);
        programs.ztunnel.clone_from(&self.ztunnel);
        programs.linkerd.clone_from(&self.linkerd);
        Ok(programs)
    }

    /// The candidates that it names, or all; in the order of a report.
    pub fn candidates(&self) -> Result<Vec<Candidate>> {
        ensure!(self.rounds > 0 && self.seconds > 0.0, "a run needs a round and a time");
        let named: Vec<_> =
            self.candidates.iter().map(|name| Candidate::named(name)).collect::<Result<_>>()?;
        let mut all = Candidate::ALL.to_vec();
        all.retain(|candidate| named.is_empty() || named.contains(candidate));
        Ok(all)
    }

    /// The figures that it names.
    pub fn groups(&self) -> Vec<Group> {
        self.figures.clone()
    }

    pub(super) fn measure_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(super) fn warm_up_time(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }
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

    fn parse(line: &str) -> RunArguments {
        Line::try_parse_from(line.split(' ')).unwrap().run
    }

    #[test]
    fn a_run_without_words_measures_everything() {
        let run = parse("run");
        assert_eq!(run.groups(), Group::ALL);
        assert_eq!(run.candidates().unwrap(), Candidate::ALL);
        assert_eq!((run.rounds, run.workers, run.measure_time()), (15, 2, Duration::from_secs(3)));
    }

    #[test]
    fn candidates_and_figures_are_chosen_by_name() {
        let run = parse("run --candidates ringmail,plain --figures bulk,memory --envoy /envoy --seconds 0.3");
        assert_eq!(run.candidates().unwrap(), [Candidate::Plain, Candidate::Ringmail]);
        assert_eq!(run.groups(), [Group::Bulk, Group::Memory]);
        assert_eq!(run.measure_time(), Duration::from_millis(300));
        assert!(parse("run --candidates nginx").candidates().unwrap_err().to_string().contains("nginx"));
        assert!(parse("run --rounds 0").candidates().is_err());
    }

    #[test]
    fn a_program_that_is_named_and_not_there_is_refused_by_its_option() {
        let run = parse("run --candidates ringmail --ztunnel /nowhere/ztunnel");
        let error = run.programs("/bin/true".into()).unwrap_err().to_string();
        assert_eq!(error, "--ztunnel /nowhere/ztunnel: expected a program, there is none");
    }
}
