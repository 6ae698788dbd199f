//! What both replicas do all the time: follow the authority in its Secret, hold a serving certificate of it, keep its
//! roots in the registration, and know who else injects.
//!
//! Nobody leads. Every write is a compare-and-swap by resource version of a step that all would take, so whoever comes
//! second reads what the first has written.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, TestOperation};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Settings;
use super::ca::{CaError, InjectorCa, Leaf};
use super::certificate::ServingCertificate;
use super::metrics::Metrics;
use crate::inject::Cluster;

/// How soon a change of the Secret or the registration is seen. A registration that was applied anew has no roots, and
/// pods wait until it has.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One look, with all its questions to the API server.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Steps and lost races in one look; more are a fight with somebody.
const MAX_STEPS: usize = 8;

/// What the webhooks of other injectors are called, whatever their configuration is.
const ISTIO_WEBHOOKS: &str = "sidecar-injector.istio.io";
const LINKERD_WEBHOOKS: &str = "linkerd-proxy-injector.linkerd.io";

/// The first minor version whose native sidecars are on unless switched off.
const NATIVE_SIDECARS_SINCE: (u32, u32) = (1, 29);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not ready, for this reason.
    Waiting(String),
    /// The certificate is held and the API server knows its root; who else injects.
    Ready(Cluster),
}

/// Why a look was not finished.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("{place}: {error}")]
    Api { place: &'static str, error: Box<kube::Error> },
    #[error("secret {name}: {error}")]
    Ca { name: String, error: CaError },
    #[error("mutatingwebhookconfiguration {0} is not there")]
    NotRegistered(String),
    #[error("the serving certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the secret changed {MAX_STEPS} times while it was looked at")]
    Unsettled,
}

pub(super) struct Upkeep {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) certificate: Arc<ServingCertificate>,
    pub(super) metrics: Metrics,
    pub(super) state: watch::Sender<State>,
}

/// The certificate that is held, and whose it is.
struct Held {
    leaf: Leaf,
    signer: String,
}

impl Upkeep {
    /// Looks for as long as it is polled.
    pub(super) async fn run(self) {
        let (mut held, mut told) = (None, None);
        loop {
            let looked = timeout(LOOK_DEADLINE, self.look(&mut held)).await;
            let fault = match looked {
                Ok(Ok(cluster)) => {
                    self.state.send_replace(State::Ready(cluster));
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("the API server did not answer within {} s", LOOK_DEADLINE.as_secs())),
            };
            let result = if fault.is_none() { "done" } else { "failed" };
            self.metrics.upkeep.with_label_values(&[result]).inc();
            // The same fault every few seconds is told once.
            if let Some(fault) = fault.as_ref().filter(|_| fault != told) {
                tracing::warn!(%fault, "the injector's certificate or registration could not be looked after");
            }
            if let Some(fault) = &fault {
                self.failed(fault);
            }
            told = fault;
            sleep(LOOK_EVERY).await;
        }
    }

    /// Once ready it stays ready: what was held is still good, and the next look may succeed.
    fn failed(&self, fault: &str) {
        self.state.send_if_modified(|state| match state {
            State::Ready(_) => false,
            State::Waiting(reason) => {
                fault.clone_into(reason);
                true
            }
        });
    }

    async fn look(&self, held: &mut Option<Held>) -> Result<Cluster, LookError> {
        let ca = self.authority().await?;
        let now = SystemTime::now();
        let is_good = |held: &Held| held.signer == ca.signer() && now < held.leaf.renew_at;
        if !held.as_ref().is_some_and(is_good) {
            let leaf = ca.leaf(&self.settings.serving_names, now, self.settings.lifetimes);
            let leaf = leaf.map_err(|error| self.ca_error(error))?;
            self.certificate.replace(&leaf)?;
            tracing::info!("the webhook has a new serving certificate");
            *held = Some(Held { leaf, signer: ca.signer().to_owned() });
        }
        if let Some(held) = held {
            self.metrics.expiries(held.leaf.not_after, ca.not_after(), now);
        }
        let all = self.registered(&ca).await?;
        let version = self.client.apiserver_version().await.map_err(api("version"))?;
        Ok(cluster_of(&all, &version))
    }

    /// The authority as it is in the Secret, after every step that is due.
    async fn authority(&self) -> Result<InjectorCa, LookError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        let name = self.settings.secret.as_str();
        for _ in 0..MAX_STEPS {
            let now = SystemTime::now();
            let found = secrets.get_opt(name).await.map_err(api("secret"))?;
            let (written, ca) = match found {
                None => {
                    let ca = InjectorCa::create(now, self.settings.lifetimes)
                        .map_err(|error| self.ca_error(error))?;
                    (secrets.create(&PostParams::default(), &self.secret(&ca, None)).await, ca)
                }
                Some(secret) => match self.next(&secret, now)? {
                    Next::Keep(ca) => return Ok(ca),
                    Next::Write(ca) => {
                        let changed = self.secret(&ca, secret.resource_version());
                        (secrets.replace(name, &PostParams::default(), &changed).await, ca)
                    }
                },
            };
            match written {
                Ok(_) => tracing::info!(?ca, "the injector's authority was written"),
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(api("secret")(error)),
            }
        }
        Err(LookError::Unsettled)
    }

    /// What cannot be read is made anew: it vouches only for the webhook, and no pod could start without it.
    fn next(&self, secret: &Secret, now: SystemTime) -> Result<Next, LookError> {
        let data = secret.data.clone().unwrap_or_default();
        let next = match InjectorCa::read(&data) {
            Ok(ca) => {
                ca.step(now, self.settings.lifetimes).map(|next| next.map_or(Next::Keep(ca), Next::Write))
            }
            Err(error) => {
                tracing::warn!(%error, "the injector's authority is not usable and is made anew");
                InjectorCa::create(now, self.settings.lifetimes).map(Next::Write)
            }
        };
        next.map_err(|error| self.ca_error(error))
    }

    fn secret(&self, ca: &InjectorCa, version: Option<String>) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(self.settings.secret.clone()),
                namespace: Some(self.settings.namespace.clone()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            data: Some(ca.data()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }

    /// Puts our roots into the registration, where they are not, and gives everybody's.
    async fn registered(&self, ca: &InjectorCa) -> Result<Vec<MutatingWebhookConfiguration>, LookError> {
        let place = "mutatingwebhookconfigurations";
        let api_of: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let all = api_of.list(&ListParams::default()).await.map_err(api(place))?.items;
        let name = &self.settings.configuration;
        let ours = all.iter().find(|one| one.metadata.name.as_ref() == Some(name));
        let ours = ours.ok_or_else(|| LookError::NotRegistered(name.clone()))?;
        let patch = bundle_patch(ours, &ca.bundle());
        if !patch.0.is_empty() {
            let patched = api_of.patch(name, &PatchParams::default(), &Patch::<()>::Json(patch)).await;
            match patched {
                Ok(_) => tracing::info!("the registration has the injector's roots"),
                // Somebody else has changed it in between; the next look sees how.
                Err(error) => return Err(api(place)(error)),
            }
        }
        Ok(all)
    }

    fn ca_error(&self, error: CaError) -> LookError {
        LookError::Ca { name: self.settings.secret.clone(), error }
    }
}

enum Next {
    Keep(InjectorCa),
    Write(InjectorCa),
}

/// Changes nothing but the bundles, and only of the configuration as it was read.
fn bundle_patch(configuration: &MutatingWebhookConfiguration, bundle: &str) -> json_patch::Patch {
    let mut patch = Vec::new();
    for (place, webhook) in configuration.webhooks.iter().flatten().enumerate() {
        let has = webhook.client_config.ca_bundle.as_ref().is_some_and(|has| has.0 == bundle.as_bytes());
        if !has {
            let value = json!(k8s_openapi::ByteString(bundle.as_bytes().to_vec()));
            let place = place.to_string();
            let path = PointerBuf::from_tokens(["webhooks", &place, "clientConfig", "caBundle"]);
            patch.push(PatchOperation::Add(AddOperation { path, value }));
        }
    }
    if !patch.is_empty() {
        let path = PointerBuf::from_tokens(["metadata", "resourceVersion"]);
        let value = json!(configuration.resource_version());
        patch.insert(0, PatchOperation::Test(TestOperation { path, value }));
    }
    json_patch::Patch(patch)
}

/// What the injector has to know about a cluster, from its registrations and the version of its API server.
pub fn cluster_of(all: &[MutatingWebhookConfiguration], version: &Info) -> Cluster {
    let names: Vec<&str> =
        all.iter().flat_map(|one| one.webhooks.iter().flatten()).map(|hook| hook.name.as_str()).collect();
    Cluster {
        native_sidecars: has_native_sidecars(&version.major, &version.minor),
        istio_injects: names.iter().any(|name| name.ends_with(ISTIO_WEBHOOKS)),
        linkerd_injects: names.contains(&LINKERD_WEBHOOKS),
    }
}

/// Vendors write `29+`.
fn has_native_sidecars(major: &str, minor: &str) -> bool {
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    match (number(major), number(minor)) {
        (Some(major), Some(minor)) => (major, minor) >= NATIVE_SIDECARS_SINCE,
        (Some(_) | None, _) => false,
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn api(place: &'static str) -> impl Fn(kube::Error) -> LookError {
    move |error| LookError::Api { place, error: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_native_sidecars_are_told_by_number() {
        for (major, minor, expected) in [
            ("1", "28", false),
            ("1", "29", true),
            ("1", "29+", true),
            ("1", "33", true),
            ("2", "0", true),
            ("", "", false),
        ] {
            assert_eq!(has_native_sidecars(major, minor), expected, "{major}.{minor}");
        }
    }

    #[test]
    fn other_injectors_are_known_by_their_webhooks_names() {
        let configuration = |names: &[&str]| -> MutatingWebhookConfiguration {
            let hooks: Vec<_> = names
                .iter()
                .map(|name| json!({"name": name, "clientConfig": {}, "sideEffects": "None", "admissionReviewVersions": ["v1"]}))
                .collect();
            serde_json::from_value(json!({"metadata": {"name": "x"}, "webhooks": hooks})).unwrap()
        };
        for (names, istio, linkerd) in [
            (vec!["rev.namespace.sidecar-injector.istio.io"], true, false),
            (vec!["namespace.sidecar-injector.istio.io", "linkerd-proxy-injector.linkerd.io"], true, true),
            (vec!["sidecar-injector.ringmail.io", "istio.io.example"], false, false),
        ] {
            let found = cluster_of(&[configuration(&names)], &Info::default());
            assert_eq!((found.istio_injects, found.linkerd_injects), (istio, linkerd), "{names:?}");
        }
    }

    #[test]
    fn a_registration_with_our_roots_is_left_alone() {
        let with = |bundle: Option<&str>| -> MutatingWebhookConfiguration {
            let mut client = json!({"url": "https://x"});
            if let Some(bundle) = bundle {
                client["caBundle"] = json!(k8s_openapi::ByteString(bundle.as_bytes().to_vec()));
            }
            let hook = json!({"name": "a", "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"]});
            serde_json::from_value(
                json!({"metadata": {"name": "x", "resourceVersion": "7"}, "webhooks": [hook]}),
            )
            .unwrap()
        };
        assert!(bundle_patch(&with(Some("roots")), "roots").0.is_empty());
        assert_eq!(bundle_patch(&with(Some("old")), "roots").0.len(), 2);
        assert_eq!(bundle_patch(&with(None), "roots").0.len(), 2);
    }
}
