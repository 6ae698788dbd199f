//! The committed page is what the committed results give, and nothing else.
//!
//! `RINGMAIL_WRITE_DOCS=1` writes it anew instead of comparing. What the report makes of results is tried on made-up ones.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use ringmail_bench::report::{self, Options, RESULTS_FILE, Report};

const MADE_UP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/made-up.json");

const MARKS: &str = "# Project\n\n<!-- benchmark: made by `ringmail-bench report` from here -->\n\
                     <!-- benchmark: to here -->\n\nThe rest.\n";

#[test]
fn the_committed_page_and_readme_are_what_the_committed_results_give() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (folder, readme) = (project.join("docs/benchmark"), project.join("README.md"));
    let samples = folder.join(RESULTS_FILE);
    let results = samples.exists().then(|| report::read(&[samples]).unwrap());
    let made = results.as_ref().map(|results| {
        let mut made = report::report(results, "benchmark").unwrap();
        // What the rest is made from is not made.
        made.files.remove(RESULTS_FILE);
        made
    });
    let text = fs::read_to_string(&readme).unwrap();
    let with_table = report::with_table(&text, results.as_ref()).unwrap();
    if std::env::var_os("RINGMAIL_WRITE_DOCS").is_some() {
        if let Some(made) = &made {
            report::write(made, &folder).unwrap();
        }
        fs::write(&readme, &with_table).unwrap();
    }
    assert!(
        fs::read_to_string(&readme).unwrap() == with_table,
        "README's table is not what {RESULTS_FILE} gives"
    );
    assert!(
        committed(&folder) == made,
        "docs/benchmark.md and its plots are not what docs/benchmark/{RESULTS_FILE} gives: \
         RINGMAIL_WRITE_DOCS=1 cargo test -p ringmail-bench --test report"
    );
}

/// The report that is there, without the results that it is made from; none where there is no page.
fn committed(folder: &Path) -> Option<Report> {
    let page = fs::read_to_string(folder.with_extension("md")).ok()?;
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with(RESULTS_FILE))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    Some(Report { page, files })
}

/// A report of the made-up results in a folder of its own.
fn made(folder: &Path) -> (PathBuf, PathBuf) {
    let (out, readme) = (folder.join("benchmark"), folder.join("README.md"));
    fs::write(&readme, MARKS).unwrap();
    let inputs = vec![PathBuf::from(MADE_UP)];
    report::run(&Options { inputs, out: out.clone(), readme: Some(readme.clone()) }).unwrap();
    (out, readme)
}

#[test]
fn a_report_is_written_whole_and_again_the_same_and_forgets_plots_that_it_has_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (out, readme) = made(folder.path());
    let first = (committed(&out).unwrap(), fs::read_to_string(&readme).unwrap());
    let plots: Vec<_> = first.0.files.keys().map(String::as_str).collect();
    assert_eq!(
        plots,
        [
            "bulk.svg",
            "ignite-faults-and-joining.svg",
            "ignite-put.svg",
            "memory.svg",
            "requests-and-responses.svg",
            "targets.svg"
        ]
    );
    assert!(out.join(RESULTS_FILE).exists());
    fs::write(out.join("bulk.svg"), "altered").unwrap();
    fs::write(out.join("of-an-earlier-run.svg"), "").unwrap();
    assert_ne!(committed(&out).unwrap(), first.0, "an altered plot is not noticed");
    made(folder.path());
    assert_eq!((committed(&out).unwrap(), fs::read_to_string(&readme).unwrap()), first);
}

#[test]
fn a_page_says_what_was_measured_what_was_not_and_where_the_rounds_show_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (out, readme) = made(folder.path());
    let page = fs::read_to_string(out.with_extension("md")).unwrap();
    for expected in [
        "| Bulk: CPU of both proxies, 1 stream up | at most 0.7 x ztunnel |",
        "| `bulk-up-8-cpu` | at most 0.7 x ztunnel | - | not measured |",
        "| ztunnel | no --ztunnel was given \\| made up |",
        "<br>no difference shown, ",
        "![Bulk by candidate](benchmark/bulk.svg)",
        "ringmail-bench run --rounds 5",
        "1 h 12 min of measuring",
    ] {
        assert!(page.contains(expected), "{expected:?} is not in:\n{page}");
    }
    let readme = fs::read_to_string(readme).unwrap();
    assert!(readme.starts_with("# Project\n") && readme.ends_with("\n\nThe rest.\n"), "{readme}");
    assert!(
        readme.contains("| Bulk: CPU of both proxies, 1 stream up, CPU-s/GB (less is better) | 0."),
        "{readme}"
    );
    assert!(readme.contains("(ztunnel)") && readme.contains("(ignite-tls)"), "{readme}");
}

#[test]
fn the_same_results_twice_are_refused_by_the_name_of_the_figure() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = vec![PathBuf::from(MADE_UP), PathBuf::from(MADE_UP)];
    let error = report::run(&Options { inputs, out: folder.path().join("b"), readme: None }).unwrap_err();
    assert!(error.to_string().contains("figure bulk-up-1-rate is in two"), "{error:#}");
    assert!(!folder.path().join("b.md").exists());
}
