//! Where a fault is, and what it is.

use std::fmt;
use std::sync::Arc;

/// A place in the text that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The name the text was given with, such as a file name.
    pub source: Arc<str>,
    /// The YAML document in that text, from 1.
    pub document: usize,
    /// The line in that text, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: document {}, line {}", self.source, self.document, self.line)
    }
}

/// Why a set of resources was refused. One fault refuses the whole set, so that a decision is never made from
/// half of it; all faults are collected, so that one look is enough to repair them.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseError {
    /// The same resource stands twice in the set.
    #[error("{at}: {resource} is already defined at {first}")]
    Duplicate {
        /// The later definition.
        at: Place,
        /// Kind, namespace and name.
        resource: String,
        /// The earlier definition.
        first: Place,
    },
    /// A field does not hold what it must.
    #[error("{at}: {}expected {expected}, read {read}", before(path))]
    Field {
        /// The field's place.
        at: Place,
        /// The field's path from the document's root.
        path: String,
        /// What may stand there.
        expected: String,
        /// What stands there.
        read: String,
    },
    /// A limit on the size of the input was passed.
    #[error("{at}: expected at most {limit} {what}")]
    Limit {
        /// Where the limit was passed.
        at: Place,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The text is not YAML.
    #[error("{at}: expected a YAML document, read {message}")]
    Syntax {
        /// Where reading stopped.
        at: Place,
        /// What the YAML reader says.
        message: String,
    },
}

/// The path and what divides it from the rest; nothing for the document itself.
fn before(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

impl ParseError {
    /// Where the fault is.
    pub const fn place(&self) -> &Place {
        match self {
            Self::Duplicate { at, .. }
            | Self::Field { at, .. }
            | Self::Limit { at, .. }
            | Self::Syntax { at, .. } => at,
        }
    }
}
