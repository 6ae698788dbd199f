//! The page that is committed is the one of the figures that are committed, and names tests that are there.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use ringmail_evidence::{Figure, ROWS, render};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn committed() -> Vec<Figure> {
    serde_json::from_slice(&fs::read(workspace().join("docs/reliability.json")).unwrap()).unwrap()
}

#[test]
fn no_figure_of_the_page_is_typed_in() {
    let page = fs::read_to_string(workspace().join("docs/reliability.md")).unwrap();
    assert!(page == render(&committed()), "docs/reliability.md is not what docs/reliability.json makes");
}

#[test]
fn every_test_that_the_page_names_is_in_the_sources() {
    let sources = read_sources(&workspace());
    for figure in committed() {
        if figure.test.contains('/') {
            assert!(workspace().join(&figure.test).is_file(), "{}: {} is nowhere", figure.row, figure.test);
            continue;
        }
        let name = figure.test.rsplit("::").next().unwrap();
        let function = format!("fn {name}(");
        assert!(
            sources.iter().any(|text| text.contains(&function)),
            "{}: {} is nowhere",
            figure.row,
            figure.test
        );
    }
}

#[test]
fn every_row_has_a_name_of_its_own() {
    let names: HashSet<&str> = ROWS.iter().map(|row| row.id).collect();
    assert_eq!(names.len(), ROWS.len());
}

/// The text of every source and script.
fn read_sources(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            texts.extend(read_sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            texts.push(fs::read_to_string(&path).unwrap());
        }
    }
    texts
}
