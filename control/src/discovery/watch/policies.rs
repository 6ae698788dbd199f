//! The kinds of policies. Which of their versions is served depends on whose definitions the cluster has.

use std::{pin::pin, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use ringmail_policy::Kind;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Mirror, Retries, Teller, cause, run};
use crate::discovery::world::{Age, ObjectKey, PolicyKey, PolicyObject, Update};

/// How soon a definition that is not there is looked for again.
const RETRY: Duration = Duration::from_millis(500);
/// An annotation that repeats the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A kind with its names in the API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PolicyKind {
    pub(crate) kind: Kind,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    /// Versions that are read, the preferred first.
    pub(crate) versions: &'static [&'static str],
    pub(crate) short_names: &'static [&'static str],
}

/// Every kind that is watched.
pub(crate) const KINDS: [PolicyKind; 4] = [
    PolicyKind {
        kind: Kind::AuthorizationPolicy,
        plural: "authorizationpolicies",
        singular: "authorizationpolicy",
        versions: &["v1", "v1beta1"],
        short_names: &["ap"],
    },
    PolicyKind {
        kind: Kind::DestinationRule,
        plural: "destinationrules",
        singular: "destinationrule",
        versions: &["v1", "v1beta1", "v1alpha3"],
        short_names: &["dr"],
    },
    PolicyKind {
        kind: Kind::PeerAuthentication,
        plural: "peerauthentications",
        singular: "peerauthentication",
        versions: &["v1", "v1beta1"],
        short_names: &["pa"],
    },
    PolicyKind {
        kind: Kind::WorkloadEntry,
        plural: "workloadentries",
        singular: "workloadentry",
        versions: &["v1", "v1beta1", "v1alpha3"],
        short_names: &["we"],
    },
];

impl PolicyKind {
    /// The name of its definition.
    pub(crate) fn definition(self) -> String {
        format!("{}.{}", self.plural, self.kind.group())
    }

    /// The kind in one of its versions.
    pub(crate) fn resource(self, version: &str) -> ApiResource {
        let group = self.kind.group();
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: format!("{group}/{version}"),
            kind: self.kind.as_str().to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

pub(super) async fn follow(client: Client, kind: PolicyKind, teller: Teller) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let update = |key: ObjectKey, object: Option<&DynamicObject>| policy_update(kind, key, object);
    let mut mirror = Mirror::default();
    loop {
        match definitions.get(&kind.definition()).await.map(|found| served(kind, &found)) {
            Ok(Some(version)) => {
                let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource(version));
                let stream = watcher(api, watcher::Config::default()).backoff(Retries::default());
                run(pin!(stream), &teller, &mut mirror, &update).await;
            }
            Ok(None) => teller.failed("none of the versions that are known here is served"),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                teller.failed("its CustomResourceDefinition is not there yet");
            }
            Err(error) => teller.failed(&cause(&error)),
        }
        sleep(RETRY).await;
    }
}

/// An object of the kind that is there now, or is gone.
pub(crate) fn policy_update(kind: PolicyKind, key: ObjectKey, object: Option<&DynamicObject>) -> Update {
    let key = PolicyKey { kind: kind.kind, object: key };
    Update::Policy(key, object.map(|object| read(kind, object)))
}

fn served(kind: PolicyKind, definition: &CustomResourceDefinition) -> Option<&'static str> {
    let is_served =
        |version: &&&str| definition.spec.versions.iter().any(|own| own.served && own.name == ***version);
    kind.versions.iter().find(is_served).copied()
}

/// Without what the API server and its clients keep for themselves.
fn read(kind: PolicyKind, object: &DynamicObject) -> PolicyObject {
    let api_version = object.types.as_ref().map(|types| types.api_version.clone());
    let api_version = api_version
        .filter(|version| !version.is_empty())
        .unwrap_or_else(|| format!("{}/{}", kind.kind.group(), kind.versions[0]));
    let created = object.creation_timestamp().map(|created| created.0.to_string());
    let mut metadata = json!({
        "name": object.name_any(),
        "namespace": object.namespace().unwrap_or_default(),
        "labels": object.labels(),
        "annotations": object
            .annotations()
            .iter()
            .filter(|(key, _)| *key != LAST_APPLIED)
            .collect::<std::collections::BTreeMap<_, _>>(),
    });
    if let Some(created) = created {
        metadata["creationTimestamp"] = Value::String(created);
    }
    let json = json!({
        "apiVersion": api_version,
        "kind": kind.kind.as_str(),
        "metadata": metadata,
        "spec": object.data.get("spec").cloned().unwrap_or(Value::Null),
    });
    PolicyObject { uid: object.uid().unwrap_or_default(), api_version, age: Age::of(object), json }
}
