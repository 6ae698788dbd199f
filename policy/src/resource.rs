//! What every resource has: its name, its age and its selector.
//!
//! Age decides between policies of one scope. The rule: the earlier `creationTimestamp` is older; of two that
//! are equal the one with the smaller name, then the smaller namespace, is older, as in Istio. A resource
//! without a timestamp (a file that never went through an API server) is younger than every resource that has
//! one, and among themselves the one that comes earlier in the text is older.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::origin::{Kind, Origin};
use crate::parse::Place;
use crate::report::Report;

/// Labels of a pod, or those a selector asks for.
pub(crate) type Labels = BTreeMap<String, String>;

/// The identity and age of a resource.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    pub(crate) created: Option<OffsetDateTime>,
    /// How many resources came before this one in the text.
    pub(crate) position: usize,
    pub(crate) at: Place,
}

impl Meta {
    /// `Less` when `self` is older than `other`.
    pub(crate) fn age(&self, other: &Self) -> Ordering {
        match (self.created, other.created) {
            (Some(own), Some(others)) => own
                .cmp(&others)
                .then_with(|| self.name.cmp(&other.name))
                .then_with(|| self.namespace.cmp(&other.namespace))
                .then_with(|| self.position.cmp(&other.position)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.position.cmp(&other.position),
        }
    }

    pub(crate) fn origin(&self, detail: &str) -> Origin {
        Origin::Resource {
            kind: self.kind,
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(&self.name),
            detail: detail.into(),
        }
    }

    pub(crate) fn report(&self, text: impl Into<String>) -> Report {
        Report {
            kind: self.kind.as_str().to_owned(),
            namespace: self.namespace.to_string(),
            name: self.name.to_string(),
            source: self.at.source.to_string(),
            line: self.at.line,
            path: String::new(),
            text: text.into(),
        }
    }
}

/// Whether every label that `selector` asks for is there. An empty selector selects everything.
pub(crate) fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
