//! A small API server: the objects that the webhook asks for, with resource versions and conflicts.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

const CONFIGURATION: &str = "ringmail-injector";

/// What the API server holds.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) secret: Option<Value>,
    pub(crate) configuration: Option<Value>,
    pub(crate) namespaces: BTreeMap<String, Value>,
    pub(crate) events: Vec<Value>,
    version: u64,
}

/// A handle on them; clones are the same server.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<Objects>>);

impl Api {
    /// One with the registration, and two namespaces: `ignite` asks for Istio's, `plain` for nothing.
    pub(crate) fn new() -> Self {
        let api = Self::default();
        api.register();
        api.change(|objects| {
            for (name, labels) in [("ignite", json!({"istio-injection": "enabled"})), ("plain", json!({}))] {
                let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
                objects.namespaces.insert(name.to_owned(), object);
            }
        });
        api
    }

    /// Applies the registration anew, without roots.
    pub(crate) fn register(&self) {
        self.change(|objects| {
            objects.version += 1;
            let hook = |name: &str| {
                json!({"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "NoneOnDryRun",
                       "clientConfig": {"service": {"name": "ringmail-control", "namespace": "ringmail-system"}}})
            };
            objects.configuration = Some(json!({
                "metadata": {"name": CONFIGURATION, "resourceVersion": objects.version.to_string()},
                "webhooks": [hook("namespace.ringmail.io"), hook("object.ringmail.io")],
            }));
        });
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Objects) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    /// The roots that the API server verifies the webhook by, PEM; `None` until every webhook has them.
    pub(crate) fn bundle(&self) -> Option<String> {
        use base64::Engine as _;
        self.change(|objects| {
            let hooks = objects.configuration.as_ref()?["webhooks"].as_array()?.clone();
            let bundles: Option<Vec<String>> = hooks
                .iter()
                .map(|hook| hook["clientConfig"]["caBundle"].as_str().map(str::to_owned))
                .collect();
            let mut bundles = bundles?;
            bundles.dedup();
            assert_eq!(bundles.len(), 1, "webhooks differ in their roots");
            let bytes = base64::engine::general_purpose::STANDARD.decode(bundles.pop()?).unwrap();
            Some(String::from_utf8(bytes).unwrap())
        })
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (status, answer) = api.answer(&parts.method, parts.uri.path(), body);
                let answer = Full::new(Bytes::from(answer.to_string()));
                Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.change(|objects| {
            let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
            match (method.as_str(), segments.as_slice()) {
                ("GET", ["version"]) => (StatusCode::OK, version()),
                ("GET", ["api", "v1", "namespaces", name]) => match objects.namespaces.get(*name) {
                    Some(found) => (StatusCode::OK, found.clone()),
                    None => failure(StatusCode::NOT_FOUND),
                },
                ("GET", ["api", "v1", "namespaces", _, "secrets", _]) => match &objects.secret {
                    Some(secret) => (StatusCode::OK, secret.clone()),
                    None => failure(StatusCode::NOT_FOUND),
                },
                ("POST", ["api", "v1", "namespaces", _, "secrets"]) => match &objects.secret {
                    Some(_) => failure(StatusCode::CONFLICT),
                    None => objects.write_secret(body),
                },
                ("PUT", ["api", "v1", "namespaces", _, "secrets", _]) => {
                    let there = objects.secret.as_ref().map(|secret| &secret["metadata"]["resourceVersion"]);
                    if there != Some(&body["metadata"]["resourceVersion"]) {
                        return failure(StatusCode::CONFLICT);
                    }
                    objects.write_secret(body)
                }
                ("GET", ["apis", "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations"]) => {
                    let items: Vec<_> = objects.configuration.iter().cloned().collect();
                    (StatusCode::OK, json!({"metadata": {}, "items": items}))
                }
                (
                    "PATCH",
                    ["apis", "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", _],
                ) => objects.patch_configuration(body),
                ("POST", ["apis", "events.k8s.io", "v1", "namespaces", _, "events"]) => {
                    objects.events.push(body.clone());
                    (StatusCode::CREATED, body)
                }
                _ => panic!("{method} {path} is not to be asked"),
            }
        })
    }
}

impl Objects {
    fn write_secret(&mut self, mut secret: Value) -> (StatusCode, Value) {
        self.version += 1;
        secret["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.secret = Some(secret.clone());
        (StatusCode::OK, secret)
    }

    fn patch_configuration(&mut self, patch: Value) -> (StatusCode, Value) {
        let Some(configuration) = &mut self.configuration else { return failure(StatusCode::NOT_FOUND) };
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let mut changed = configuration.clone();
        if json_patch::patch(&mut changed, &patch).is_err() {
            return failure(StatusCode::UNPROCESSABLE_ENTITY);
        }
        self.version += 1;
        changed["metadata"]["resourceVersion"] = json!(self.version.to_string());
        *configuration = changed.clone();
        (StatusCode::OK, changed)
    }
}

fn failure(status: StatusCode) -> (StatusCode, Value) {
    let reason = status.canonical_reason().unwrap_or_default().replace(' ', "");
    (
        status,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status.as_u16(), "reason": reason, "message": reason}),
    )
}

fn version() -> Value {
    json!({"major": "1", "minor": "31", "gitVersion": "v1.31.0", "gitCommit": "", "gitTreeState": "clean",
           "buildDate": "", "goVersion": "", "compiler": "gc", "platform": "linux/amd64"})
}
