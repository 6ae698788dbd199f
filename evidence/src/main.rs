//! Makes `docs/reliability.md` of what tests have told.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};
use ringmail_evidence::{Figure, folder, keep, merged, render, told};

/// What tests have shown of each promise.
#[derive(Parser)]
enum Arguments {
    /// Puts what the tests of the last runs told into docs/reliability.json, and makes docs/reliability.md of it
    Page(Page),
    /// Tells a figure of a script, as tests do by themselves
    Tell(Tell),
}

#[derive(Args)]
struct Tell {
    /// The row of the table, as F10
    row: String,
    /// What was counted or measured
    what: String,
    /// What was seen, with its unit
    seen: String,
    /// What the script asserts of it
    bound: String,
    /// The script, by its path in the repository
    script: String,
}

#[derive(Args)]
struct Page {
    /// The folder that tests told their figures into [default: where they do so by themselves]
    #[arg(long)]
    from: Option<PathBuf>,
    /// The folder of reliability.json and reliability.md
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
    /// Forget what earlier runs told: what this one has not is missing then
    #[arg(long)]
    anew: bool,
}

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments::Page(page) => make(page),
        Arguments::Tell(Tell { row, what, seen, bound, script }) => {
            keep(&Figure::now(&row, &what, &seen, &bound, script), &folder()).map(drop)
        }
    }
}

fn make(arguments: Page) -> Result<()> {
    let json = arguments.docs.join("reliability.json");
    let before = if arguments.anew { Vec::new() } else { before(&json)? };
    let now = told(&arguments.from.unwrap_or_else(folder))?;
    let (new, all) = (now.len(), merged(before, now));
    if all.is_empty() {
        bail!("nothing was told, now or before: expected figures in --from, or {}", json.display());
    }
    write(&json, &format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    write(&arguments.docs.join("reliability.md"), &render(&all))?;
    println!("{new} figures told, {} on the page", all.len());
    Ok(())
}

fn before(json: &Path) -> Result<Vec<Figure>> {
    if !json.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read(json).with_context(|| format!("{}", json.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{}", json.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{}: --docs names the folder", path.display()))
}
