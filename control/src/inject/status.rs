//! What an injection leaves in the pod about itself, and the way back from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::probes::{self, AppProbes};
use super::sidecar::{INIT_CONTAINER, SIDECAR_CONTAINERS};
use super::workload::{CANONICAL_NAME, CANONICAL_REVISION, TLS_MODE};

/// The annotation that says what was added; JSON.
pub const STATUS_ANNOTATION: &str = "ringmail.io/status";

/// The same for those who look for Istio's.
const ISTIO_STATUS: &str = "sidecar.istio.io/status";

/// Which container `kubectl logs` means, where the sidecar is the first.
pub(super) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The environment variable with what the sidecar asks of the application.
pub(super) const APP_PROBES: &str = "RINGMAIL_APP_PROBES";

/// Labels that an injection adds; a status that names others is not ours.
const ADDED_LABELS: [&str; 3] = [TLS_MODE, CANONICAL_NAME, CANONICAL_REVISION];

/// No other mesh's sidecar has this variable.
const OUR_MARK: &str = "RINGMAIL_DISCOVERY";

/// The value of an environment variable for which Kubernetes leaves just this text: it expands `$(NAME)`.
pub(super) fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// What was added to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) init_containers: Vec<String>,
    pub(super) containers: Vec<String>,
    pub(super) volumes: Vec<String>,
    pub(super) labels: Vec<String>,
    /// As Istio's status has it.
    pub(super) revision: String,
}

impl Status {
    /// The annotations that say so.
    pub(super) fn annotations(&self, default_container: &Option<String>) -> Map<String, Value> {
        let text = json!(self).to_string();
        let mut annotations = Map::new();
        annotations.insert(STATUS_ANNOTATION.to_owned(), json!(text));
        annotations.insert(ISTIO_STATUS.to_owned(), json!(text));
        if let Some(container) = default_container {
            annotations.insert(DEFAULT_CONTAINER.to_owned(), json!(container));
        }
        annotations
    }

    fn of(pod: &Value) -> Option<Self> {
        let text = pod.get("metadata")?.get("annotations")?.get(STATUS_ANNOTATION)?.as_str()?;
        serde_json::from_str(text).ok()
    }
}

/// A sidecar of ours that is in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// The name of its container.
    pub container: String,
    /// Its image.
    pub image: String,
    /// The version of the injector that put it there.
    pub version: String,
    /// Whether it is a native one: an init container that goes on running.
    pub native: bool,
    /// Its settings by the names of their environment variables, without those that are taken from the pod.
    pub environment: BTreeMap<String, String>,
    /// The arguments of `ringmail-init`: which of the pod's traffic is captured.
    pub capture: Vec<String>,
}

/// The sidecar that an injection has put into a pod; nothing where there is none of ours.
pub fn sidecar_of(pod: &Value) -> Option<Sidecar> {
    let status = Status::of(pod)?;
    let text = |container: &Value, key: &str| {
        container.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let lists = [("initContainers", &status.init_containers), ("containers", &status.containers)];
    let (mut found, mut capture) = (None, Vec::new());
    for (key, names) in lists {
        for container in pod.get("spec")?.get(key).and_then(Value::as_array).into_iter().flatten() {
            let name = text(container, "name");
            if !names.contains(&name) || !is_ours(&name, container) {
                continue;
            }
            if name == INIT_CONTAINER {
                let arguments = container.get("args").and_then(Value::as_array).into_iter().flatten();
                capture = arguments.filter_map(|argument| Some(argument.as_str()?.to_owned())).collect();
            } else {
                found = Some((name, text(container, "image"), key == "initContainers", variables(container)));
            }
        }
    }
    let (container, image, native, environment) = found?;
    Some(Sidecar { container, image, version: status.version, native, environment, capture })
}

fn variables(container: &Value) -> BTreeMap<String, String> {
    let entries = container.get("env").and_then(Value::as_array).into_iter().flatten();
    let pair = |entry: &Value| {
        Some((entry.get("name")?.as_str()?.to_owned(), entry.get("value")?.as_str()?.replace("$$", "$")))
    };
    entries.filter_map(pair).collect()
}

/// Leads a pod back to what it was before it was injected; whether it was. Named ports of probes stay numbers.
///
/// Only what says of itself that it is ours is taken out: another mesh's containers stay, whatever the annotation says.
pub fn uninject(pod: &mut Value) -> bool {
    let Some(status) = Status::of(pod) else { return false };
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return false };
    let mut asked = AppProbes::new();
    let mut removed = Vec::new();
    for (key, names) in [("initContainers", &status.init_containers), ("containers", &status.containers)] {
        take(spec, key, |container| {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            if !names.iter().any(|named| named == name) || !is_ours(name, container) {
                return false;
            }
            if let Some(text) = variable(container, APP_PROBES) {
                asked.extend(serde_json::from_str::<AppProbes>(&text.replace("$$", "$")).unwrap_or_default());
            }
            removed.push(name.to_owned());
            true
        });
    }
    if removed.is_empty() {
        return false;
    }
    take(spec, "volumes", |volume| {
        let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
        status.volumes.iter().any(|named| named == name)
    });
    probes::restore(pod, &asked);
    let sidecar_first = !status.containers.is_empty();
    restore_metadata(pod, &status, sidecar_first);
    true
}

fn restore_metadata(pod: &mut Value, status: &Status, sidecar_first: bool) {
    let first = pod.pointer("/spec/containers/0/name").cloned();
    let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.retain(|name, _| !(status.labels.contains(name) && ADDED_LABELS.contains(&name.as_str())));
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(STATUS_ANNOTATION);
        annotations.remove(ISTIO_STATUS);
        if sidecar_first && annotations.get(DEFAULT_CONTAINER) == first.as_ref() {
            annotations.remove(DEFAULT_CONTAINER);
        }
    }
    for key in ["labels", "annotations"] {
        if metadata.get(key).and_then(Value::as_object).is_some_and(Map::is_empty) {
            metadata.remove(key);
        }
    }
}

/// Takes out the entries of a list that `is_taken` names, and the list with its last one.
fn take(spec: &mut Map<String, Value>, key: &str, mut is_taken: impl FnMut(&Value) -> bool) {
    let Some(list) = spec.get_mut(key).and_then(Value::as_array_mut) else { return };
    list.retain(|entry| !is_taken(entry));
    if list.is_empty() {
        spec.remove(key);
    }
}

fn is_ours(name: &str, container: &Value) -> bool {
    name == INIT_CONTAINER || SIDECAR_CONTAINERS.contains(&name) && variable(container, OUR_MARK).is_some()
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let environment = container.get("env")?.as_array()?;
    let found = environment.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))?;
    found.get("value")?.as_str()
}
