//! What could not be honoured as written. A report is for a person: it never changes a decision by itself, and
//! every silent difference between a resource's text and its effect must end up in one.

use std::fmt;

/// One thing about one resource that its author should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// The resource's `kind` as written; also kinds that are not supported.
    pub kind: String,
    /// The resource's namespace.
    pub namespace: String,
    /// The resource's name.
    pub name: String,
    /// Where the text came from, such as a file name.
    pub source: String,
    /// The line in that source, from 1.
    pub line: usize,
    /// Which field it is about, such as `spec.action`; empty where it is the whole resource, or the text came
    /// from the control plane.
    pub path: String,
    /// What is not as written, and what holds instead.
    pub text: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, source, line, text, .. } = self;
        write!(f, "{kind} {namespace}/{name} ({source}:{line}): {text}")
    }
}
