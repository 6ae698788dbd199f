//! A pod as it is read: typed where it is looked at, raw JSON where it is changed, so that no field that this code
//! does not know is lost.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Refusal;

/// The part that says who asks for a sidecar; read before anything else, so that a pod that nobody asked about is
/// left alone whatever the rest of it holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Meta {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct RawMeta {
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Meta {
    pub(super) fn read(pod: &Value) -> Result<Self, Refusal> {
        let raw = match pod.get("metadata") {
            None | Some(Value::Null) => RawMeta::default(),
            Some(metadata) => RawMeta::deserialize(metadata).map_err(not_a_pod)?,
        };
        Ok(Self { labels: raw.labels.unwrap_or_default(), annotations: raw.annotations.unwrap_or_default() })
    }
}

/// A pod whose spec is there.
pub(super) struct TypedPod {
    pub(super) meta: Meta,
    pub(super) spec: PodSpec,
}

impl TypedPod {
    /// Init containers, then the others.
    pub(super) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers().iter().chain(&self.spec.containers)
    }

    pub(super) fn init_containers(&self) -> &[Container] {
        self.spec.init_containers.as_deref().unwrap_or_default()
    }
}

pub(super) fn read(pod: &Value) -> Result<TypedPod, Refusal> {
    let meta = Meta::read(pod)?;
    let typed = Pod::deserialize(pod).map_err(not_a_pod)?;
    let spec = typed.spec.ok_or_else(|| Refusal::NotAPod { fault: "there is no spec".to_owned() })?;
    if spec.containers.is_empty() {
        return Err(Refusal::NotAPod { fault: "spec.containers is empty".to_owned() });
    }
    Ok(TypedPod { meta, spec })
}

/// The mapping under `key`, made where there is none.
pub(super) fn mapping<'a>(parent: &'a mut Value, key: &str) -> Result<&'a mut Map<String, Value>, Refusal> {
    let place = parent.as_object_mut().map(|parent| parent.entry(key).or_insert(Value::Null));
    let Some(place) = place else { return Err(not_a(key, "a mapping")) };
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut().ok_or_else(|| not_a(key, "a mapping"))
}

/// The list under `key`, made where there is none.
pub(super) fn list<'a>(parent: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>, Refusal> {
    let place = parent.entry(key).or_insert(Value::Null);
    if place.is_null() {
        *place = Value::Array(Vec::new());
    }
    place.as_array_mut().ok_or_else(|| not_a(key, "a list"))
}

fn not_a(key: &str, expected: &str) -> Refusal {
    Refusal::NotAPod { fault: format!("{key} is not {expected}") }
}

fn not_a_pod(error: serde_json::Error) -> Refusal {
    Refusal::NotAPod { fault: error.to_string() }
}
