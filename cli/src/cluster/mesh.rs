//! The mesh as `ringmail-control` sees it: the cluster's objects, its settings, and what follows from both.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use ringmail_control::discovery::DiscoveryConfig;
use ringmail_control::discovery::snapshot::{Listed, Objects, Snapshot};
use ringmail_control::inject::InjectConfig;
use serde::Deserialize;

use super::{ClusterError, Connection, Supposed};

/// The ConfigMap with control's file, and the key in it.
const CONFIG_MAP: &str = "ringmail";
const CONFIG_KEY: &str = "config.yaml";

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
        Ok(mesh)
    }

    /// What follows from these objects and settings; the error names the setting.
    pub(crate) fn new(file: MeshFile, mut objects: Objects, supposed: &Supposed) -> Result<Self, String> {
        let supposed = supposed.apply(&mut objects.policies);
        let cluster = file.discovery.cluster.clone();
        let settings = file.discovery.settings("", "").map_err(|error| error.to_string())?;
        let snapshot = Snapshot::new(settings.policy, &cluster, &objects);
        let place = "the cluster".to_owned();
        Ok(Self { place, objects, snapshot, injection: file.injection, supposed, unseen: Vec::new() })
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

/// Defaults hold where there is no such ConfigMap or it may not be read; that is told.
async fn settings(
    connection: &Connection,
    namespace: &str,
    unseen: &mut Vec<String>,
) -> Result<MeshFile, ClusterError> {
    let (place, name) = (&connection.place, format!("{namespace}/{CONFIG_MAP}"));
    let api: Api<ConfigMap> = Api::namespaced(connection.client.clone(), namespace);
    let why = match api.get(CONFIG_MAP).await {
        Ok(map) => match map.data.as_ref().and_then(|data| data.get(CONFIG_KEY)) {
            Some(text) => {
                return parse(text).map_err(|cause| ClusterError::Settings {
                    place: place.clone(),
                    map: name,
                    cause,
                });
            }
            None => format!("has no key {CONFIG_KEY}"),
        },
        Err(kube::Error::Api(status)) if status.code == 404 => {
            "is not there: is Ringmail installed (--mesh-namespace)?".to_owned()
        }
        Err(kube::Error::Api(status)) if status.code == 403 => "may not be read".to_owned(),
        Err(error) => return Err(ClusterError::api(place, format!("get configmap {name}"), &error)),
    };
    unseen.push(format!("ConfigMap {name} {why}; the settings' defaults are taken"));
    Ok(MeshFile::default())
}

fn parse(text: &str) -> Result<MeshFile, String> {
    let file: Option<MeshFile> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    Ok(file.unwrap_or_default())
}
