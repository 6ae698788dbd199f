//! Reading results, and making one of several: the network's figures and Ignite's come from runs of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::results::{Figure, Results, SCHEMA};

/// Why results cannot be used.
#[derive(Debug, Error)]
pub enum InputError {
    /// The file is not there or closed.
    #[error("read {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{}: expected the results of a benchmark", file.display())]
    Parse {
        /// Which.
        file: PathBuf,
        /// What was found.
        source: serde_json::Error,
    },
    /// It was written by another release.
    #[error("{}: schema {found}, expected {SCHEMA}", file.display())]
    Schema {
        /// Which.
        file: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// Two runs measured the same, and rounds of different runs were not taken next to each other.
    #[error("figure {id} is in two of the results: expected each in one")]
    Twice {
        /// The figure.
        id: String,
    },
    /// A candidate has another number of rounds than the others of its figure.
    #[error("figure {id}: {found} rounds of {candidate}, expected {expected} as of the others")]
    Rounds {
        /// The figure.
        id: String,
        /// Whose.
        candidate: String,
        /// How many it has.
        found: usize,
        /// How many the others have.
        expected: usize,
    },
    /// No file was given.
    #[error("no results were given")]
    None,
}

/// Reads each file and makes one of all: figures in the order of the files.
pub(super) fn read_all(files: &[PathBuf]) -> Result<Results, InputError> {
    let mut merged: Option<Results> = None;
    for file in files {
        let results = read(file)?;
        merged = Some(match merged {
            None => results,
            Some(first) => merge(first, results)?,
        });
    }
    merged.ok_or(InputError::None)
}

fn read(file: &Path) -> Result<Results, InputError> {
    let text =
        fs::read_to_string(file).map_err(|source| InputError::Read { file: file.to_owned(), source })?;
    let results: Results =
        serde_json::from_str(&text).map_err(|source| InputError::Parse { file: file.to_owned(), source })?;
    if results.schema != SCHEMA {
        return Err(InputError::Schema { file: file.to_owned(), found: results.schema });
    }
    results.figures.iter().try_for_each(check_rounds)?;
    Ok(results)
}

/// Samples of the same place are of the same round only if every candidate has all places.
fn check_rounds(figure: &Figure) -> Result<(), InputError> {
    let expected = figure.samples.values().map(Vec::len).max().unwrap_or_default();
    for (candidate, samples) in &figure.samples {
        if samples.len() != expected {
            let (id, candidate, found) = (figure.id.clone(), candidate.clone(), samples.len());
            return Err(InputError::Rounds { id, candidate, found, expected });
        }
    }
    Ok(())
}

fn merge(mut first: Results, second: Results) -> Result<Results, InputError> {
    for figure in second.figures {
        if first.figures.iter().any(|known| known.id == figure.id) {
            return Err(InputError::Twice { id: figure.id });
        }
        first.figures.push(figure);
    }
    first.began = first.began.min(second.began);
    first.took_s += second.took_s;
    join(&mut first.machine, second.machine);
    join(&mut first.versions, second.versions);
    join(&mut first.commands, second.commands);
    join(&mut first.missing, second.missing);
    Ok(first)
}

/// What two runs say of the same name stands side by side where they differ, and once where one says only more.
fn join(first: &mut BTreeMap<String, String>, second: BTreeMap<String, String>) {
    for (name, text) in second {
        let known = first.entry(name).or_default();
        if text.starts_with(known.as_str()) {
            *known = text;
        } else if !known.starts_with(&text) {
            known.push_str("; ");
            known.push_str(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Better;

    fn results(figure: &str, kernel: &str, began: &str) -> Results {
        let samples = BTreeMap::from([("plain".to_owned(), vec![Some(1.0)])]);
        Results {
            schema: SCHEMA,
            began: began.to_owned(),
            took_s: 10,
            machine: BTreeMap::from([("kernel".to_owned(), kernel.to_owned())]),
            versions: BTreeMap::new(),
            commands: BTreeMap::new(),
            figures: vec![Figure {
                id: figure.to_owned(),
                group: "g".to_owned(),
                title: "t".to_owned(),
                unit: "us".to_owned(),
                better: Better::Lower,
                samples,
            }],
            missing: BTreeMap::new(),
        }
    }

    #[test]
    fn two_runs_are_one_and_what_differs_between_them_is_shown() {
        let (first, second) =
            (results("a", "6.1", "2026-01-02T00:00:00Z"), results("b", "6.2", "2026-01-01T00:00:00Z"));
        let merged = merge(first, second).unwrap();
        assert_eq!(merged.figures.iter().map(|figure| &*figure.id).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((merged.took_s, &*merged.began), (20, "2026-01-01T00:00:00Z"));
        assert_eq!(merged.machine["kernel"], "6.1; 6.2");
        for (first, second) in [("6.1", "6.1, patched"), ("6.1, patched", "6.1")] {
            let merged = merge(results("a", first, ""), results("b", second, "")).unwrap();
            assert_eq!(merged.machine["kernel"], "6.1, patched");
        }
    }

    #[test]
    fn a_figure_in_two_runs_is_named_and_refused() {
        let error = merge(results("a", "6.1", ""), results("a", "6.1", "")).unwrap_err();
        assert_eq!(error.to_string(), "figure a is in two of the results: expected each in one");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.json");
        assert!(matches!(read(&file), Err(InputError::Read { .. })));
        fs::write(&file, "{}").unwrap();
        assert!(matches!(read(&file), Err(InputError::Parse { .. })));
        let newer = Results { schema: SCHEMA + 1, ..results("a", "", "") };
        fs::write(&file, serde_json::to_string(&newer).unwrap()).unwrap();
        assert!(matches!(read(&file), Err(InputError::Schema { .. })));
        let mut uneven = results("a", "", "");
        uneven.figures[0].samples.insert("ringmail".to_owned(), vec![None, None]);
        fs::write(&file, serde_json::to_string(&uneven).unwrap()).unwrap();
        let error = read_all(&[file]).unwrap_err().to_string();
        assert_eq!(error, "figure a: 1 rounds of plain, expected 2 as of the others");
        assert!(matches!(read_all(&[]), Err(InputError::None)));
    }
}
