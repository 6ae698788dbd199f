//! `docs/reliability.md`: the table of what was promised, beside what was seen.

use std::fmt::Write as _;

use crate::{Figure, GROUPS, ROWS, Row};

const HEAD: &str = "# Reliability: what was tried, and what was seen

Made by `cargo run -p ringmail-evidence -- page` of what tests told (`docs/reliability.json`); nothing here is typed in. `make nightly` runs
all of them, in their long versions, and makes this page again; a figure of the short version that `make test` runs is marked
*short*. *Bound* is what the test fails beyond; what it tells and does not bound says so. A promise without a figure says so.
";

/// The whole page.
pub fn render(figures: &[Figure]) -> String {
    let mut page = HEAD.to_owned();
    for group in GROUPS {
        let _ = write!(
            page,
            "\n## {}\n\n| | promise | measured | seen | bound | test | on |\n|---|---|---|---|---|---|---|\n",
            group.heading()
        );
        for row in ROWS.iter().filter(|row| row.group == group) {
            lines(&mut page, row, figures);
        }
    }
    page
}

fn lines(page: &mut String, row: &Row, figures: &[Figure]) {
    let mut first = true;
    for figure in figures.iter().filter(|figure| figure.row == row.id) {
        let (id, promise) = if first { (row.id, row.promise) } else { ("", "") };
        let short = if figure.nightly { "" } else { " *short*" };
        let (what, seen, bound) = (cell(&figure.what), cell(&figure.seen), cell(&figure.bound));
        let (test, on) = (&figure.test, date(figure.day));
        let _ = writeln!(page, "| {id} | {promise} | {what}{short} | {seen} | {bound} | `{test}` | {on} |");
        first = false;
    }
    if first {
        let _ = writeln!(page, "| {} | {} | **no figure** | | | | |", row.id, row.promise);
    }
}

/// Of a day since 1970, as ISO 8601 writes it.
fn date(day: u64) -> String {
    /// The Julian day of 1970-01-01.
    const EPOCH: i32 = 2_440_588;
    let julian = i32::try_from(day).ok().and_then(|day| day.checked_add(EPOCH));
    julian
        .and_then(|julian| time::Date::from_julian_day(julian).ok())
        .map(|date| date.to_string())
        .unwrap_or_default()
}

/// A bar or a line's end in a cell would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
