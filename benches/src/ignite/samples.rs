//! What was measured so far: figures in the order in which they first came, a sample per candidate and round.

use std::time::Instant;

use super::Wrapping;
use crate::results::{Better, Figure, Results};

/// What tells a figure from others, without its samples.
#[derive(Clone, Debug)]
pub(super) struct Quantity {
    /// See [`Figure::id`].
    pub(super) id: String,
    /// See [`Figure::group`].
    pub(super) group: String,
    /// See [`Figure::title`].
    pub(super) title: String,
    /// See [`Figure::unit`].
    pub(super) unit: &'static str,
    /// See [`Figure::better`].
    pub(super) better: Better,
}

/// The samples of a run.
#[derive(Debug)]
pub(super) struct Samples {
    results: Results,
    rounds: usize,
    began: Instant,
}

/// Takes the samples of one candidate in one round.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    samples: &'a mut Samples,
    candidate: Wrapping,
    round: usize,
}

impl Samples {
    /// None yet; `results` says everything else about the run.
    pub(super) fn begin(results: Results, rounds: usize) -> Self {
        Self { results, rounds, began: Instant::now() }
    }

    /// Takes what a candidate gives in a round, which counts from 0.
    pub(super) fn of(&mut self, candidate: Wrapping, round: usize) -> Sink<'_> {
        Sink { samples: self, candidate, round }
    }

    /// Notes what could not be measured, and why.
    pub(super) fn miss(&mut self, what: &str, reason: &str) {
        self.results.missing.insert(what.to_owned(), reason.to_owned());
    }

    /// Whether there is any.
    pub(super) fn any(&self) -> bool {
        !self.results.figures.is_empty()
    }

    /// All of it as it is now.
    pub(super) fn results(&self) -> Results {
        Results { took_s: self.began.elapsed().as_secs(), ..self.results.clone() }
    }
}

impl Sink<'_> {
    /// The candidate whose samples these are.
    pub(super) fn candidate(&self) -> Wrapping {
        self.candidate
    }

    /// Takes one; none keeps the figure's place among the others, for candidates that have it.
    pub(super) fn take(&mut self, quantity: Quantity, sample: Option<f64>) {
        let figures = &mut self.samples.results.figures;
        let place = figures.iter().position(|figure| figure.id == quantity.id).unwrap_or_else(|| {
            let Quantity { id, group, title, unit, better } = quantity;
            let samples = std::collections::BTreeMap::new();
            figures.push(Figure { id, group, title, unit: unit.to_owned(), better, samples });
            figures.len() - 1
        });
        let Some(sample) = sample else { return };
        let name = self.candidate.as_str().to_owned();
        let of_candidate =
            figures[place].samples.entry(name).or_insert_with(|| vec![None; self.samples.rounds]);
        of_candidate[self.round] = Some(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::SCHEMA;

    fn quantity(id: &str) -> Quantity {
        let id = id.to_owned();
        Quantity { id, group: "g".into(), title: "t".into(), unit: "us", better: Better::Lower }
    }

    #[test]
    fn a_round_without_a_sample_keeps_its_place() {
        let results = Results {
            schema: SCHEMA,
            began: String::new(),
            took_s: 0,
            machine: Default::default(),
            versions: Default::default(),
            commands: Default::default(),
            figures: Vec::new(),
            missing: Default::default(),
        };
        let mut samples = Samples::begin(results, 3);
        assert!(!samples.any());
        samples.of(Wrapping::Plain, 0).take(quantity("a"), Some(1.0));
        samples.of(Wrapping::Plain, 1).take(quantity("c"), None);
        samples.of(Wrapping::Plain, 2).take(quantity("a"), Some(3.0));
        samples.of(Wrapping::Ringmail, 1).take(quantity("b"), Some(2.0));
        let figures = samples.results().figures;
        assert_eq!(figures[0].samples["plain"], [Some(1.0), None, Some(3.0)]);
        assert!(figures[1].id == "c" && figures[1].samples.is_empty());
        assert_eq!(figures[2].samples["ringmail"], [None, Some(2.0), None]);
    }
}
