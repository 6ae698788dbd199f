//! The short table in README, between two marks: made by the report, never typed.

use std::fmt::Write as _;

use thiserror::Error;

use super::candidates::{OURS, best_tls_peer};
use super::headings::heading;
use super::numbers::{estimate, quantity, ratio};
use super::statistics::{Estimate, median, present};
use crate::results::{Better, Figure, Results};

/// The lines around what is made.
const BEGIN: &str = "<!-- benchmark: made by `ringmail-bench report` from here -->";
const END: &str = "<!-- benchmark: to here -->";

/// What a reader of README sees: one figure for each cost that a proxy has.
const HEADLINES: [&str; 10] = [
    "bulk-up-1-cpu",
    "bulk-up-8-rate",
    "rr-128-32-cpu",
    "rr-128-1-p50",
    "rr-128-32-p99",
    "conn-8-x25519-rate",
    "idle-1000",
    "base-memory",
    "ignite-put-1024-16-rate",
    "ignite-get-1024-16-rate",
];

/// Why a README has no place for the table.
#[derive(Debug, Error)]
#[error("expected one line {BEGIN:?} and after it one line {END:?}")]
pub struct NoPlace;

/// README with what is between the marks made anew; nothing is between them without results.
pub(super) fn with_table(readme: &str, results: Option<&Results>) -> Result<String, NoPlace> {
    let (before, rest) = readme.split_once(BEGIN).ok_or(NoPlace)?;
    let (between, after) = rest.split_once(END).ok_or(NoPlace)?;
    if between.contains(BEGIN) || after.contains(BEGIN) || after.contains(END) {
        return Err(NoPlace);
    }
    let table = results.map(table).unwrap_or_default();
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

fn table(results: &Results) -> String {
    let mut text = "\n| figure | Ringmail | best of the others with TLS | Ringmail divided by it |\n|---|---:|---:|---:|\n".to_owned();
    let figures = HEADLINES.iter().filter_map(|id| results.figures.iter().find(|figure| figure.id == **id));
    for row in figures.filter_map(row) {
        let _ = writeln!(text, "{row}");
    }
    text += "\nMedians of rounds in which all candidates were measured next to each other, and where 95 of 100 such ratios lie.\n\
             Everything else, with the method and the commands: [docs/benchmark.md](docs/benchmark.md).\n\n";
    text
}

fn row(figure: &Figure) -> Option<String> {
    let samples = figure.samples.get(OURS)?;
    let ours = median(&present(samples))?;
    let peer = best_tls_peer(figure)?;
    let theirs = &figure.samples[peer];
    let compared = Estimate::of_ratio(samples, theirs)?;
    let good = match figure.better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    Some(format!(
        "| {}: {}, {} ({good}) | {} | {} ({peer}) | {} |",
        heading(&figure.group),
        figure.title,
        figure.unit,
        quantity(ours),
        quantity(median(&present(theirs))?),
        estimate(&compared, ratio)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_marks_is_replaced_and_nothing_else() {
        let readme = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        assert_eq!(with_table(&readme, None).unwrap(), format!("before\n{BEGIN}\n{END}\nafter\n"));
    }

    #[test]
    fn a_readme_without_its_marks_or_with_two_is_refused() {
        for readme in
            [String::new(), BEGIN.to_owned(), format!("{END}{BEGIN}"), format!("{BEGIN}{END}{BEGIN}{END}")]
        {
            assert!(with_table(&readme, None).is_err(), "{readme}");
        }
    }
}
