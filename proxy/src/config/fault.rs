//! What is wrong with the settings, all of it at once.

use std::{fmt, path::PathBuf};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The table's default.
    Default,
    /// An environment variable.
    Environment(String),
    /// The file as a whole.
    File(PathBuf),
    /// A line of the file, counted from 1.
    Line(PathBuf, u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// One fault: where, and what was read and expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    place: Place,
    text: String,
}

impl Fault {
    pub(super) fn new(place: Place, text: String) -> Self {
        Self { place, text }
    }

    pub(super) fn alone(self) -> ConfigError {
        ConfigError { faults: vec![self] }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Every fault of the settings, one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    faults: Vec<Fault>,
}

impl ConfigError {
    /// What the process exits with: `EX_USAGE` of sysexits.h. A restart does not help.
    pub const EXIT_CODE: u8 = 64;

    pub(super) fn new(faults: Vec<Fault>) -> Self {
        Self { faults }
    }

    /// The faults: those of the file and the environment as such, then those of values in the order
    /// of the table.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let end = if index + 1 < self.faults.len() { "\n" } else { "" };
            write!(f, "{fault}{end}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
