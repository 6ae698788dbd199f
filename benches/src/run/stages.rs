//! The places of a run's rounds: they stay up through all of them, idle while others are measured, so that candidates
//! follow each other within seconds.

use anyhow::Result;
use ringmail_lab::interrupt;

use super::arguments::RunArguments;
use super::cells::Cell;
use super::recorder::Recorder;
use crate::candidates::{Candidate, Exchange, Place, Programs, Setup};

/// All places.
pub(super) struct Stages(Vec<Place>);

impl Stages {
    /// Prepares those that the loads need. A candidate that does not start, or does not do what its name says, is named
    /// missing; the error is an interruption.
    pub(super) fn prepare(
        arguments: &RunArguments,
        candidates: &[Candidate],
        programs: &Programs,
        cells: &[Cell],
        recorder: &mut Recorder,
    ) -> Result<Self> {
        let mut places = Vec::new();
        for setup in setups(candidates, cells, arguments.workers) {
            let label = label(setup);
            eprintln!("bench: prepare {label}");
            match Place::prepare(setup, programs) {
                Ok(place) => {
                    recorder.command(&label, &place.commands().join("\n"));
                    if let Some(tls) = place.tls() {
                        recorder.machine(&format!("TLS of {label}"), &tls.to_string());
                    }
                    recorder.machine("CPU time of proxies from", clock(&place));
                    places.push(place);
                }
                Err(error) => {
                    interrupt::check()?;
                    recorder.missing(&label, &format!("{error:#}"));
                }
            }
        }
        Ok(Self(places))
    }

    /// Those that carry a load, in the order of a report.
    pub(super) fn of(&self, cell: &Cell) -> Vec<&Place> {
        let wanted = |place: &&Place| {
            let setup = place.setup();
            cell.is_for(setup.candidate) && setup.exchange == exchange_for(setup.candidate, cell.exchange)
        };
        self.0.iter().filter(wanted).collect()
    }
}

fn clock(place: &Place) -> &'static str {
    if place.cgroup().is_some() { "cgroup v2, cpu.stat" } else { "/proc/<pid>/task/*/schedstat" }
}

fn label(setup: Setup) -> String {
    match setup.exchange {
        Some(Exchange::X25519) if is_ringmail(setup.candidate) => {
            format!("{} at {}", setup.candidate.name(), Exchange::X25519.name())
        }
        Some(_) | None => setup.candidate.name().to_owned(),
    }
}

/// Every setup that the loads need, each once.
fn setups(candidates: &[Candidate], cells: &[Cell], workers: usize) -> Vec<Setup> {
    let mut setups = Vec::new();
    for candidate in candidates {
        for cell in cells.iter().filter(|cell| cell.is_for(*candidate)) {
            let exchange = exchange_for(*candidate, cell.exchange);
            let setup = Setup { candidate: *candidate, exchange, workers };
            if !setups.contains(&setup) {
                setups.push(setup);
            }
        }
    }
    setups
}

/// Whether a candidate is told another key exchange for those loads that compare at it.
fn is_ringmail(candidate: Candidate) -> bool {
    matches!(candidate, Candidate::Ringmail | Candidate::RingmailBaseline)
}

/// What a candidate is to use for a load: Ringmail what the load compares at and else what it prefers by itself, the
/// others always the same.
fn exchange_for(candidate: Candidate, compared: Option<Exchange>) -> Option<Exchange> {
    match candidate {
        Candidate::Haproxy | Candidate::Envoy => Some(Exchange::X25519),
        Candidate::Linkerd => Some(Exchange::X25519MlKem768),
        Candidate::Ringmail | Candidate::RingmailBaseline => compared.or(Some(Exchange::X25519MlKem768)),
        Candidate::Plain
        | Candidate::RelayCopy
        | Candidate::RelaySplice
        | Candidate::HaproxyPlain
        | Candidate::HaproxyDefault
        | Candidate::EnvoyDefault
        | Candidate::Ztunnel => None,
    }
}

/// The setup of a candidate for what is measured on proxies that have done nothing else.
pub(super) fn fresh(candidate: Candidate, workers: usize) -> Setup {
    Setup { candidate, exchange: exchange_for(candidate, None), workers }
}

#[cfg(test)]
mod tests {
    use super::super::arguments::Group;
    use super::super::cells::cells;
    use super::*;

    #[test]
    fn ringmail_has_a_place_for_what_it_prefers_and_one_for_what_peers_use() {
        let of = |candidate| setups(&[candidate], &cells(&Group::ALL), 2);
        let labels: Vec<_> = of(Candidate::Ringmail).into_iter().map(label).collect();
        assert_eq!(labels, ["ringmail", "ringmail at X25519"]);
        assert_eq!(of(Candidate::Envoy).len(), 1);
        assert_eq!(label(of(Candidate::Envoy)[0]), "envoy");
        assert_eq!(of(Candidate::EnvoyDefault).len(), 1);
        assert!(setups(&[Candidate::EnvoyDefault], &cells(&[Group::Bulk]), 2).is_empty());
    }
}
