//! Policies from files, taken as if they had been applied to the cluster.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::api::DynamicObject;
use ringmail_policy::{Kind, MAX_TEXT_BYTES, Resources};
use serde_json::{Value, json};

/// Faults of the files that are listed: more than a screen helps nobody.
const FAULTS_SHOWN: usize = 20;

/// Objects as somebody wants to apply them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Supposed {
    objects: Vec<DynamicObject>,
}

impl Supposed {
    /// Reads files, `-` for standard input, and the `*.yaml`, `*.yml` and `*.json` of directories. Objects without a
    /// namespace are for `namespace`, as with kubectl.
    pub(crate) fn read(paths: &[PathBuf], namespace: &str) -> Result<Self> {
        let mut texts = Vec::new();
        for path in paths {
            texts.extend(texts_of(path)?);
        }
        Self::parse(&texts, namespace)
    }

    /// Reads pairs of a name and a text.
    pub(crate) fn parse(texts: &[(String, String)], namespace: &str) -> Result<Self> {
        let resources = Resources::parse(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        if let Err(faults) = resources {
            let lines: Vec<_> = faults.iter().take(FAULTS_SHOWN).map(|fault| format!("  {fault}")).collect();
            bail!("the files are refused:\n{}", lines.join("\n"));
        }
        let mut objects = Vec::new();
        for (name, text) in texts {
            let documents: Vec<Value> = serde_saphyr::from_multiple(text)
                .with_context(|| format!("{name}: expected YAML documents"))?;
            for document in documents {
                collect(document, namespace, &mut objects).with_context(|| name.clone())?;
            }
        }
        if objects.is_empty() && !texts.is_empty() {
            let kinds: Vec<_> = Kind::READ.iter().map(|kind| kind.as_str()).collect();
            bail!("the files hold no policy; expected at least one {}", kinds.join(", "));
        }
        Ok(Self { objects })
    }

    /// Puts them among the cluster's, in the place of those of the same name. Says what changes.
    pub(crate) fn apply(&self, cluster: &mut Vec<DynamicObject>) -> Vec<String> {
        let mut told = Vec::new();
        for object in &self.objects {
            let mut object = object.clone();
            let there = cluster.iter().position(|other| key(other) == key(&object));
            let what = match there {
                Some(place) => {
                    // Applying an object makes it no younger.
                    let other = cluster.remove(place);
                    let unchanged = other.data.get("spec") == object.data.get("spec");
                    object.metadata.creation_timestamp = other.metadata.creation_timestamp;
                    object.metadata.uid = other.metadata.uid;
                    if unchanged { "as it is in the cluster" } else { "in place of the cluster's" }
                }
                None => "new",
            };
            let (_, kind, namespace, name) = key(&object);
            told.push(format!("{kind} {namespace}/{name} ({what})"));
            cluster.push(object);
        }
        told
    }
}

/// Group, kind, namespace and name.
fn key(object: &DynamicObject) -> (String, String, String, String) {
    let types = object.types.clone().unwrap_or_default();
    let group = types.api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    (group, types.kind, text(&object.metadata.namespace), text(&object.metadata.name))
}

/// The policies among the objects of a document; a List holds several.
fn collect(mut document: Value, namespace: &str, objects: &mut Vec<DynamicObject>) -> Result<()> {
    if document["kind"] == "List" {
        let items = document["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        return items.into_iter().try_for_each(|item| collect(item, namespace, objects));
    }
    let group = document["apiVersion"].as_str().and_then(|version| version.split_once('/'));
    let group = group.map_or("", |(group, _)| group);
    if !Kind::READ.iter().any(|kind| document["kind"] == kind.as_str() && kind.group() == group) {
        return Ok(());
    }
    if let Some(metadata) = document["metadata"].as_object_mut() {
        let own = metadata.entry("namespace").or_insert(Value::Null);
        if own.as_str().is_none_or(str::is_empty) {
            *own = json!(namespace);
        }
    }
    objects.push(serde_json::from_value(document).context("expected an object of Kubernetes")?);
    Ok(())
}

fn texts_of(path: &Path) -> Result<Vec<(String, String)>> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        let limit = MAX_TEXT_BYTES as u64 + 1;
        io::stdin().lock().take(limit).read_to_string(&mut text).context("standard input")?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let name = |path: &Path| path.display().to_string();
    let read = |path: &Path| -> Result<(String, String)> {
        let size = fs::metadata(path).with_context(|| name(path))?.len();
        if size > MAX_TEXT_BYTES as u64 {
            bail!("{}: {size} bytes, expected at most {MAX_TEXT_BYTES}", name(path));
        }
        Ok((name(path), fs::read_to_string(path).with_context(|| name(path))?))
    };
    if !path.is_dir() {
        return Ok(vec![read(path)?]);
    }
    manifests_in(path)?.iter().map(|file| read(file)).collect()
}

/// The `*.yaml`, `*.yml` and `*.json` of a directory by name, as kubectl takes them.
pub(crate) fn manifests_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let name = || directory.display().to_string();
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(name)? {
        let file = entry.with_context(name)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("json" | "yaml" | "yml")) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                          metadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n";

    fn supposed(text: &str) -> Result<Supposed> {
        Supposed::parse(&[("a.yaml".to_owned(), text.to_owned())], "ignite")
    }

    #[test]
    fn an_object_takes_the_place_and_the_age_of_the_clusters() {
        let mut cluster: Vec<DynamicObject> = vec![
            serde_json::from_value(json!({
                "apiVersion": "security.istio.io/v1beta1", "kind": "PeerAuthentication",
                "metadata": {"name": "default", "namespace": "ignite", "creationTimestamp": "2024-01-01T00:00:00Z"},
                "spec": {"mtls": {"mode": "DISABLE"}},
            }))
            .unwrap(),
        ];
        let text = format!("---\n{STRICT}---\n{}", STRICT.replace("default", "other"));
        let told = supposed(&text).unwrap().apply(&mut cluster);
        assert_eq!(
            told,
            [
                "PeerAuthentication ignite/default (in place of the cluster's)",
                "PeerAuthentication ignite/other (new)"
            ]
        );
        assert_eq!(cluster.len(), 2);
        assert_eq!(cluster[0].data["spec"]["mtls"]["mode"], "STRICT");
        assert!(cluster[0].metadata.creation_timestamp.is_some());
    }

    #[test]
    fn lists_are_opened_and_other_kinds_passed_over() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n\
                    - {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: b}}\n";
        let mut cluster = Vec::new();
        assert_eq!(supposed(text).unwrap().apply(&mut cluster), ["PeerAuthentication b/a (new)"]);
    }

    #[test]
    fn a_fault_is_named_with_file_and_line_and_files_without_policy_are_told() {
        let error = supposed(&STRICT.replace("STRICT", "SOMETIMES")).unwrap_err().to_string();
        assert!(error.contains("a.yaml: document 1, line 4: spec.mtls.mode"), "{error}");
        let error = supposed("foo\n").unwrap_err().to_string();
        assert!(error.contains("a.yaml: document 1, line 1: expected "), "{error}");
        let error = supposed("kind: Pod\napiVersion: v1\nmetadata: {name: a}\n").unwrap_err().to_string();
        assert!(error.starts_with("the files hold no policy"), "{error}");
    }
}
