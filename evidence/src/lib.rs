//! What a run has shown of each promise.
//!
//! A test that holds a promise tells the figure it saw with [`shown!`], and `docs/reliability.md` is made of what the last long run
//! told: no figure of that page is typed in. What is told is kept in one small file for each figure, because tests run in many
//! processes at once.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

mod page;
mod rows;
mod taken_back;

pub use page::render;
pub use rows::{GROUPS, Group, ROWS, Row};

/// The folder that figures are told into, instead of `evidence` in the folder of what is built.
pub const FOLDER_VARIABLE: &str = "RINGMAIL_EVIDENCE";

/// Set to `1` in the long run.
const NIGHTLY_VARIABLE: &str = "RINGMAIL_NIGHTLY";

/// How long a file's name may be, without its ending: file systems take 255 bytes.
const NAME_BYTES: usize = 180;

/// One figure that a test saw.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// The row of [`ROWS`] that it belongs to, as `F10`.
    pub row: String,
    /// What was counted or measured, in a few words, unique within the row.
    pub what: String,
    /// What was seen, with its unit.
    pub seen: String,
    /// What the test asserts of it, as `<= 5` or `exactly`.
    pub bound: String,
    /// The test, by its path within its crate.
    pub test: String,
    /// Whether it is of the long run.
    pub nightly: bool,
    /// The day, counted from 1970.
    pub day: u64,
}

impl Figure {
    /// One of today, and of the run that this process is part of.
    pub fn now(row: &str, what: &str, seen: &str, bound: &str, test: String) -> Self {
        Self {
            row: row.to_owned(),
            what: what.to_owned(),
            seen: seen.to_owned(),
            bound: bound.to_owned(),
            test,
            nightly: nightly(),
            day: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400),
        }
    }
}

/// Whether this is the long run.
pub fn nightly() -> bool {
    std::env::var(NIGHTLY_VARIABLE).is_ok_and(|value| value == "1")
}

/// Tells a figure of the test that calls it: its row, what was measured, what was seen and what is asserted of it. A test that
/// fails takes it back.
#[macro_export]
macro_rules! shown {
    ($row:expr, $what:expr, $seen:expr, $bound:expr) => {{
        fn here() {}
        $crate::tell(
            $row,
            &$what.to_string(),
            &$seen.to_string(),
            &$bound.to_string(),
            std::any::type_name_of_val(&here),
        )
    }};
}

/// What [`shown!`] calls with the path of a function within the test.
///
/// # Panics
/// If there is no such row, or the figure cannot be written: it would be missing from the page.
#[expect(clippy::panic, reason = "a test is to fail by it")]
pub fn tell(row: &str, what: &str, seen: &str, bound: &str, function: &str) {
    // A figure may be told by a helper of several tests; their runner names each one's thread after it.
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").map_or_else(|| test_of(function), str::to_owned);
    let figure = Figure::now(row, what, seen, bound, test);
    println!("shown {row}: {what}: {seen} (asserted: {bound})");
    match keep(&figure, &folder()) {
        Ok(path) => taken_back::told(path),
        Err(error) => panic!("the figure {what:?} of {row}: {error:#}"),
    }
}

/// Where figures are told to.
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return PathBuf::from(folder);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    workspace.join(built).join("evidence")
}

/// Writes a figure into a folder, and says into which file of it.
///
/// # Errors
/// If there is no such row, a part is empty, or the file cannot be written.
pub fn keep(figure: &Figure, folder: &Path) -> Result<PathBuf> {
    if !ROWS.iter().any(|row| row.id == figure.row) {
        bail!("row {:?} is none of the table's", figure.row);
    }
    for (name, part) in [("what", &figure.what), ("seen", &figure.seen), ("bound", &figure.bound)] {
        if part.trim().is_empty() {
            bail!("{name} is empty");
        }
    }
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    let path = folder.join(file_name(figure));
    let told = serde_json::to_vec(figure)?;
    // A reader never sees half of it, and two tests at once do not mix.
    let half = path.with_extension(format!("{}.half", std::process::id()));
    fs::write(&half, told).with_context(|| format!("{}", half.display()))?;
    fs::rename(&half, &path).with_context(|| format!("{}", path.display()))?;
    Ok(path)
}

/// All that was told into a folder.
///
/// # Errors
/// If a file cannot be read or is not what [`keep`] writes. Where there is no folder, nothing was told.
pub fn told(folder: &Path) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if !folder.exists() {
        return Ok(figures);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let text = fs::read(&path).with_context(|| format!("{}", path.display()))?;
            figures.push(serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?);
        }
    }
    Ok(figures)
}

/// Puts what a run told in the place of what earlier runs told of the same, in the table's order. A test's figures go together,
/// and those of its long version stay until that has run again; a script may tell some of its figures alone.
pub fn merged(before: Vec<Figure>, now: Vec<Figure>) -> Vec<Figure> {
    let by_same = |figures: &[Figure], figure: &Figure, nightly: bool| {
        figures.iter().any(|other| {
            let same = (&other.row, &other.test) == (&figure.row, &figure.test);
            same && (!is_script(figure) || other.what == figure.what) && (other.nightly || !nightly)
        })
    };
    let stays_long = |figure: &Figure| by_same(&before, figure, true) && !by_same(&now, figure, true);
    let known = |figure: &&Figure| ROWS.iter().any(|row| row.id == figure.row);
    let old = before
        .iter()
        .filter(known)
        .filter(|old| if stays_long(old) { old.nightly } else { !by_same(&now, old, false) });
    let new = now.iter().filter(|new| !stays_long(new));
    let mut figures: Vec<Figure> = new.chain(old).cloned().collect();
    let place = |figure: &Figure| ROWS.iter().position(|row| row.id == figure.row);
    figures.sort_by(|a, b| (place(a), &a.what).cmp(&(place(b), &b.what)));
    figures
}

fn is_script(figure: &Figure) -> bool {
    figure.test.contains('/')
}

/// `faults::storms::a_storm::here` is of the test `storms::a_storm`; closures in between are no names.
fn test_of(function: &str) -> String {
    let mut parts: Vec<&str> =
        function.split("::").filter(|part| !part.starts_with('{') && *part != "here").collect();
    if parts.len() > 1 {
        parts.remove(0);
    }
    parts.join("::")
}

fn file_name(figure: &Figure) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let mut name: String = format!("{} {}", figure.row, figure.what).chars().map(plain).collect();
    name.truncate(NAME_BYTES);
    format!("{name}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_of_the_test_that_tells_it() {
        assert_eq!(test_of("faults::storms::a_storm_of_resets::here"), "storms::a_storm_of_resets");
        assert_eq!(test_of("faults::a_storm::{{closure}}::here"), "a_storm");
    }

    #[test]
    fn what_a_run_tells_takes_the_place_of_what_was_told_before() {
        let figure = |row: &str, what: &str, seen: &str| Figure {
            row: row.to_owned(),
            what: what.to_owned(),
            seen: seen.to_owned(),
            bound: "exactly".to_owned(),
            test: "t".to_owned(),
            nightly: false,
            day: 1,
        };
        let before = vec![figure("F2", "a", "1"), figure("F1", "b", "2"), figure("nowhere", "c", "3")];
        let now = merged(before, vec![figure("F2", "a", "9")]);
        assert_eq!(now, [figure("F1", "b", "2"), figure("F2", "a", "9")]);
    }

    #[test]
    fn a_tests_figures_go_together_and_those_of_its_long_version_stay_until_it_has_run_again() {
        let figure = |what: &str, test: &str, nightly: bool| Figure {
            row: "F1".to_owned(),
            what: what.to_owned(),
            seen: "1".to_owned(),
            bound: "exactly".to_owned(),
            test: test.to_owned(),
            nightly,
            day: 1,
        };
        let (short, renamed, long) =
            (figure("of 10", "t", false), figure("of 20", "t", false), figure("of 500", "t", true));
        assert_eq!(merged(vec![short.clone()], vec![renamed.clone()]), std::slice::from_ref(&renamed));
        assert_eq!(merged(vec![renamed.clone()], vec![long.clone()]), std::slice::from_ref(&long));
        assert_eq!(merged(vec![long.clone()], vec![short]), std::slice::from_ref(&long));
        let script = |what: &str| figure(what, "scripts/x.sh", false);
        let both = merged(vec![script("a"), script("b")], vec![script("b")]);
        assert_eq!(both, [script("a"), script("b")]);
        assert_eq!(merged(both, vec![renamed]).len(), 3);
    }

    #[test]
    fn a_figure_of_no_row_or_without_a_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let figure = |row: &str, bound: &str| Figure {
            row: row.to_owned(),
            what: "w".to_owned(),
            seen: "s".to_owned(),
            bound: bound.to_owned(),
            test: "t".to_owned(),
            nightly: false,
            day: 1,
        };
        let refused = |figure: &Figure| keep(figure, folder.path()).unwrap_err().to_string();
        assert_eq!(refused(&figure("F99", "<= 1")), "row \"F99\" is none of the table's");
        assert_eq!(refused(&figure("F1", " ")), "bound is empty");
        keep(&figure("F1", "<= 1"), folder.path()).unwrap();
        assert_eq!(told(folder.path()).unwrap(), [figure("F1", "<= 1")]);
    }
}
