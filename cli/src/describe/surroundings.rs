//! What the injector's decision rests on beside the pod: its namespace, its template, and the injectors that are registered.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use ringmail_control::inject::{Cluster, Namespace, Owner, controller_of, sidecar_of};
use ringmail_control::webhook::cluster_of;
use serde_json::Value;

use crate::cluster::{ClusterError, Connection};

/// What the webhooks of Ringmail's own injector are called.
const OWN_WEBHOOKS: &str = "sidecar-injector.ringmail.io";

/// What the pods of the controller of a pod are made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Template {
    /// With a sidecar: every pod has it, whatever the injector decides.
    Carries,
    /// Without one.
    Lacks,
    /// There is no controller, it has no template, or it may not be read.
    #[default]
    Unknown,
}

impl Template {
    /// The template in a controller's object.
    pub(super) fn of(controller: &Value) -> Self {
        match controller.pointer("/spec/template") {
            None => Self::Unknown,
            Some(template) if sidecar_of(template).is_some() => Self::Carries,
            Some(_) => Self::Lacks,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// Nothing, where it may not be read.
    pub(super) namespace: Option<Namespace>,
    pub(super) cluster: Cluster,
    /// Whether Ringmail's injector is registered; nothing, where that may not be read.
    pub(super) registered: Option<bool>,
    pub(super) template: Template,
    pub(super) unseen: Vec<String>,
}

impl Surroundings {
    pub(super) async fn read(connection: &Connection, name: &str) -> Result<Self, ClusterError> {
        let mut unseen = Vec::new();
        let namespace = namespace(connection, name, &mut unseen).await?;
        let (cluster, registered) = injectors(connection, &mut unseen).await?;
        Ok(Self { namespace, cluster, registered, template: Template::Unknown, unseen })
    }

    /// Asks for what the pod was made from.
    pub(super) async fn read_template(
        &mut self,
        connection: &Connection,
        namespace: &str,
        pod: &Value,
    ) -> Result<(), serde_json::Error> {
        let Some(owner) = controller_of(pod) else { return Ok(()) };
        match controller(connection, namespace, &owner).await {
            Ok(object) => self.template = Template::of(&serde_json::to_value(object)?),
            // It is gone with its template: the pod will follow.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                let is_forbidden = matches!(&error, kube::Error::Api(status) if status.code == 403);
                let why =
                    if is_forbidden { "may not be read".into() } else { format!("cannot be read: {error}") };
                self.unseen.push(format!(
                    "{} {namespace}/{} {why}: whether its template carries the sidecar is not known",
                    owner.kind, owner.name
                ));
            }
        }
        Ok(())
    }

    /// What a namespace's object says.
    pub(super) fn of_namespace(namespace: KubeNamespace) -> Namespace {
        Namespace {
            name: namespace.metadata.name.unwrap_or_default(),
            labels: namespace.metadata.labels.unwrap_or_default(),
            annotations: namespace.metadata.annotations.unwrap_or_default(),
        }
    }
}

async fn controller(
    connection: &Connection,
    namespace: &str,
    owner: &Owner,
) -> Result<DynamicObject, kube::Error> {
    let (group, version) = owner.api_version.rsplit_once('/').unwrap_or(("", &owner.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &owner.kind));
    Api::<DynamicObject>::namespaced_with(connection.client.clone(), namespace, &resource)
        .get(&owner.name)
        .await
}

async fn namespace(
    connection: &Connection,
    name: &str,
    unseen: &mut Vec<String>,
) -> Result<Option<Namespace>, ClusterError> {
    let place = &connection.place;
    match Api::<KubeNamespace>::all(connection.client.clone()).get(name).await {
        Ok(namespace) => Ok(Some(Surroundings::of_namespace(namespace))),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err(ClusterError::NoNamespace { place: place.clone(), namespace: name.to_owned() })
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            unseen.push(format!(
                "namespace {name} may not be read: why the pod is injected or not is not told"
            ));
            Ok(None)
        }
        Err(error) => Err(ClusterError::api(place, format!("get namespace {name}"), &error)),
    }
}

async fn injectors(
    connection: &Connection,
    unseen: &mut Vec<String>,
) -> Result<(Cluster, Option<bool>), ClusterError> {
    let place = &connection.place;
    let failed = |what: &str, error: &kube::Error| Err(ClusterError::api(place, what, error));
    let version = match connection.client.apiserver_version().await {
        Ok(version) => version,
        Err(error) => return failed("get /version", &error),
    };
    let api: Api<MutatingWebhookConfiguration> = Api::all(connection.client.clone());
    match api.list(&ListParams::default()).await {
        Ok(all) => {
            let mut hooks = all.items.iter().flat_map(|one| one.webhooks.iter().flatten());
            let is_registered = hooks.any(|hook| hook.name.ends_with(OWN_WEBHOOKS));
            Ok((cluster_of(&all.items, &version), Some(is_registered)))
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            unseen.push("mutatingwebhookconfigurations may not be listed: other meshes' injectors are taken to be absent".to_owned());
            Ok((cluster_of(&[], &version), None))
        }
        Err(error) => failed("list mutatingwebhookconfigurations", &error),
    }
}
