//! The name of what a pod belongs to, and the labels that metrics and graphs group by.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub(super) const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
pub(super) const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
pub(super) const TLS_MODE: &str = "security.istio.io/tlsMode";

/// The longest value that a label can have.
const MAX_LABEL: usize = 63;

/// The object that controls a pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Its group and version.
    #[serde(default)]
    pub api_version: String,
    /// Its kind.
    #[serde(default)]
    pub kind: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its unique id.
    #[serde(default)]
    pub uid: String,
    #[serde(default)]
    controller: Option<bool>,
}

/// The controlling owner, if the pod has one.
pub fn controller_of(pod: &Value) -> Option<Owner> {
    let owners = pod.pointer("/metadata/ownerReferences")?.as_array()?;
    owners
        .iter()
        .filter_map(|owner| Owner::deserialize(owner).ok())
        .find(|owner| owner.controller == Some(true))
}

/// The workload's name: the Deployment behind a ReplicaSet, the CronJob behind a Job, else the owner, else the pod.
pub fn workload_of(pod: &Value) -> String {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let Some(owner) = controller_of(pod) else {
        let name = text("/metadata/name");
        let generated = text("/metadata/generateName").trim_end_matches('-');
        return if name.is_empty() { generated.to_owned() } else { name.to_owned() };
    };
    let hash = text("/metadata/labels/pod-template-hash");
    let without = match owner.kind.as_str() {
        "ReplicaSet" if !hash.is_empty() => {
            owner.name.strip_suffix(hash).and_then(|name| name.strip_suffix('-'))
        }
        "Job" => owner.name.rsplit_once('-').filter(|(_, minute)| is_scheduled(minute)).map(|(name, _)| name),
        _ => None,
    };
    without.filter(|name| !name.is_empty()).unwrap_or(&owner.name).to_owned()
}

/// A CronJob names its Jobs by the time they are for, in minutes since 1970; seconds in older versions.
fn is_scheduled(minute: &str) -> bool {
    (8..=10).contains(&minute.len()) && minute.bytes().all(|byte| byte.is_ascii_digit())
}

/// The labels that Istio's injector adds, where the pod does not have them.
pub(super) fn added_labels(
    labels: &BTreeMap<String, String>,
    workload: &str,
) -> BTreeMap<&'static str, String> {
    let first = |names: [&str; 2]| names.iter().find_map(|name| labels.get(*name)).cloned();
    let name = first(["app.kubernetes.io/name", "app"]).unwrap_or_else(|| as_label(workload));
    let revision = first(["app.kubernetes.io/version", "version"]).unwrap_or_else(|| "latest".to_owned());
    let mut added = BTreeMap::from([
        (TLS_MODE, "istio".to_owned()),
        (CANONICAL_NAME, name),
        (CANONICAL_REVISION, revision),
    ]);
    added.retain(|name, value| !labels.contains_key(*name) && !value.is_empty());
    added
}

/// A name may be longer than a label's value, and must not end in a sign then.
fn as_label(name: &str) -> String {
    let cut: String = name.chars().take(MAX_LABEL).collect();
    cut.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_workload_is_named_by_what_a_person_created() {
        let owned = |kind: &str, name: &str, labels: Value| {
            json!({"metadata": {"name": "x", "labels": labels, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "other"},
                {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}]}})
        };
        let hash = json!({"pod-template-hash": "5d8f"});
        for (pod, expected) in [
            (owned("ReplicaSet", "web-5d8f", hash.clone()), "web"),
            (owned("ReplicaSet", "web-5d8f", json!({})), "web-5d8f"),
            (owned("ReplicaSet", "-5d8f", hash), "-5d8f"),
            (owned("StatefulSet", "ignite", json!({})), "ignite"),
            (owned("Job", "backup-29384756", json!({})), "backup"),
            (owned("Job", "backup-2", json!({})), "backup-2"),
            (json!({"metadata": {"name": "lonely"}}), "lonely"),
            (json!({"metadata": {"generateName": "many-"}}), "many"),
            (json!({"metadata": {"ownerReferences": 7}}), ""),
            (json!(7), ""),
        ] {
            assert_eq!(workload_of(&pod), expected, "{pod}");
        }
    }

    #[test]
    fn canonical_labels_follow_istios_order_and_never_replace() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        for (given, name, revision) in [
            (labels(&[]), Some("ignite"), Some("latest")),
            (labels(&[("app", "a")]), Some("a"), Some("latest")),
            (labels(&[("app", "a"), ("app.kubernetes.io/name", "k")]), Some("k"), Some("latest")),
            (labels(&[("version", "2"), ("app.kubernetes.io/version", "3")]), Some("ignite"), Some("3")),
            (labels(&[(CANONICAL_NAME, "c"), (CANONICAL_REVISION, "r"), (TLS_MODE, "disabled")]), None, None),
        ] {
            let added = added_labels(&given, "ignite");
            assert_eq!(added.get(CANONICAL_NAME).map(String::as_str), name, "{given:?}");
            assert_eq!(added.get(CANONICAL_REVISION).map(String::as_str), revision, "{given:?}");
        }
        assert_eq!(as_label(&format!("{}-x", "a".repeat(62))), "a".repeat(62));
    }
}
