//! From what is installed to what is wanted, in one restore per family, and back to nothing.

use thiserror::Error;

use crate::backend::{Backend, Tool, ToolError};
use crate::diagnose::Obstacle;
use crate::readback::{Difference, Installed};
use crate::render;
use crate::rules::RuleSet;

/// Rules in place.
#[derive(Debug)]
pub struct Applied {
    /// The tool that holds them.
    pub tool: Tool,
    /// Whether anything had to change for it.
    pub change: Change,
}

/// What a run had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Every rule was there already.
    None,
    /// Nothing of ours was there.
    Created,
    /// Rules of ours were there and differed.
    Replaced,
}

/// Why the rules are not in place.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The restore went through, but what is read back is something else.
    #[error(
        "{program} took the rules, but {} reads back as {} where {} was written",
        .difference.place, shown(.difference.found.as_ref()), shown(.difference.expected.as_ref())
    )]
    NotAsWritten {
        /// The tool.
        program: String,
        /// The first difference.
        difference: Difference,
    },
    /// Rules of ours are still there after removal.
    #[error("{program} removed the rules, but {left} of ours are still there")]
    LeftBehind {
        /// The tool.
        program: String,
        /// How many rules.
        left: usize,
    },
    /// The tool refused; with every tool tried, if there were several.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Tools(Vec<ToolError>),
}

/// Puts the rules in place with the first of the tools that can, and reads them back.
///
/// A tool without a feature that the rules need is left as it was found, and the next one is tried.
///
/// # Errors
/// [`ApplyError`]; the kernel then holds either what it held before or all rules of some tables.
pub fn apply(wanted: &RuleSet, tools: Vec<(Tool, Installed)>) -> Result<Applied, ApplyError> {
    let mut refusals = Vec::new();
    for (tool, installed) in tools {
        if installed.difference(wanted).is_none() {
            return Ok(Applied { tool, change: Change::None });
        }
        match tool.restore(&render::apply(wanted, &installed)) {
            Ok(()) => {
                read_back(wanted, &tool)?;
                let change = if installed.is_empty() { Change::Created } else { Change::Replaced };
                return Ok(Applied { tool, change });
            }
            Err(error) => {
                let is_worth_another = lacks_feature(&error);
                refusals.push(error);
                // Tables before the refused one are in force, and would stay so, unseen, in a backend that is
                // then not used.
                if installed.is_empty() {
                    match remove(&tool) {
                        Ok(_) => {}
                        Err(ApplyError::Tools(errors)) => refusals.extend(errors),
                        Err(error @ (ApplyError::LeftBehind { .. } | ApplyError::NotAsWritten { .. })) => {
                            return Err(error);
                        }
                    }
                }
                if !is_worth_another {
                    break;
                }
            }
        }
    }
    Err(ApplyError::Tools(refusals))
}

/// Removes every rule of ours from one backend; returns how many there were.
///
/// # Errors
/// [`ApplyError`] when the tool refuses or rules are left.
pub fn remove(tool: &Tool) -> Result<usize, ApplyError> {
    let installed = tool.installed().map_err(one)?;
    if installed.is_empty() {
        return Ok(0);
    }
    tool.restore(&render::remove(&installed)).map_err(one)?;
    let left = tool.installed().map_err(one)?;
    if left.is_empty() {
        Ok(installed.rules())
    } else {
        Err(ApplyError::LeftBehind { program: tool.name().to_owned(), left: left.rules() })
    }
}

/// Compares what the kernel holds with what was asked for.
///
/// # Errors
/// [`ApplyError::NotAsWritten`] with the first difference.
pub fn read_back(wanted: &RuleSet, tool: &Tool) -> Result<(), ApplyError> {
    match tool.installed().map_err(one)?.difference(wanted) {
        Some(difference) => Err(ApplyError::NotAsWritten { program: tool.name().to_owned(), difference }),
        None => Ok(()),
    }
}

impl Applied {
    /// The backend that holds the rules.
    pub fn backend(&self) -> Backend {
        self.tool.backend()
    }
}

impl ApplyError {
    /// What stood in the way, if it was a tool that said so.
    pub fn obstacle(&self) -> Option<&Obstacle> {
        match self {
            Self::Tools(errors) => errors.iter().find_map(ToolError::obstacle),
            Self::NotAsWritten { .. } | Self::LeftBehind { .. } => None,
        }
    }
}

impl ApplyError {
    /// Whether a tool may have refused the rules for the recent match alone.
    pub fn may_be_recent_match(&self) -> bool {
        match self {
            Self::Tools(errors) => {
                errors.iter().filter_map(ToolError::obstacle).any(Obstacle::may_be_recent_match)
            }
            Self::NotAsWritten { .. } | Self::LeftBehind { .. } => false,
        }
    }
}

impl ToolError {
    /// What the refusal means; none if the tool was not there or could not be run.
    pub fn obstacle(&self) -> Option<&Obstacle> {
        match self {
            Self::Refused { obstacle, .. } => Some(obstacle),
            Self::NotInstalled { .. } | Self::Io { .. } => None,
        }
    }
}

fn lacks_feature(error: &ToolError) -> bool {
    match error.obstacle() {
        Some(Obstacle::Missing(_)) => true,
        Some(Obstacle::Locked | Obstacle::NotPermitted(_) | Obstacle::Other) | None => false,
    }
}

fn one(error: ToolError) -> ApplyError {
    ApplyError::Tools(vec![error])
}

fn shown(rule: Option<&String>) -> String {
    rule.map_or_else(|| "nothing".to_owned(), |rule| format!("`{rule}`"))
}
