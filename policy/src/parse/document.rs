//! Reading one document field by field: every fault and every report goes to the document's own list, so that
//! a reader goes on after a fault and finds the next one.

use std::sync::Arc;

use crate::parse::error::{ParseError, Place};
use crate::parse::tree::{Node, Value};
use crate::parse::{MAX_FAULTS, MAX_LIST_ITEMS};
use crate::report::Report;
use crate::resource::{Labels, Meta};

/// The document being read: where it is, and what was found.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) source: Arc<str>,
    pub(crate) number: usize,
    /// How many lines of the source come before the document.
    pub(crate) lines_before: usize,
    pub(crate) faults: Vec<ParseError>,
    pub(crate) reports: Vec<Report>,
}

/// A node and its path from the document's root.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: String,
}

impl Document {
    pub(crate) fn place(&self, line: usize) -> Place {
        Place { source: Arc::clone(&self.source), document: self.number, line: self.lines_before + line }
    }

    pub(crate) fn fault(&mut self, field: &Field<'_>, expected: impl Into<String>, read: impl Into<String>) {
        let at = self.place(field.node.line);
        let (path, expected, read) = (field.path.clone(), expected.into(), read.into());
        self.push(ParseError::Field { at, path, expected, read });
    }

    /// A field that Istio's API does not have, most likely a slip of the pen: taken for absent, it would make
    /// a policy say something else than its author wrote.
    pub(crate) fn unknown(&mut self, field: &Field<'_>, expected: &str) {
        let name = field.path.rsplit('.').next().unwrap_or_default().to_owned();
        self.fault(field, expected, format!("the unknown field {name:?}"));
    }

    pub(crate) fn push(&mut self, fault: ParseError) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }

    /// Adds a report about `field` of the resource `meta`.
    pub(crate) fn report(&mut self, meta: &Meta, field: &Field<'_>, text: impl Into<String>) {
        let line = self.lines_before + field.node.line;
        self.reports.push(Report { line, path: field.path.clone(), ..meta.report(text) });
    }

    /// The port that `text` names; 0 and what is not a number are faults.
    pub(crate) fn port(&mut self, field: &Field<'_>, text: &str) -> Option<u16> {
        let port = text.parse::<u16>().ok().filter(|&port| port != 0 && !text.starts_with('+'));
        if port.is_none() {
            self.fault(field, "a port from 1 to 65535", format!("{text:?}"));
        }
        port
    }
}

impl<'a> Field<'a> {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// The members of a mapping; none when the field is null.
    pub(crate) fn entries(&self, document: &mut Document) -> Vec<(&'a str, Self)> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries,
            Value::Null => return Vec::new(),
            other @ (Value::Boolean(_) | Value::List(_) | Value::Number(_) | Value::Text(_)) => {
                document.fault(self, "a mapping", other.describe());
                return Vec::new();
            }
        };
        entries.iter().map(|(key, node)| (&**key, Field { node, path: self.member(key) })).collect()
    }

    /// The items of a list; none when the field is null.
    pub(crate) fn items(&self, document: &mut Document) -> Vec<Self> {
        self.items_up_to(document, MAX_LIST_ITEMS)
    }

    /// The same with a limit of its own.
    pub(crate) fn items_up_to(&self, document: &mut Document, limit: usize) -> Vec<Self> {
        let items = match &self.node.value {
            Value::List(items) => items,
            Value::Null => return Vec::new(),
            other @ (Value::Boolean(_) | Value::Map(_) | Value::Number(_) | Value::Text(_)) => {
                document.fault(self, "a list", other.describe());
                return Vec::new();
            }
        };
        if items.len() > limit {
            document.fault(self, format!("at most {limit} items"), items.len().to_string());
            return Vec::new();
        }
        let item = |(index, node)| Field { node, path: format!("{}[{index}]", self.path) };
        items.iter().enumerate().map(item).collect()
    }

    /// The text of a string field; `None` when the field is null or, after a fault, when it is no string.
    pub(crate) fn text(&self, document: &mut Document) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Null => None,
            other @ (Value::Boolean(_) | Value::List(_) | Value::Map(_) | Value::Number(_)) => {
                document.fault(self, "a string", other.describe());
                None
            }
        }
    }

    /// The digits of a number field, which may also be written as a string.
    pub(crate) fn number(&self, document: &mut Document) -> Option<&'a str> {
        match &self.node.value {
            Value::Number(text) | Value::Text(text) => Some(text),
            other @ (Value::Boolean(_) | Value::List(_) | Value::Map(_) | Value::Null) => {
                document.fault(self, "a number", other.describe());
                None
            }
        }
    }

    /// The text of a string field that must not be empty.
    pub(crate) fn required_text(&self, document: &mut Document) -> Option<&'a str> {
        let text = match &self.node.value {
            Value::Null => Some(""),
            Value::Boolean(_) | Value::List(_) | Value::Map(_) | Value::Number(_) | Value::Text(_) => {
                self.text(document)
            }
        };
        if text == Some("") {
            document.fault(self, "a string that is not empty", "nothing");
        }
        text.filter(|text| !text.is_empty())
    }

    /// A mapping of strings to strings.
    pub(crate) fn labels(&self, document: &mut Document) -> Labels {
        let mut labels = Labels::new();
        for (key, field) in self.entries(document) {
            let value = field.text(document).unwrap_or_default();
            labels.insert(key.to_owned(), value.to_owned());
        }
        labels
    }

    /// The `matchLabels` of a workload selector. Its empty form selects everything, as if it were absent.
    pub(crate) fn selector(&self, document: &mut Document) -> Labels {
        let mut labels = Labels::new();
        for (key, field) in self.entries(document) {
            match key {
                "matchLabels" => labels = field.labels(document),
                _ => document.unknown(&field, "matchLabels"),
            }
        }
        labels
    }

    /// The member `key` of a mapping, where there is one.
    pub(crate) fn get(&self, key: &str) -> Option<Self> {
        let Value::Map(entries) = &self.node.value else { return None };
        let (_, node) = entries.iter().find(|(name, _)| &**name == key)?;
        Some(Field { node, path: self.member(key) })
    }

    fn member(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
