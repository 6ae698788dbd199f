//! What a run leaves behind: every sample of every figure, and what is needed to judge it and to make it again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The form of the file. A reader refuses another one.
pub const SCHEMA: u32 = 1;

/// One run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Results {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// When it began, in UTC as RFC 3339 writes it.
    pub began: String,
    /// How long it took, in seconds.
    pub took_s: u64,
    /// What it ran on and under which settings, by name: processor, cores, kernel, congestion control.
    pub machine: BTreeMap<String, String>,
    /// The version of each candidate, and of Ignite and Java where they took part.
    pub versions: BTreeMap<String, String>,
    /// The command of this run, and that of every candidate's processes.
    pub commands: BTreeMap<String, String>,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What was asked for and could not be measured, and why: candidate or figure, reason.
    pub missing: BTreeMap<String, String>,
}

/// One quantity, for every candidate.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figure {
    /// What tells it from all others: `bulk-up-1-cpu`.
    pub id: String,
    /// The heading it belongs under: `bulk`.
    pub group: String,
    /// What a reader sees: `CPU of both proxies, 1 stream up`.
    pub title: String,
    /// Of the samples: `Gbit/s`, `CPU-s/GB`, `us`, `1/s`, `KB`, `MB`.
    pub unit: String,
    /// Which way is good.
    pub better: Better,
    /// By candidate, one sample per round, in the order of the rounds: samples of the same index were taken
    /// next to each other. A round in which a candidate failed holds none for it.
    pub samples: BTreeMap<String, Vec<Option<f64>>>,
}

/// Which way is good.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Rates.
    Higher,
    /// Costs and times.
    Lower,
}

/// Whether results can go to `file`, asked before hours of measuring.
///
/// # Errors
/// It is a folder.
pub(crate) fn check_place(file: &Path) -> Result<()> {
    ensure!(!file.is_dir(), "--out {}: expected a file, it is a folder", file.display());
    Ok(())
}

/// Writes them, and makes the folder for them.
///
/// # Errors
/// What the file system says.
pub(crate) fn write(results: &Results, file: &Path) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(results)? + "\n";
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_no_place_for_results() {
        let folder = tempfile::tempdir().unwrap();
        let error = check_place(folder.path()).unwrap_err().to_string();
        assert_eq!(error, format!("--out {}: expected a file, it is a folder", folder.path().display()));
        check_place(&folder.path().join("new/results.json")).unwrap();
    }
}
