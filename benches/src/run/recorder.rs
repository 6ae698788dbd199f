//! Collects samples round by round and makes the results of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Instant;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::figures::{Head, MIDDLE, added};
use crate::candidates::Candidate;
use crate::results::{Figure, Results, SCHEMA};

/// What a run has seen so far.
pub(super) struct Recorder {
    began: OffsetDateTime,
    since: Instant,
    machine: BTreeMap<String, String>,
    versions: BTreeMap<String, String>,
    commands: BTreeMap<String, String>,
    missing: BTreeMap<String, String>,
    figures: Vec<(Head, Samples)>,
}

/// By candidate, by round.
type Samples = BTreeMap<String, Vec<Option<f64>>>;

impl Recorder {
    pub(super) fn new(machine: BTreeMap<String, String>, since: Instant) -> Self {
        Self {
            began: OffsetDateTime::now_utc(),
            since,
            machine,
            versions: BTreeMap::new(),
            commands: BTreeMap::new(),
            missing: BTreeMap::new(),
            figures: Vec::new(),
        }
    }

    /// Notes something of the machine or of the settings.
    pub(super) fn machine(&mut self, name: &str, value: &str) {
        self.machine.insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn version(&mut self, name: &str, version: &str) {
        self.versions.insert(name.to_owned(), version.to_owned());
    }

    pub(super) fn command(&mut self, name: &str, command: &str) {
        self.commands.insert(name.to_owned(), command.to_owned());
    }

    /// Notes what could not be measured, and tells it at once. The first reason stays.
    pub(super) fn missing(&mut self, what: &str, reason: &str) {
        if let Entry::Vacant(first) = self.missing.entry(what.to_owned()) {
            eprintln!("bench: missing {what}: {reason}");
            first.insert(reason.to_owned());
        }
    }

    /// Notes a sample of a round, counted from 0. Rounds without one hold none.
    pub(super) fn sample(&mut self, head: &Head, candidate: Candidate, round: usize, value: f64) {
        let known = self.figures.iter().position(|(known, _)| known.id == head.id);
        let index = known.unwrap_or_else(|| {
            self.figures.push((head.clone(), Samples::new()));
            self.figures.len() - 1
        });
        let samples = self.figures[index].1.entry(candidate.name().to_owned()).or_default();
        samples.resize(samples.len().max(round + 1), None);
        samples[round] = Some(value);
    }

    /// Whether there is a sample of a candidate.
    pub(super) fn has(&self, candidate: Candidate) -> bool {
        self.figures.iter().any(|(_, samples)| samples.contains_key(candidate.name()))
    }

    /// Everything that was noted.
    pub(super) fn finish(self) -> Results {
        let mut figures = Vec::new();
        for (head, mut samples) in self.figures {
            // A candidate that failed in the last rounds has as many samples as the others.
            let rounds = samples.values().map(Vec::len).max().unwrap_or_default();
            samples.values_mut().for_each(|samples| samples.resize(rounds, None));
            let over =
                added(&head).filter(|_| head.id.ends_with(MIDDLE)).map(|head| (head, differences(&samples)));
            figures.push(figure(head, samples));
            figures.extend(
                over.filter(|(_, samples)| !samples.is_empty()).map(|(head, samples)| figure(head, samples)),
            );
        }
        Results {
            schema: SCHEMA,
            began: self.began.format(&Rfc3339).unwrap_or_default(),
            took_s: self.since.elapsed().as_secs(),
            machine: self.machine,
            versions: self.versions,
            commands: self.commands,
            figures,
            missing: self.missing,
        }
    }
}

fn figure(head: Head, samples: Samples) -> Figure {
    Figure {
        id: head.id,
        group: head.group.to_owned(),
        title: head.title,
        unit: head.unit.to_owned(),
        better: head.better,
        samples,
    }
}

/// What each candidate takes more than none, round by round.
fn differences(samples: &Samples) -> Samples {
    let Some(plain) = samples.get(Candidate::Plain.name()) else { return Samples::new() };
    let others = samples.iter().filter(|(name, _)| *name != Candidate::Plain.name());
    others
        .map(|(name, own)| {
            let more = own.iter().zip(plain).map(|(own, plain)| Some((*own)? - (*plain)?));
            (name.clone(), more.collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Better;

    fn head(id: &str, title: &str) -> Head {
        Head { id: id.into(), group: "rr", title: title.into(), unit: "us", better: Better::Lower }
    }

    #[test]
    fn samples_keep_their_round_and_what_is_added_is_of_the_same_round() {
        let mut recorder = Recorder::new(BTreeMap::new(), Instant::now());
        let p50 = head("rr-128-1-p50", "p50, 128 B");
        for (candidate, round, value) in [
            (Candidate::Plain, 0, 10.0),
            (Candidate::Plain, 1, 20.0),
            (Candidate::Ringmail, 0, 15.0),
            (Candidate::Plain, 2, 30.0),
            (Candidate::Ringmail, 2, 31.0),
        ] {
            recorder.sample(&p50, candidate, round, value);
        }
        recorder.sample(&head("rr-128-1-p99", "p99"), Candidate::Ringmail, 0, 1.0);
        let results = recorder.finish();
        let of =
            |id: &str| &results.figures.iter().find(|figure| figure.id == id).unwrap().samples["ringmail"];
        assert_eq!(of("rr-128-1-p50"), &[Some(15.0), None, Some(31.0)]);
        assert_eq!(of("rr-128-1-added"), &[Some(5.0), None, Some(1.0)]);
        assert_eq!(results.figures.len(), 3);
    }

    #[test]
    fn the_first_reason_of_what_is_missing_stays() {
        let mut recorder = Recorder::new(BTreeMap::new(), Instant::now());
        recorder.missing("envoy", "first");
        recorder.missing("envoy", "second");
        assert_eq!(recorder.finish().missing["envoy"], "first");
    }
}
