//! The report of a run: one page with plots, and the short table in README, made from the results alone.
//!
//! - `inputs`: reading results and making one of several.
//! - `statistics`: medians, ratios, intervals.
//! - `candidates`: their names, their order, and which is the best of the others.
//! - `headings`: the groups of figures.
//! - `targets`: what Ringmail promises of itself, judged.
//! - `page`, `plots`, `readme`: what is written, with `numbers` and `svg` for how.

mod candidates;
mod headings;
mod inputs;
mod numbers;
mod page;
mod plots;
mod readme;
mod statistics;
mod svg;
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

pub use self::inputs::InputError;
pub use self::readme::NoPlace;
use crate::results::Results;

/// The samples, beside the plots.
pub const RESULTS_FILE: &str = "results.json";

/// What `ringmail-bench report` is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Results of a run; given more than once, the report is of all of them together.
    #[arg(long = "in", required = true)]
    pub inputs: Vec<PathBuf>,
    /// The folder of the plots; the page is written beside it under the same name, with `.md` at its end.
    #[arg(long, default_value = "docs/benchmark")]
    pub out: PathBuf,
    /// The README whose table is made anew.
    #[arg(long)]
    pub readme: Option<PathBuf>,
}

/// A report, as text, by file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The page.
    pub page: String,
    /// What belongs into its folder: the plots and the results.
    pub files: BTreeMap<String, String>,
}

/// Reads the results and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let results = inputs::read_all(&options.inputs)?;
    let name = options.out.file_name().with_context(|| format!("{}: no name", options.out.display()))?;
    write(&report(&results, &name.to_string_lossy())?, &options.out)?;
    if let Some(readme) = &options.readme {
        let text = fs::read_to_string(readme).with_context(|| format!("read {}", readme.display()))?;
        let text = with_table(&text, Some(&results)).with_context(|| readme.display().to_string())?;
        fs::write(readme, text).with_context(|| format!("write {}", readme.display()))?;
    }
    Ok(())
}

/// Makes the report; `folder` is the name of that of the plots.
pub fn report(results: &Results, folder: &str) -> Result<Report> {
    let rows = targets::judge(results);
    let mut files = BTreeMap::from([
        (RESULTS_FILE.to_owned(), serde_json::to_string_pretty(results)? + "\n"),
        ("targets.svg".to_owned(), plots::targets(&rows)),
    ]);
    for group in headings::groups(results) {
        files.insert(group.file(), plots::bars(group.heading, &group.figures));
    }
    Ok(Report { page: page::page(results, &rows, folder), files })
}

/// README with its table made anew from these results, or emptied where there are none.
pub fn with_table(readme: &str, results: Option<&Results>) -> Result<String, NoPlace> {
    readme::with_table(readme, results)
}

/// Reads results of one or more runs as one.
pub fn read(files: &[PathBuf]) -> Result<Results, InputError> {
    inputs::read_all(files)
}

/// Writes a report, and removes the plots of an earlier one that it does not have.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".svg") && !report.files.contains_key(&name) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    for (name, text) in &report.files {
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    let page = folder.with_extension("md");
    fs::write(&page, &report.page).with_context(|| format!("write {}", page.display()))
}
