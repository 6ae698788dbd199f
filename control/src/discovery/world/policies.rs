//! Policies as objects come and go: each is read by itself, and one that cannot be read leaves its last good version in
//! force.

use std::{collections::HashMap, sync::Arc};

use ringmail_policy::{Kind, ParseError, Report, Resources};
use serde_json::{Value, json};

use super::{Age, ObjectKey};

/// Which object of which kind.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct PolicyKey {
    pub(crate) kind: Kind,
    pub(crate) object: ObjectKey,
}

/// An object as it came from the API server.
#[derive(Clone, Debug)]
pub(crate) struct PolicyObject {
    pub(crate) uid: String,
    pub(crate) api_version: String,
    pub(crate) age: Age,
    /// With `apiVersion`, `kind`, `metadata` and `spec`.
    pub(crate) json: Value,
}

/// What an object's author should know, and what it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Notice {
    pub(crate) key: PolicyKey,
    pub(crate) uid: String,
    pub(crate) api_version: String,
    /// Whether the object could not be read at all.
    pub(crate) fault: bool,
    pub(crate) texts: Vec<String>,
}

#[derive(Debug)]
struct Held {
    parsed: Arc<Resources>,
    uid: String,
    notice: Option<Notice>,
}

/// Every policy of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    held: HashMap<PolicyKey, Held>,
}

/// What was in force before, and what is now.
pub(super) struct Change {
    pub(super) before: Option<Arc<Resources>>,
    pub(super) after: Option<Arc<Resources>>,
}

impl Policies {
    pub(super) fn put(&mut self, key: &PolicyKey, object: Option<&PolicyObject>) -> Change {
        let before = self.held.remove(key);
        let Some(object) = object else {
            return Change { before: before.map(|held| held.parsed), after: None };
        };
        let (parsed, notice) = read(key, object, before.as_ref());
        let after = Some(Arc::clone(&parsed));
        let held = Held { parsed, uid: object.uid.clone(), notice };
        self.held.insert(key.clone(), held);
        Change { before: before.map(|held| held.parsed), after }
    }

    /// The set in force, without WorkloadEntries: those are workloads.
    pub(super) fn merged(&self) -> Resources {
        let policies = self.held.iter().filter(|(key, _)| key.kind != Kind::WorkloadEntry);
        Resources::merge(policies.map(|(_, held)| &*held.parsed))
    }

    pub(super) fn entry(&self, key: &ObjectKey) -> Option<&Resources> {
        let key = PolicyKey { kind: Kind::WorkloadEntry, object: key.clone() };
        Some(&self.held.get(&key)?.parsed)
    }

    pub(crate) fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.held.values().filter_map(|held| held.notice.as_ref())
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}

fn read(key: &PolicyKey, object: &PolicyObject, before: Option<&Held>) -> (Arc<Resources>, Option<Notice>) {
    let notice = |fault, texts: Vec<String>| Notice {
        key: key.clone(),
        uid: object.uid.clone(),
        api_version: object.api_version.clone(),
        fault,
        texts,
    };
    match parse(&object.json) {
        Ok(parsed) => {
            let texts: Vec<_> = parsed.reports().iter().map(report_text).collect();
            let told = (!texts.is_empty()).then(|| notice(false, texts));
            (Arc::new(parsed), told)
        }
        Err(faults) => {
            let mut texts: Vec<String> = faults.iter().map(fault_text).collect();
            // An object of the same name that was deleted and made anew is not an older version of this one.
            let good = before.filter(|held| held.uid == object.uid);
            let parsed = match (good, key.kind) {
                (Some(good), _) => {
                    texts.push("what the object said before stays in force".to_owned());
                    Arc::clone(&good.parsed)
                }
                (None, Kind::AuthorizationPolicy) => {
                    let (parsed, text) = closed(&object.json);
                    texts.push(text.to_owned());
                    Arc::new(parsed)
                }
                (None, Kind::PeerAuthentication) => {
                    let (parsed, text) = strict(&object.json);
                    texts.push(text.to_owned());
                    Arc::new(parsed)
                }
                (None, Kind::DestinationRule | Kind::Pod | Kind::WorkloadEntry) => {
                    texts.push("the object is left out".to_owned());
                    Arc::default()
                }
            };
            (parsed, Some(notice(true, texts)))
        }
    }
}

/// JSON is YAML.
fn parse(json: &Value) -> Result<Resources, Vec<ParseError>> {
    Resources::parse([("api server", &*json.to_string())])
}

/// The field first: the place is one line of JSON.
fn fault_text(fault: &ParseError) -> String {
    match fault {
        ParseError::Field { path, expected, read, .. } => format!("{path}: expected {expected}, read {read}"),
        ParseError::Limit { what, limit, .. } => format!("expected at most {limit} {what}"),
        ParseError::Duplicate { .. } | ParseError::Syntax { .. } => fault.to_string(),
    }
}

/// The field first, as for a fault.
fn report_text(report: &Report) -> String {
    if report.path.is_empty() { report.text.clone() } else { format!("{}: {}", report.path, report.text) }
}

/// The same object with another spec.
fn with_spec(json: &Value, annotations: &Value, spec: Value) -> Value {
    let metadata = &json["metadata"];
    json!({
        "apiVersion": json["apiVersion"],
        "kind": json["kind"],
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "creationTimestamp": metadata["creationTimestamp"],
            "annotations": annotations,
        },
        "spec": spec,
    })
}

/// What of a PeerAuthentication can be read holds; else what it selects is served in mutual TLS alone: a missing one
/// would mean plaintext where there was to be none.
fn strict(json: &Value) -> (Resources, &'static str) {
    let (selector, mtls) = (&json["spec"]["selector"], &json["spec"]["mtls"]);
    let of = |spec: Value| parse(&with_spec(json, &Value::Null, spec)).ok();
    let written = of(json!({ "selector": selector, "mtls": mtls }))
        .map(|parsed| (parsed, "until it can be read, spec.mtls holds for every port of what it selects"));
    let selected = || {
        let parsed = of(json!({ "selector": selector, "mtls": { "mode": "STRICT" } }))?;
        Some((parsed, "until it can be read, STRICT holds for what it selects"))
    };
    let all = || {
        let parsed = of(json!({ "mtls": { "mode": "STRICT" } }))?;
        Some((parsed, "until it can be read, STRICT holds for its namespace"))
    };
    written.or_else(selected).or_else(all).unwrap_or_else(|| (Resources::default(), "the object is left out"))
}

/// A policy that cannot be read denies what it selects: a missing one would mean "allow".
fn closed(json: &Value) -> (Resources, &'static str) {
    let deny = |selector: &Value, annotations: &Value| {
        with_spec(json, annotations, json!({ "action": "DENY", "selector": selector, "rules": [{}] }))
    };
    let (selector, annotations) = (&json["spec"]["selector"], &json["metadata"]["annotations"]);
    let tries = [
        (
            deny(selector, annotations),
            "until it can be read, all connections to the pods that it selects are denied",
        ),
        (
            deny(&Value::Null, annotations),
            "until it can be read, all connections to its namespace are denied",
        ),
        (
            deny(&Value::Null, &Value::Null),
            "until it can be read, all connections to its namespace are denied",
        ),
    ];
    let read = tries.iter().find_map(|(json, text)| Some((parse(json).ok()?, *text)));
    read.unwrap_or_else(|| (Resources::default(), "the object is left out"))
}
