//! From YAML text to a set of resources: split into documents, read as trees, and taken apart by the modules
//! of the four kinds.
//!
//! The whole set is refused when one document has a fault, since a policy that is missing means "allow".
//! What is well-formed but has no meaning here (other kinds, HTTP fields) is reported instead.

mod document;
mod error;
mod metadata;
mod tree;

use std::collections::HashMap;
use std::sync::Arc;

use serde_saphyr::{DefaultMessageFormatter, MessageFormatter, Options};

pub(crate) use document::{Document, Field};
pub use error::{ParseError, Place};
use tree::{Node, Value};

use crate::authorization::AuthorizationPolicy;
use crate::destination_rule::DestinationRule;
use crate::origin::Kind;
use crate::peer_authentication::PeerAuthentication;
use crate::report::Report;
use crate::resource::Meta;
use crate::workload::WorkloadEntry;

/// How many bytes of text one set may have: far above what a cluster's policies need (an entry of a workload
/// takes about 300 bytes), and small enough to be read again on each change.
pub const MAX_TEXT_BYTES: usize = 16 * 1024 * 1024;
/// How many resources one set may have: every compilation looks at each of them.
pub const MAX_RESOURCES: usize = 50_000;
/// How many items a list may have, such as the rules of a policy or the values of a rule: the limit of
/// Istio's own resource definitions.
pub const MAX_LIST_ITEMS: usize = 512;
/// How many service accounts one source may name: the limit of Istio's own resource definitions.
pub const MAX_SERVICE_ACCOUNTS: usize = 16;
/// How deep one document may nest. The deepest field that is read here lies 9 levels deep.
pub const MAX_YAML_DEPTH: usize = 32;
/// How many values one document may have, those that an alias repeats included: room for a `List` of some 40 000
/// workloads, while a document made to fill memory ends at about 100 MB.
pub const MAX_YAML_NODES: usize = 1_000_000;
/// How many faults are collected before the rest is left out: more than anyone repairs in one go.
pub const MAX_FAULTS: usize = 100;

/// Every resource of one set, oldest first within its kind.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    pub(crate) authorization_policies: Vec<AuthorizationPolicy>,
    pub(crate) destination_rules: Vec<DestinationRule>,
    pub(crate) peer_authentications: Vec<PeerAuthentication>,
    pub(crate) workload_entries: Vec<WorkloadEntry>,
    pub(crate) reports: Vec<Report>,
}

impl Resources {
    /// Reads pairs of a source's name (such as a file name, for messages only) and its YAML text, which may
    /// hold many documents. A resource without `metadata.creationTimestamp` is as old as its place in the
    /// text says: younger than all that have one, older than those that come later.
    ///
    /// # Errors
    /// All faults of the set, up to [`MAX_FAULTS`], when there is at least one.
    pub fn parse<'a>(
        documents: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Vec<ParseError>> {
        let mut reader = Reader::default();
        for (source, text) in documents {
            reader.read_source(source, text);
        }
        if !reader.faults.is_empty() {
            return Err(reader.faults);
        }
        let mut set = reader.set;
        set.sort();
        Ok(set)
    }

    /// Oldest first.
    pub(crate) fn sort(&mut self) {
        self.authorization_policies.sort_by(|a, b| a.meta.age(&b.meta));
        self.destination_rules.sort_by(|a, b| a.meta.age(&b.meta));
        self.peer_authentications.sort_by(|a, b| a.meta.age(&b.meta));
        self.workload_entries.sort_by(|a, b| a.meta.age(&b.meta));
    }

    /// What could not be honoured as written, whatever pod it is compiled for, in the order of the text.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    set: Resources,
    faults: Vec<ParseError>,
    seen: HashMap<(Kind, Arc<str>, Arc<str>), Place>,
    bytes: usize,
    resources: usize,
}

impl Reader {
    fn read_source(&mut self, source: &str, text: &str) {
        let source: Arc<str> = source.into();
        let within = self.bytes <= MAX_TEXT_BYTES;
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > MAX_TEXT_BYTES {
            if within {
                let at = Place { source, document: 1, line: 1 };
                self.faults.push(ParseError::Limit { at, what: "bytes of text", limit: MAX_TEXT_BYTES });
            }
            return;
        }
        for (number, (lines_before, text)) in split(text).into_iter().enumerate() {
            let mut document = Document {
                source: Arc::clone(&source),
                number: number + 1,
                lines_before,
                faults: Vec::new(),
                reports: Vec::new(),
            };
            if let Some(root) = read_tree(&mut document, text) {
                self.read_resource(&mut document, &Field { node: &root, path: String::new() });
            }
            let room = MAX_FAULTS.saturating_sub(self.faults.len());
            self.faults.extend(document.faults.into_iter().take(room));
            self.set.reports.append(&mut document.reports);
        }
    }

    fn read_resource(&mut self, document: &mut Document, root: &Field<'_>) {
        let Some(kind) = metadata::kind(document, root) else { return };
        match kind {
            metadata::Read::List(items) => {
                for item in items.items_up_to(document, MAX_RESOURCES) {
                    self.read_resource(document, &item);
                }
            }
            metadata::Read::Unsupported(report) => document.reports.push(report),
            metadata::Read::Kind(kind) => {
                self.resources += 1;
                if self.resources > MAX_RESOURCES {
                    if self.resources == MAX_RESOURCES + 1 {
                        let at = document.place(root.node.line);
                        document.push(ParseError::Limit { at, what: "resources", limit: MAX_RESOURCES });
                    }
                    return;
                }
                let Some(meta) = metadata::meta(document, root, kind, self.resources) else { return };
                self.refuse_duplicate(document, &meta);
                self.read_spec(document, root, meta);
            }
        }
    }

    fn refuse_duplicate(&mut self, document: &mut Document, meta: &Meta) {
        let key = (meta.kind, Arc::clone(&meta.namespace), Arc::clone(&meta.name));
        if let Some(first) = self.seen.get(&key) {
            let resource = meta.origin("").to_string();
            document.push(ParseError::Duplicate { at: meta.at.clone(), resource, first: first.clone() });
        } else {
            self.seen.insert(key, meta.at.clone());
        }
    }

    fn read_spec(&mut self, document: &mut Document, root: &Field<'_>, meta: Meta) {
        let nothing = Node { line: root.node.line, value: Value::Null };
        let spec = root.get("spec").unwrap_or_else(|| Field { node: &nothing, path: "spec".to_owned() });
        let set = &mut self.set;
        match meta.kind {
            Kind::AuthorizationPolicy => {
                set.authorization_policies.push(AuthorizationPolicy::parse(document, meta, &spec));
            }
            Kind::DestinationRule => {
                set.destination_rules.extend(DestinationRule::parse(document, meta, &spec));
            }
            Kind::PeerAuthentication => {
                set.peer_authentications.push(PeerAuthentication::parse(document, meta, &spec));
            }
            Kind::WorkloadEntry => {
                set.workload_entries.extend(WorkloadEntry::parse(document, meta, &spec));
            }
            // Not among the kinds that are read.
            Kind::Pod => {}
        }
    }
}

/// The documents of a text, each with the number of lines before it. A line that begins with `---` always
/// separates documents in YAML, also inside a scalar, so no fault in one document reaches the next.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let separates =
            line.strip_prefix("---").is_some_and(|rest| rest.trim_start() != rest || rest.is_empty());
        if separates {
            documents.push((start_line, &text[start..offset]));
            (start, start_line) = (offset, number);
        }
        offset += line.len();
    }
    documents.push((start_line, &text[start..]));
    let blank = |text: &str| text.lines().all(|line| line.trim().is_empty() || line.starts_with('#'));
    if blank(documents[0].1) {
        documents.remove(0);
    }
    documents
}

/// The tree of one document; nothing when the document is empty or, after a fault, no YAML.
fn read_tree(document: &mut Document, text: &str) -> Option<Node> {
    match serde_saphyr::from_str_with_options::<Option<Node>>(text, options()) {
        Ok(root) => root.filter(|node| !matches!(node.value, Value::Null)),
        Err(error) => {
            let line = error.location().map_or(1, |location| usize::try_from(location.line()).unwrap_or(1));
            let at = document.place(line.max(1));
            let message = DefaultMessageFormatter.format_message(error.without_snippet()).into_owned();
            document.push(ParseError::Syntax { at, message });
            None
        }
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_YAML_DEPTH,
            flow_nesting_limit: MAX_YAML_DEPTH,
            max_nodes: MAX_YAML_NODES,
            max_events: 2 * MAX_YAML_NODES,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_YAML_NODES },
        with_snippet: false,
    }
}
