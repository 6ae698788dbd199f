//! Manifests in, manifests with sidecars out: what `ringmail inject` does to a stream of YAML documents.
//!
//! A document that is no workload, or that is left as it is, keeps every byte. One that gets a sidecar is written anew,
//! without its comments. A Namespace in the stream says what holds for the workloads in it.

mod documents;
mod yaml;

use std::collections::BTreeMap;

use serde_json::Value;

use super::decide::RINGMAIL_INJECT;
use super::{Cluster, InjectConfig, Namespace, Outcome, Refusal, Request, Skip, Warning, inject, unread};
use documents::Piece;

pub use yaml::write as write_yaml;

/// What is known beside the stream.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The namespace of workloads that name none.
    pub namespace: String,
    /// Namespaces with their labels and annotations. One that is neither here nor in the stream is taken to ask for
    /// sidecars: whoever runs the command does.
    pub namespaces: Vec<Namespace>,
    /// The cluster that it is for.
    pub cluster: Cluster,
}

/// The stream as it is to be applied.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// All documents, in order.
    pub text: String,
    /// What was decided about each workload, in order.
    pub workloads: Vec<Workload>,
    /// Documents that hold something, and no object of Kubernetes, such as `document 1, line 1`.
    pub no_objects: Vec<String>,
}

/// One workload of the stream.
#[derive(Clone, Debug)]
pub struct Workload {
    /// For example `StatefulSet ignite/ignite`.
    pub name: String,
    /// What became of it.
    pub decision: Decision,
    /// Words about a sidecar that nobody can read.
    pub unread: Vec<Warning>,
}

/// What became of a workload.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It has a sidecar, with these warnings.
    Injected(Vec<Warning>),
    /// It must not be applied.
    Refused(Refusal),
    /// It is as it was.
    Skipped(Skip),
}

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("document {number}, line {line}: {fault}")]
pub struct ManifestError {
    /// Which document, from one.
    pub number: usize,
    /// The line it begins at, from one.
    pub line: usize,
    /// What is wrong.
    pub fault: String,
}

/// Puts sidecars into every workload of the stream that is to have one.
///
/// # Errors
/// [`ManifestError`] for the first document that is not YAML.
pub fn inject_manifest(
    text: &str,
    surroundings: &Surroundings,
    config: &InjectConfig,
) -> Result<Manifest, ManifestError> {
    let pieces = documents::split(text);
    let (mut parsed, mut no_objects) = (Vec::new(), Vec::new());
    let (mut number, mut line) = (0, 1);
    for piece in &pieces {
        if let Piece::Document(text) = piece {
            number += 1;
            let read = yaml::read(text).map_err(|fault| ManifestError { number, line, fault })?;
            if is_no_object(&read) {
                no_objects.push(format!("document {number}, line {line}"));
            }
            parsed.push(read);
        }
        line += piece.text().matches('\n').count();
    }
    let mut pass =
        Pass { namespaces: known(&parsed, surroundings), surroundings, config, workloads: Vec::new() };
    let mut documents = parsed.into_iter();
    let mut out = String::with_capacity(text.len());
    for piece in &pieces {
        let document = match piece {
            Piece::Document(_) => documents.next(),
            Piece::Marker(_) => None,
        };
        match document.and_then(|document| pass.object(document)) {
            Some(changed) => {
                if !out.is_empty() && !out.ends_with('\n') {
                    out.push('\n');
                }
                out.push_str(&yaml::write(&changed));
            }
            None => out.push_str(piece.text()),
        }
    }
    Ok(Manifest { text: out, workloads: pass.workloads, no_objects })
}

struct Pass<'a> {
    namespaces: BTreeMap<String, Namespace>,
    surroundings: &'a Surroundings,
    config: &'a InjectConfig,
    workloads: Vec<Workload>,
}

impl Pass<'_> {
    /// The object with sidecars; `None` where nothing of it changes.
    fn object(&mut self, mut object: Value) -> Option<Value> {
        if let Some(items) = list_items(&mut object) {
            let mut is_changed = false;
            for item in items {
                if let Some(changed) = self.object(item.clone()) {
                    *item = changed;
                    is_changed = true;
                }
            }
            return is_changed.then_some(object);
        }
        let place = template_of(&object)?;
        let kind = text(&object, "/kind").to_owned();
        let (own, name) = (text(&object, "/metadata/namespace"), text(&object, "/metadata/name").to_owned());
        let namespace = if own.is_empty() { self.surroundings.namespace.clone() } else { own.to_owned() };
        let pod = object.pointer(place)?;
        let workload = Some(name.as_str()).filter(|_| !place.is_empty());
        let known = self.namespaces.get(&namespace);
        let asked = known.cloned().unwrap_or_else(|| asking(&namespace));
        let request = Request { pod, namespace: &asked, workload, cluster: self.surroundings.cluster };
        let (decision, changed) = match inject(&request, self.config) {
            Outcome::Injected(injected) => {
                let changed = (!injected.patch.0.is_empty()).then_some(injected.pod);
                (Decision::Injected(injected.warnings), changed)
            }
            Outcome::Refused(refusal) => (Decision::Refused(refusal), None),
            Outcome::Skipped(skip) => (Decision::Skipped(skip), None),
        };
        // Whether a word counts may depend on the namespace.
        let unread = if known.is_some() { unread(&request) } else { Vec::new() };
        self.workloads.push(Workload { name: format!("{kind} {namespace}/{name}"), decision, unread });
        *object.pointer_mut(place)? = changed?;
        Some(object)
    }
}

/// Where the pod of an object is; `None` for what has none. Kinds of other groups may have the same names.
fn template_of(object: &Value) -> Option<&'static str> {
    let version = text(object, "/apiVersion");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match (group, text(object, "/kind")) {
        ("", "Pod") => Some(""),
        ("", "ReplicationController")
        | ("apps" | "extensions", "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet")
        | ("batch", "Job") => Some("/spec/template"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// `kubectl` refuses it; an empty document it passes over.
fn is_no_object(document: &Value) -> bool {
    !document.is_null() && ["/apiVersion", "/kind"].iter().any(|path| text(document, path).is_empty())
}

fn list_items(object: &mut Value) -> Option<&mut Vec<Value>> {
    let is_list = text(object, "/apiVersion") == "v1" && text(object, "/kind") == "List";
    if is_list { object.get_mut("items")?.as_array_mut() } else { None }
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Those given beside the stream win over those in it.
fn known(documents: &[Value], surroundings: &Surroundings) -> BTreeMap<String, Namespace> {
    let mut known = BTreeMap::new();
    let mut waiting: Vec<&Value> = documents.iter().collect();
    while let Some(object) = waiting.pop() {
        match text(object, "/kind") {
            "Namespace" => {
                let map = |path: &str| {
                    let map = object.pointer(path).and_then(Value::as_object).into_iter().flatten();
                    map.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
                };
                let name = text(object, "/metadata/name").to_owned();
                let (labels, annotations) = (map("/metadata/labels"), map("/metadata/annotations"));
                known.insert(name.clone(), Namespace { name, labels, annotations });
            }
            "List" => waiting.extend(object.get("items").and_then(Value::as_array).into_iter().flatten()),
            _ => {}
        }
    }
    known.extend(surroundings.namespaces.iter().map(|one| (one.name.clone(), one.clone())));
    known
}

fn asking(name: &str) -> Namespace {
    let labels = BTreeMap::from([(RINGMAIL_INJECT.to_owned(), "enabled".to_owned())]);
    Namespace { name: name.to_owned(), labels, annotations: BTreeMap::new() }
}

#[cfg(test)]
mod tests;
