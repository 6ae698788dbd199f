//! Everything that a [`Snapshot`](super::Snapshot) is made of, listed once.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource,
    api::{DynamicObject, ListParams, TypeMeta},
};
use serde::de::DeserializeOwned;

use super::Objects;
use crate::discovery::watch::{KINDS, PolicyKind};

/// Objects in one answer: a list of a large cluster comes in parts, as kubectl asks for it.
const PAGE: u32 = 500;

/// Objects of one kind that could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("{resource}: {error}")]
pub struct ListError {
    /// The kind as RBAC spells it, such as `pods` or `peerauthentications.security.istio.io`.
    pub resource: String,
    /// Why not.
    pub error: Box<kube::Error>,
}

/// The objects of a cluster.
#[derive(Debug, Default)]
pub struct Listed {
    /// All of them.
    pub objects: Objects,
    /// What the asking user may not see, and what can be done without: nodes and ServiceCIDRs, which tell the
    /// cluster's ranges.
    pub hidden: Vec<ListError>,
}

impl Listed {
    /// Lists everything. A kind of policies that the cluster does not have has no objects.
    ///
    /// # Errors
    /// [`ListError`] for the first kind that cannot be listed and is needed.
    pub async fn read(client: &Client) -> Result<Self, ListError> {
        let (pods, services, slices) = tokio::try_join!(
            all(Api::all(client.clone()), "pods"),
            all(Api::all(client.clone()), "services"),
            all(Api::all(client.clone()), "endpointslices.discovery.k8s.io"),
        )?;
        let (nodes, ranges) = tokio::join!(
            all(Api::all(client.clone()), "nodes"),
            all(Api::all(client.clone()), "servicecidrs.networking.k8s.io"),
        );
        let objects = Objects { pods, services, slices, ..Objects::default() };
        let mut listed = Self { objects, hidden: Vec::new() };
        listed.objects.nodes = listed.without(nodes)?;
        listed.objects.ranges = listed.without(ranges)?;
        for kind in KINDS {
            listed.objects.policies.extend(policies(client, kind).await?);
        }
        Ok(listed)
    }

    /// What may be hidden, or may not exist in older clusters.
    fn without<K>(&mut self, found: Result<Vec<K>, ListError>) -> Result<Vec<K>, ListError> {
        match found {
            Err(error) if code(&error.error) == Some(404) => Ok(Vec::new()),
            Err(error) if code(&error.error) == Some(403) => {
                self.hidden.push(error);
                Ok(Vec::new())
            }
            Ok(_) | Err(_) => found,
        }
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    if let kube::Error::Api(status) = error { Some(status.code) } else { None }
}

/// In the newest of the versions that are read and that the cluster serves.
async fn policies(client: &Client, kind: PolicyKind) -> Result<Vec<DynamicObject>, ListError> {
    for version in kind.versions {
        let resource = kind.resource(version);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        match all(api, &kind.definition()).await {
            Ok(mut objects) => {
                let types = TypeMeta { api_version: resource.api_version, kind: resource.kind };
                for object in &mut objects {
                    object.types = Some(types.clone());
                }
                return Ok(objects);
            }
            Err(error) if code(&error.error) == Some(404) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Vec::new())
}

async fn all<K>(api: Api<K>, resource: &str) -> Result<Vec<K>, ListError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let failed = |error: kube::Error| ListError { resource: resource.to_owned(), error: Box::new(error) };
    let mut parameters = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page = api.list(&parameters).await.map_err(failed)?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(objects),
        }
    }
}
