//! What stands around a resource's `spec`: `apiVersion`, `kind` and `metadata`.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::origin::Kind;
use crate::parse::{Document, Field};
use crate::report::Report;
use crate::resource::{Labels, Meta};

/// The namespace of a resource that names none, as for everything that is applied to Kubernetes.
const DEFAULT_NAMESPACE: &str = "default";

/// What a document turned out to be.
pub(super) enum Read<'a> {
    Kind(Kind),
    /// The items of a `v1` List, as `kubectl get -o yaml` prints it.
    List(Field<'a>),
    Unsupported(Report),
}

/// The kind of a document; nothing after a fault.
pub(super) fn kind<'a>(document: &mut Document, root: &Field<'a>) -> Option<Read<'a>> {
    root.entries(document);
    let text = |document: &mut Document, key: &str| {
        let field = root.get(key);
        if field.is_none() {
            document.fault(root, format!("a field {key}"), root.node.value.describe());
        }
        field.and_then(|field| field.required_text(document))
    };
    let (version, kind) = (text(document, "apiVersion"), text(document, "kind"));
    let (version, kind) = (version?, kind?);
    if (version, kind) == ("v1", "List") {
        return root.get("items").map(Read::List);
    }
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let known = Kind::READ.into_iter().find(|known| known.as_str() == kind && known.group() == group);
    Some(known.map_or_else(|| Read::Unsupported(unsupported(document, root, version, kind)), Read::Kind))
}

fn unsupported(document: &Document, root: &Field<'_>, version: &str, kind: &str) -> Report {
    let member = |key: &str| match root.get("metadata").and_then(|meta| meta.get(key)).map(|f| &f.node.value)
    {
        Some(super::Value::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let at = document.place(root.node.line);
    Report {
        kind: kind.to_owned(),
        namespace: member("namespace"),
        name: member("name"),
        source: at.source.to_string(),
        line: at.line,
        path: String::new(),
        text: format!("ignored: {kind} of {version} has no meaning here"),
    }
}

/// The metadata of a resource; nothing after a fault that leaves it without a name.
pub(super) fn meta(document: &mut Document, root: &Field<'_>, kind: Kind, position: usize) -> Option<Meta> {
    let Some(metadata) = root.get("metadata") else {
        document.fault(root, "a field metadata", "none");
        return None;
    };
    let mut meta = Meta {
        kind,
        namespace: DEFAULT_NAMESPACE.into(),
        name: "".into(),
        labels: Labels::new(),
        annotations: Labels::new(),
        created: None,
        position,
        at: document.place(root.node.line),
    };
    // Everything else in the metadata is the API server's own book-keeping.
    for (key, field) in metadata.entries(document) {
        match key {
            "name" => meta.name = field.required_text(document).unwrap_or_default().into(),
            "namespace" => {
                if let Some(namespace) = field.text(document).filter(|text| !text.is_empty()) {
                    meta.namespace = namespace.into();
                }
            }
            "labels" => meta.labels = field.labels(document),
            "annotations" => meta.annotations = field.labels(document),
            "creationTimestamp" => meta.created = created(document, &field),
            _ => {}
        }
    }
    if metadata.get("name").is_none() {
        document.fault(&metadata, "a field name", "none");
    }
    (!meta.name.is_empty()).then_some(meta)
}

fn created(document: &mut Document, field: &Field<'_>) -> Option<OffsetDateTime> {
    let text = field.text(document)?;
    let created = OffsetDateTime::parse(text, &Rfc3339).ok();
    if created.is_none() {
        document.fault(field, "a time such as 2024-05-01T12:00:00Z", format!("{text:?}"));
    }
    created
}
