//! Which iptables speaks to this kernel, and what it already holds.
//!
//! Two implementations may be installed side by side, and both may be in force in the same kernel: rules of ours
//! in the one we do not use would capture traffic behind our back. So both are always looked at.

use std::fmt;
use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

use crate::config::BackendChoice;
use crate::diagnose::{Obstacle, diagnose};
use crate::pod::Capabilities;
use crate::readback::Installed;
use crate::rules::Family;

/// Seconds that iptables-legacy waits for its lock: longer than any other init container holds it, shorter than
/// anybody watches a pod that does not start.
const LOCK_WAIT_SECONDS: &str = "10";

/// An implementation of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables.
    Nft,
    /// ip_tables.
    Legacy,
}

/// The save and restore programs of one backend for one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    family: Family,
    backend: Backend,
    program: String,
}

/// Both backends of one family, as found.
#[derive(Debug)]
pub struct Survey {
    found: Vec<(Backend, Found)>,
}

/// What was found of one backend.
type Found = Result<(Tool, Installed), ToolError>;

/// Why a backend's program did not do what it was told.
#[derive(Debug, Error)]
pub enum ToolError {
    /// No such program.
    #[error("no {program}-restore in the path: install the package iptables")]
    NotInstalled {
        /// Its name without `-restore`.
        program: String,
    },
    /// It ran and refused.
    #[error("{program}: {obstacle} ({})", .complaint.trim().replace('\n', " | "))]
    Refused {
        /// The program's name.
        program: String,
        /// What the refusal means.
        obstacle: Obstacle,
        /// What it said.
        complaint: String,
    },
    /// It could not be run or spoken to.
    #[error("{program}: {source}")]
    Io {
        /// The program's name.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// Why there is no backend to use.
#[derive(Debug, Error)]
pub enum ChooseError {
    /// Rules of ours are in force in both backends.
    #[error("both nft and legacy hold {} rules of ours: run ringmail-init --remove first", .family.name())]
    BothHoldRules {
        /// The family.
        family: Family,
    },
    /// Rules of ours are in the backend that was not asked for.
    #[error(
        "{asked} was asked for, but {holder} already holds {} rules of ours, which would stay in force: run \
         ringmail-init --remove first", .family.name()
    )]
    OtherHoldsRules {
        /// The family.
        family: Family,
        /// The backend asked for.
        asked: Backend,
        /// The one with the rules.
        holder: Backend,
    },
    /// No backend works; the reason of the first one asked for.
    #[error(transparent)]
    Unusable(ToolError),
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

impl Survey {
    /// Looks for both backends of a family and at what they hold. Changes nothing.
    pub fn look(family: Family) -> Self {
        let found = [Backend::Nft, Backend::Legacy].map(|backend| {
            let tool = Tool::find(family, backend);
            (backend, tool.and_then(|tool| tool.installed().map(|installed| (tool, installed))))
        });
        Self { found: found.into() }
    }

    /// The tools to try, best first, with what each of them holds.
    ///
    /// # Errors
    /// [`ChooseError`] when none works, or when rules of ours are where the chosen one would not reach them.
    pub fn choose(
        self,
        family: Family,
        choice: BackendChoice,
    ) -> Result<Vec<(Tool, Installed)>, ChooseError> {
        let holders = self.holders();
        let wanted: Vec<Backend> = match (choice, holders.as_slice()) {
            (_, [_, _, ..]) => return Err(ChooseError::BothHoldRules { family }),
            (BackendChoice::Auto, [holder]) => vec![*holder],
            (BackendChoice::Auto, []) => vec![Backend::Nft, Backend::Legacy],
            (BackendChoice::Nft, held) => vec![only(Backend::Nft, held, family)?],
            (BackendChoice::Legacy, held) => vec![only(Backend::Legacy, held, family)?],
        };
        let mut usable = Vec::new();
        let mut refusal = None;
        for (backend, result) in self.found {
            match result {
                Ok(found) if wanted.contains(&backend) => usable.push(found),
                Err(error) if wanted.contains(&backend) => refusal = refusal.or(Some(error)),
                Ok(_) | Err(_) => {}
            }
        }
        match refusal {
            Some(error) if usable.is_empty() => Err(ChooseError::Unusable(error)),
            Some(_) | None => Ok(usable),
        }
    }

    /// The tools that hold rules of ours, with those rules.
    ///
    /// # Errors
    /// When neither backend can be looked at: then nobody knows.
    pub fn holding_rules(self) -> Result<Vec<(Tool, Installed)>, ToolError> {
        let (looked, mut failed): (Vec<_>, Vec<_>) =
            self.found.into_iter().partition(|(_, found)| found.is_ok());
        if looked.is_empty()
            && let Some((_, Err(error))) = (!failed.is_empty()).then(|| failed.remove(0))
        {
            return Err(error);
        }
        let tools = looked.into_iter().filter_map(|(_, found)| found.ok());
        Ok(tools.filter(|(_, installed)| !installed.is_empty()).collect())
    }

    fn holders(&self) -> Vec<Backend> {
        let holds = |found: &Found| match found {
            Ok((_, installed)) => !installed.is_empty(),
            Err(_) => false,
        };
        self.found.iter().filter(|(_, found)| holds(found)).map(|(backend, _)| *backend).collect()
    }
}

fn only(asked: Backend, held: &[Backend], family: Family) -> Result<Backend, ChooseError> {
    match held.iter().find(|holder| **holder != asked) {
        Some(holder) => Err(ChooseError::OtherHoldsRules { family, asked, holder: *holder }),
        None => Ok(asked),
    }
}

impl Tool {
    /// Looks for the programs of a backend: by their full name, then by the plain name where a distribution
    /// installs only one backend.
    ///
    /// # Errors
    /// [`ToolError::NotInstalled`], or what kept it from telling its version.
    pub fn find(family: Family, backend: Backend) -> Result<Self, ToolError> {
        let plain = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let full = format!("{plain}-{backend}");
        for program in [full.as_str(), plain] {
            match Command::new(format!("{program}-restore")).arg("--version").output() {
                Ok(output) if program == full || is_version_of(backend, &output) => {
                    return Ok(Self { family, backend, program: program.to_owned() });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ToolError::Io { program: program.to_owned(), source }),
            }
        }
        Err(ToolError::NotInstalled { program: full })
    }

    /// Which backend it is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The program's name, for output.
    pub fn name(&self) -> &str {
        &self.program
    }

    /// Reads back the rules of ours that this backend holds.
    ///
    /// # Errors
    /// [`ToolError::Refused`] with the meaning of the refusal.
    pub fn installed(&self) -> Result<Installed, ToolError> {
        // All tables at once: asking iptables-legacy for one by name would make it create that table.
        let output = Command::new(format!("{}-save", self.program)).stdin(Stdio::null()).output();
        let output = self.finished("", output)?;
        Ok(Installed::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Hands the text to the kernel; each table changes as a whole or not at all.
    ///
    /// # Errors
    /// [`ToolError::Refused`] with the meaning of the refusal.
    pub fn restore(&self, text: &str) -> Result<(), ToolError> {
        self.finished(text, self.feed(text)).map(|_| ())
    }

    fn feed(&self, text: &str) -> io::Result<Output> {
        let mut child = Command::new(format!("{}-restore", self.program))
            .args(["--noflush", "-w", LOCK_WAIT_SECONDS])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
        let output = child.wait_with_output()?;
        match written {
            // It gave up before the end of the text: its own words say why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            Ok(()) | Err(_) => Ok(output),
        }
    }

    fn finished(&self, text: &str, output: io::Result<Output>) -> Result<Output, ToolError> {
        let program = self.program.clone();
        let output = output.map_err(|source| ToolError::Io { program: program.clone(), source })?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let complaint = if said.trim().is_empty() { output.status.to_string() } else { said.into_owned() };
        let obstacle = diagnose(&complaint, text, (self.family, self.backend), Capabilities::look());
        Err(ToolError::Refused { program, obstacle, complaint })
    }
}

/// Versions before 1.8 had one backend and did not name it.
fn is_version_of(backend: Backend, output: &Output) -> bool {
    let is_nft = String::from_utf8_lossy(&output.stdout).contains("nf_tables");
    match backend {
        Backend::Nft => is_nft,
        Backend::Legacy => !is_nft,
    }
}
