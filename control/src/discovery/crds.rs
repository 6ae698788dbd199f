//! The definitions of the kinds of policies, where the cluster has none. What is there belongs to somebody else and is
//! never changed.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, api::PostParams};
use ringmail_policy::Kind;
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use super::watch::{KINDS, PolicyKind, cause};

const RETRY: Duration = Duration::from_secs(1);
/// Who made them: nobody who finds them later has to guess.
const MANAGED_BY: &str = "ringmail-control";

/// Creates what is absent, once this replica leads.
pub(crate) async fn run(client: Client, mut leading: watch::Receiver<bool>) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let mut said = None;
    for kind in KINDS {
        loop {
            if leading.wait_for(|leading| *leading).await.is_err() {
                return;
            }
            match create(&definitions, kind).await {
                Ok(()) => break,
                Err(error) => {
                    let error = Arc::new(error);
                    if said.as_ref() != Some(&error) {
                        tracing::warn!(%error, definition = kind.definition(), "cannot be created");
                        said = Some(error);
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }
}

async fn create(definitions: &Api<CustomResourceDefinition>, kind: PolicyKind) -> Result<(), String> {
    match definitions.get_opt(&kind.definition()).await {
        Ok(Some(_)) => return Ok(()),
        Ok(None) => {}
        Err(error) => return Err(cause(&error)),
    }
    let definition: CustomResourceDefinition =
        serde_json::from_value(definition(kind)).map_err(|error| error.to_string())?;
    match definitions.create(&PostParams::default(), &definition).await {
        Ok(_) => {
            tracing::info!(definition = kind.definition(), "created");
            Ok(())
        }
        // Somebody else was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(cause(&error)),
    }
}

/// Accepts everything that the field's own definitions accept, and more: what a spec says is judged where it is read,
/// with an event that names the field. A word that no mode has is refused at once, as those definitions refuse it: who
/// mistypes STRICT must not leave thinking that it holds.
fn definition(kind: PolicyKind) -> Value {
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let spec = spec(kind.kind);
    let version = |(place, name): (usize, &&str)| {
        json!({
            "name": name,
            "served": true,
            "storage": place == 0,
            "subresources": { "status": {} },
            "schema": { "openAPIV3Schema": {
                "type": "object",
                "properties": { "spec": spec, "status": open },
            } },
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": kind.definition(),
            "labels": { "app.kubernetes.io/managed-by": MANAGED_BY },
        },
        "spec": {
            "group": kind.kind.group(),
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind.as_str(),
                "listKind": format!("{}List", kind.kind),
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": kind.short_names,
                "categories": ["istio-io"],
            },
            "versions": kind.versions.iter().enumerate().map(version).collect::<Vec<_>>(),
        },
    })
}

/// The fields with a closed set of words, and everything else as it comes.
fn spec(kind: Kind) -> Value {
    let one_of = |words: &[&str]| json!({ "type": "string", "enum": words });
    match kind {
        Kind::PeerAuthentication => {
            let mtls = object(json!({ "mode": one_of(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]) }));
            let ports = json!({ "type": "object", "additionalProperties": mtls });
            object(json!({ "mtls": mtls, "portLevelMtls": ports }))
        }
        Kind::AuthorizationPolicy => {
            object(json!({ "action": one_of(&["ALLOW", "DENY", "AUDIT", "CUSTOM"]) }))
        }
        Kind::DestinationRule => {
            let mode = one_of(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]);
            let tls = object(json!({ "mode": mode }));
            let ports = json!({ "type": "array", "items": object(json!({ "tls": tls })) });
            object(json!({ "trafficPolicy": object(json!({ "tls": tls, "portLevelSettings": ports })) }))
        }
        Kind::WorkloadEntry | Kind::Pod => object(json!({})),
    }
}

fn object(properties: Value) -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": properties })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_definition_serves_every_version_and_stores_the_first() {
        for kind in KINDS {
            let definition: CustomResourceDefinition = serde_json::from_value(definition(kind)).unwrap();
            let versions = &definition.spec.versions;
            assert!(versions.iter().all(|version| version.served));
            assert_eq!(versions.iter().filter(|version| version.storage).count(), 1);
            assert!(versions[0].storage && versions[0].name == "v1");
            assert_eq!(definition.metadata.name, Some(kind.definition()));
        }
    }
}
