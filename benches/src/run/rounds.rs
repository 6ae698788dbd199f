//! The rounds: within one, every load is carried by all candidates next to each other, in an order that changes.

use anyhow::Result;
use ringmail_lab::interrupt;

use super::arguments::RunArguments;
use super::cells::Cell;
use super::figures::values;
use super::recorder::Recorder;
use super::stages::Stages;
use crate::candidates::Place;
use crate::load::Measured;

/// A generator that is later than this with one message in a hundred measures itself.
const MOST_LAG_US: f64 = 50.0;

/// Takes all rounds; the error is an interruption.
pub(super) fn take(
    arguments: &RunArguments,
    stages: &Stages,
    cells: &[Cell],
    recorder: &mut Recorder,
) -> Result<()> {
    for round in 0..arguments.rounds {
        eprintln!("bench: round {} of {}", round + 1, arguments.rounds);
        for (number, cell) in cells.iter().enumerate() {
            let places = stages.of(cell);
            for index in order(places.len(), round, number) {
                let place = places[index];
                let candidate = place.setup().candidate;
                match carry(arguments, place, cell) {
                    Ok(measured) => {
                        for (head, value) in values(cell, &measured) {
                            recorder.sample(&head, candidate, round, value);
                        }
                    }
                    Err(error) => {
                        interrupt::check()?;
                        let what = format!("{}: {}", candidate.name(), cell.id);
                        recorder.missing(&what, &format!("round {}: {error:#}", round + 1));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The order of a round: it begins with another candidate each time, and every other round runs backwards, so that
/// nobody always follows the same neighbour or always meets the machine in the same state.
fn order(candidates: usize, round: usize, cell: usize) -> Vec<usize> {
    let begin = round / 2 + cell;
    let mut order: Vec<_> = (0..candidates).map(|index| (index + begin) % candidates).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Puts a load on a candidate; once more where the generator itself was late.
fn carry(arguments: &RunArguments, place: &Place, cell: &Cell) -> Result<Measured> {
    let measure = || place.load(&cell.shape, arguments.warm_up_time(), arguments.measure_time());
    let first = measure()?;
    let Some(late) = too_late(&first) else { return Ok(first) };
    let second = measure()?;
    match too_late(&second) {
        None => Ok(second),
        Some(again) => anyhow::bail!(
            "the generator was late: p99 {late:.0} us and again {again:.0} us, expected at most {MOST_LAG_US} us"
        ),
    }
}

fn too_late(measured: &Measured) -> Option<f64> {
    measured.lag_p99_us.filter(|lag| *lag > MOST_LAG_US)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn two_rounds_run_to_and_fro_and_the_next_two_begin_elsewhere() {
        assert_eq!(order(4, 0, 0), [0, 1, 2, 3]);
        assert_eq!(order(4, 1, 0), [3, 2, 1, 0]);
        assert_eq!(order(4, 2, 0), [1, 2, 3, 0]);
        assert_eq!(order(4, 0, 1), [1, 2, 3, 0]);
        assert!(order(0, 3, 1).is_empty());
        for round in 0..20 {
            assert_eq!(order(7, round, 3).into_iter().collect::<BTreeSet<_>>().len(), 7);
        }
    }

    #[test]
    fn only_a_generator_that_is_late_is_refused() {
        let of = |lag_p99_us| too_late(&Measured { lag_p99_us, ..Measured::default() });
        assert_eq!((of(None), of(Some(50.0)), of(Some(51.0))), (None, None, Some(51.0)));
    }
}
