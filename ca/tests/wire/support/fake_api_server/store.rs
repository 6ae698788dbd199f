//! Objects, their versions, and the events that watches are made of.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Names an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

pub(crate) fn key(resource: &str, namespace: &str, name: &str) -> Key {
    Key { resource: resource.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

/// What a path names: one object, or a collection when the name is empty.
pub(super) struct Target {
    pub(super) key: Key,
    /// A collection of all namespaces.
    everywhere: bool,
}

impl Target {
    pub(super) fn of(path: &str) -> Option<Self> {
        let parts: Vec<_> = path.split('/').skip(1).collect();
        let (["api", _, rest @ ..] | ["apis", _, _, rest @ ..]) = parts.as_slice() else { return None };
        let (key, everywhere) = match rest {
            ["namespaces"] => (key("namespaces", "", ""), false),
            ["namespaces", name] => (key("namespaces", "", name), false),
            ["namespaces", namespace, resource] => (key(resource, namespace, ""), false),
            ["namespaces", namespace, resource, name] => (key(resource, namespace, name), false),
            [resource] => (key(resource, "", ""), true),
            _ => return None,
        };
        Some(Self { key, everywhere })
    }

    pub(super) fn is_object(&self) -> bool {
        !self.key.name.is_empty()
    }

    fn holds(&self, key: &Key) -> bool {
        self.key.resource == key.resource && (self.everywhere || self.key.namespace == key.namespace)
    }
}

/// As much of a list's or watch's parameters as the CA sends.
pub(super) struct Query {
    pub(super) watch: bool,
    pub(super) version: u64,
    name: Option<String>,
    labels: String,
}

impl Query {
    pub(super) fn of(text: &str) -> Self {
        let decoded = |value: &str| {
            let value = value.replace('+', " ");
            let mut bytes = value.bytes();
            let mut text = Vec::new();
            while let Some(byte) = bytes.next() {
                if byte == b'%' {
                    let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                    text.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
                } else {
                    text.push(byte);
                }
            }
            String::from_utf8(text).unwrap()
        };
        let pairs: BTreeMap<_, _> =
            text.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k, decoded(v))).collect();
        let get = |name: &str| pairs.get(name).cloned().unwrap_or_default();
        Self {
            watch: get("watch") == "true",
            version: get("resourceVersion").parse().unwrap_or_default(),
            name: get("fieldSelector").strip_prefix("metadata.name=").map(str::to_owned),
            labels: get("labelSelector"),
        }
    }

    fn selects(&self, key: &Key, object: &Value) -> bool {
        self.name.as_ref().is_none_or(|name| *name == key.name) && selects(&self.labels, object)
    }
}

/// `label=value` and `label notin (a,b)`.
fn selects(selector: &str, object: &Value) -> bool {
    let label = |name: &str| object["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned();
    if selector.is_empty() {
        true
    } else if let Some((name, values)) = selector.split_once(" notin ") {
        let values = values.trim_matches(['(', ')']);
        !values.split(',').any(|value| value == label(name))
    } else {
        let (name, value) = selector.split_once('=').unwrap();
        label(name) == value
    }
}

struct Event {
    version: u64,
    key: Key,
    old: Option<Value>,
    new: Option<Value>,
}

/// Everything there is and was.
#[derive(Default)]
pub(super) struct Store {
    version: u64,
    objects: BTreeMap<Key, Value>,
    events: Vec<Event>,
}

impl Store {
    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    pub(super) fn put(&mut self, key: &Key, mut object: Value) {
        self.version += 1;
        let (kind, api_version) = match key.resource.as_str() {
            "secrets" => ("Secret", "v1"),
            "configmaps" => ("ConfigMap", "v1"),
            "namespaces" => ("Namespace", "v1"),
            "pods" => ("Pod", "v1"),
            "leases" => ("Lease", "coordination.k8s.io/v1"),
            other => panic!("{other} is not in this fake"),
        };
        object["kind"] = json!(kind);
        object["apiVersion"] = json!(api_version);
        object["metadata"]["name"] = json!(key.name);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        if !key.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(key.namespace);
        }
        let old = self.objects.insert(key.clone(), object.clone());
        self.events.push(Event { version: self.version, key: key.clone(), old, new: Some(object) });
    }

    pub(super) fn delete(&mut self, key: &Key) {
        self.version += 1;
        let old = self.objects.remove(key);
        assert!(old.is_some(), "{key:?} is not there");
        self.events.push(Event { version: self.version, key: key.clone(), old, new: None });
    }

    pub(super) fn list(&self, target: &Target, query: &Query) -> Value {
        let selected = |(key, object): &(&Key, &Value)| target.holds(key) && query.selects(key, object);
        let items: Vec<_> = self.objects.iter().filter(selected).map(|(_, object)| object).collect();
        json!({
            "kind": "List", "apiVersion": "v1", "items": items,
            "metadata": { "resourceVersion": self.version.to_string() },
        })
    }

    /// The events of a watch after version `seen`, and the newest version.
    pub(super) fn since(&self, target: &Target, query: &Query, seen: u64) -> (Vec<Value>, u64) {
        let events = self.events.iter().filter(|event| event.version > seen && target.holds(&event.key));
        let lines = events.filter_map(|event| {
            let selected =
                |object: &Option<Value>| object.clone().filter(|object| query.selects(&event.key, object));
            let (kind, mut object) = match (selected(&event.old), selected(&event.new)) {
                (None, None) => return None,
                (None, Some(new)) => ("ADDED", new),
                (Some(_), Some(new)) => ("MODIFIED", new),
                // As the real one does for an object that a selector no longer selects.
                (Some(old), None) => ("DELETED", event.new.clone().unwrap_or(old)),
            };
            object["metadata"]["resourceVersion"] = json!(event.version.to_string());
            Some(json!({ "type": kind, "object": object }))
        });
        (lines.collect(), self.version)
    }
}
