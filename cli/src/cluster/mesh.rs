//! The mesh as `ringmail-control` sees it: the cluster's objects, its settings, and what follows from both.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use ringmail_control::discovery::DiscoveryConfig;
use ringmail_control::discovery::snapshot::{Listed, Objects, Snapshot};
use ringmail_control::inject::InjectConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{ClusterError, Connection, Supposed};

/// The ConfigMap with control's file, and the key in it.
const CONFIG_MAP: &str = "ringmail";
const CONFIG_KEY: &str = "config.yaml";

/// What a setting is known by.
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Control's file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MeshFile {
    pub(crate) injection: InjectConfig,
    pub(crate) discovery: DiscoveryConfig,
}

/// See the module.
pub(crate) struct Mesh {
    pub(crate) place: String,
    pub(crate) objects: Objects,
    pub(crate) snapshot: Snapshot,
    pub(crate) injection: InjectConfig,
    /// Whether control's ConfigMap is there, or at least not known to be absent.
    pub(crate) is_installed: bool,
    /// What was taken as if it had been applied.
    pub(crate) supposed: Vec<String>,
    /// What the answer does not rest on, because it could not be seen.
    pub(crate) unseen: Vec<String>,
}

impl Mesh {
    /// Asks for everything.
    pub(crate) async fn read(
        connection: &Connection,
        mesh_namespace: &str,
        supposed: &Supposed,
    ) -> Result<Self, ClusterError> {
        let place = &connection.place;
        let mut unseen = Vec::new();
        let file = settings(connection, mesh_namespace, &mut unseen).await?;
        let is_installed = file.is_some();
        let file = file.unwrap_or_default();
        let listed = Listed::read(&connection.client).await.map_err(|error| {
            ClusterError::api(place, format!("list {} of all namespaces", error.resource), &error.error)
        })?;
        unseen.extend(listed.hidden.iter().map(|hidden| {
            let resource = &hidden.resource;
            format!("{resource} may not be listed: unknown addresses count as outside the cluster unless meshRanges names them")
        }));
        let map = format!("{mesh_namespace}/{CONFIG_MAP}");
        let mut mesh = Self::new(file, listed.objects, supposed).map_err(|cause| ClusterError::Settings {
            place: place.clone(),
            map,
            cause,
        })?;
        mesh.place.clone_from(place);
        mesh.unseen = unseen;
        mesh.is_installed = is_installed;
        Ok(mesh)
    }

    /// What follows from these objects and settings; the error names the setting.
    pub(crate) fn new(file: MeshFile, mut objects: Objects, supposed: &Supposed) -> Result<Self, String> {
        let supposed = supposed.apply(&mut objects.policies);
        let cluster = file.discovery.cluster.clone();
        let settings = file.discovery.settings("", "").map_err(|error| error.to_string())?;
        let snapshot = Snapshot::new(settings.policy, &cluster, &objects);
        let place = "the cluster".to_owned();
        let injection = file.injection;
        Ok(Self { place, objects, snapshot, injection, is_installed: true, supposed, unseen: Vec::new() })
    }

    /// The pod of this name.
    ///
    /// # Errors
    /// [`ClusterError::NoPod`] with the names there are.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Result<&Pod, ClusterError> {
        let is_own = |pod: &&Pod| pod.metadata.namespace.as_deref() == Some(namespace);
        let own = || self.objects.pods.iter().filter(is_own);
        let found = own().find(|pod| pod.metadata.name.as_deref() == Some(name));
        found.ok_or_else(|| ClusterError::NoPod {
            place: self.place.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            names: own().filter_map(|pod| pod.metadata.name.clone()).collect(),
        })
    }
}

/// Defaults hold where the ConfigMap may not be read or says nothing; that is told. Nothing where it is not there.
async fn settings(
    connection: &Connection,
    namespace: &str,
    unseen: &mut Vec<String>,
) -> Result<Option<MeshFile>, ClusterError> {
    let (place, name) = (&connection.place, format!("{namespace}/{CONFIG_MAP}"));
    let api: Api<ConfigMap> = Api::namespaced(connection.client.clone(), namespace);
    let (file, why) = match api.get(CONFIG_MAP).await {
        Ok(map) => match map.data.as_ref().and_then(|data| data.get(CONFIG_KEY)) {
            Some(text) => {
                let (file, unknown) = parse(text).map_err(|cause| ClusterError::Settings {
                    place: place.clone(),
                    map: name.clone(),
                    cause,
                })?;
                unseen.extend(unknown.iter().map(|setting| {
                    format!(
                        "ConfigMap {name}: this ringmail is of version {OWN_VERSION} and does not know the setting \
                         {setting}; what it does is not in this answer"
                    )
                }));
                return Ok(Some(file));
            }
            None => (Some(MeshFile::default()), format!("has no key {CONFIG_KEY}")),
        },
        Err(kube::Error::Api(status)) if status.code == 404 => {
            (None, "is not there: is Ringmail installed (--mesh-namespace)?".to_owned())
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            (Some(MeshFile::default()), "may not be read".to_owned())
        }
        Err(error) => return Err(ClusterError::api(place, format!("get configmap {name}"), &error)),
    };
    unseen.push(format!("ConfigMap {name} {why}; the settings' defaults are taken"));
    Ok(file)
}

/// The settings, and the names of those that this version does not know: control may be of another.
fn parse(text: &str) -> Result<(MeshFile, Vec<String>), String> {
    if let Ok(file) = serde_saphyr::from_str::<Option<MeshFile>>(text) {
        return Ok((file.unwrap_or_default(), Vec::new()));
    }
    let mut file: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut unknown = Vec::new();
    for (part, is_unknown) in [
        ("injection", is_refused::<InjectConfig> as fn(Value) -> bool),
        ("discovery", is_refused::<DiscoveryConfig>),
    ] {
        let Some(settings) = file.get_mut(part).and_then(Value::as_object_mut) else { continue };
        settings.retain(|name, value| {
            let is_known = !is_unknown(json!({name: value}));
            if !is_known {
                unknown.push(format!("{part}.{name}"));
            }
            is_known
        });
    }
    let file: Option<MeshFile> = serde_json::from_value(file).map_err(|error| error.to_string())?;
    Ok((file.unwrap_or_default(), unknown))
}

/// Whether a mapping of one setting is refused for its name, whatever its value.
fn is_refused<T: DeserializeOwned>(setting: Value) -> bool {
    let Err(error) = serde_json::from_value::<T>(setting) else { return false };
    let text = error.to_string();
    text.contains("there is no such setting") || text.starts_with("unknown field")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_only_another_version_knows_is_named_and_the_others_hold() {
        let text = "injection: {nosuchkey: {a: 1}, trust_domain: grid.example}\n\
                    discovery: {rootNamespace: mesh, nosuch: 1}\nelse: 1\n";
        let (file, unknown) = parse(text).unwrap();
        assert_eq!(unknown, ["injection.nosuchkey", "discovery.nosuch"]);
        assert_eq!(
            (&*file.injection.trust_domain, &*file.discovery.root_namespace),
            ("grid.example", "mesh")
        );
    }

    #[test]
    fn a_value_that_cannot_be_read_is_a_fault_and_an_empty_file_is_the_defaults() {
        let fault = parse("injection: {log_format: xml, nosuchkey: 1}").unwrap_err();
        assert_eq!(fault, "injection.log_format: \"xml\": expected text or json");
        assert!(parse("discovery: {listen: nowhere}").is_err());
        for text in ["", "{}", "# nothing\n", "injection:\n"] {
            let (file, unknown) = parse(text).unwrap();
            assert_eq!((file.injection, unknown.len()), (InjectConfig::default(), 0), "{text:?}");
        }
    }
}
