//! Where an answer goes: aligned for a person, JSON for a script.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON document.
    Json,
    /// Aligned columns.
    #[default]
    Table,
}

/// Whether stdout takes colour: it is a terminal, and nobody said NO_COLOR (<https://no-color.org>).
pub(crate) fn colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stdout().is_terminal()
}

/// Prints text; a reader that has gone away (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("write to stdout"),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints one JSON document.
pub(crate) fn print_json(answer: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(answer).context("write JSON")?;
    text.push('\n');
    print(&text)
}
