//! Opening the root's Secret at the start: made once by whoever comes first, and never again silently.
//!
//! What shows that there was a root is the bundle's ConfigMap in the own namespace: it is written before
//! the first certificate is issued and outlives the Secret. A Secret that is gone while the ConfigMap is
//! there, and one whose roots have nothing in common with it, are a lost and a replaced root. Where the own
//! namespace went with both, the ConfigMaps of the others are left: under another root, the sidecars that
//! mount them would refuse each other one after the other, as the news reaches them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::Api;
use kube::api::{ListParams, ObjectMeta, PostParams};
use ringmail_identity::TrustDomain;
use rustls_pki_types::CertificateDer;

use super::fault::{bounded, found};
use super::root_secret::{self, Content, RootSecret};
use super::{ApiFault, BUNDLE_CONFIG_MAP, BUNDLE_KEY, Cluster, distribute};
use crate::authority::self_signed::FirstRoot;
use crate::authority::{certificate_pem, certificates, unique};

const TLS_SECRET: &str = "kubernetes.io/tls";
/// Rounds of read and write; each lost one means that somebody else was faster.
const ROUNDS: usize = 10;
/// Namespaces that a message names: an operator knows the mesh by a few of them.
const NAMED: usize = 3;

/// The Secret of the self-signed root.
#[derive(Clone, Debug)]
pub struct RootSecretSettings {
    /// Its name, in the own namespace.
    pub name: String,
    /// What an absent Secret means.
    pub first_root: FirstRoot,
    /// Allows a new root in the place of one that is lost or damaged.
    pub bootstrap_new_root: bool,
    /// Selects the other namespaces that the bundle goes to, so that what is there shows that there was a root.
    pub distributed: Option<String>,
}

/// Why the Secret does not yield a root.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The API server does not answer as it should.
    #[error("{what}: {fault}")]
    Api {
        /// What was asked.
        what: &'static str,
        /// What came of it.
        fault: ApiFault,
    },
    /// Somebody else is to make the Secret.
    #[error("{secret} is not there yet")]
    Awaited {
        /// The Secret.
        secret: String,
    },
    /// The Secret holds no usable root.
    #[error(
        "{secret}: {error}; restore it, or give --bootstrap-new-root to make a new root beside the old one"
    )]
    Damaged {
        /// The Secret.
        secret: String,
        /// What is wrong.
        error: String,
    },
    /// An earlier mesh has left its bundle to those who may still use it.
    #[error(
        "{secret} is not there, but ConfigMap {BUNDLE_CONFIG_MAP} in {namespaces} shows the root of an earlier mesh, which sidecars that still run trust: restore it; or, once no pod has a sidecar any more, kubectl delete configmap -A --field-selector metadata.name={BUNDLE_CONFIG_MAP}"
    )]
    Inherited {
        /// The Secret.
        secret: String,
        /// Where, some of them.
        namespaces: String,
    },
    /// There was a root once.
    #[error(
        "{secret} is gone, but ConfigMap {BUNDLE_CONFIG_MAP} shows there was a root; restore it, or give --bootstrap-new-root to make a new root"
    )]
    Lost {
        /// The Secret.
        secret: String,
    },
    /// There is none and must be one.
    #[error(
        "{secret} is not there, and --self-signed-root is existing; restore it, or set create for a first start"
    )]
    Missing {
        /// The Secret.
        secret: String,
    },
    /// The Secret holds another root than the mesh trusts.
    #[error(
        "{secret} and ConfigMap {BUNDLE_CONFIG_MAP} have no root in common: one of them was replaced; restore it, or give --bootstrap-new-root to keep both in the bundle"
    )]
    Replaced {
        /// The Secret.
        secret: String,
    },
    /// A new root could not be made.
    #[error("a new root could not be made: {0}")]
    Signing(String),
}

impl OpenError {
    /// Why it is worth waiting, where it is.
    pub(crate) fn passing(&self) -> Option<String> {
        match self {
            Self::Api { fault, .. } if fault.may_pass() => Some(self.to_string()),
            Self::Awaited { .. } | Self::Inherited { .. } => Some(self.to_string()),
            Self::Api { .. } | Self::Damaged { .. } | Self::Lost { .. } | Self::Missing { .. } => None,
            Self::Replaced { .. } | Self::Signing(_) => None,
        }
    }
}

/// The Secret and what shows that there was one.
struct Opening<'a> {
    settings: &'a RootSecretSettings,
    trust_domain: &'a TrustDomain,
    secrets: Api<Secret>,
    cluster: &'a Cluster,
    secret: String,
    now: SystemTime,
}

/// The content of the root's Secret, made now where that is allowed.
pub(crate) async fn open(
    cluster: &Cluster,
    settings: &RootSecretSettings,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Content, OpenError> {
    let secrets = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let secret = format!("secret {}/{}", cluster.namespace, settings.name);
    let opening = Opening { settings, trust_domain, secrets, cluster, secret, now };
    let mut fault = ApiFault::Conflict("others are always faster".to_owned());
    for _ in 0..ROUNDS {
        match opening.round().await {
            Ok(content) => return Ok(content),
            Err(OpenError::Api {
                fault: lost @ (ApiFault::AlreadyExists | ApiFault::Conflict(_)), ..
            }) => {
                fault = lost;
            }
            Err(error) => return Err(error),
        }
    }
    Err(OpenError::Api { what: "the root's secret cannot be settled", fault })
}

/// The content of a Secret that others make.
pub(crate) async fn content(cluster: &Cluster, name: &str) -> Result<Content, OpenError> {
    let secrets = Api::<Secret>::namespaced(cluster.client.clone(), &cluster.namespace);
    match bounded(secrets.get(name)).await {
        Ok(secret) => Ok(secret.data.unwrap_or_default()),
        Err(ApiFault::NotFound) => {
            Err(OpenError::Awaited { secret: format!("secret {}/{name}", cluster.namespace) })
        }
        Err(fault) => Err(OpenError::Api { what: "the ca's secret cannot be read", fault }),
    }
}

impl Opening<'_> {
    async fn round(&self) -> Result<Content, OpenError> {
        let asked = |what| move |fault| OpenError::Api { what, fault };
        // Written after the Secret, and so looked for before it: what another replica makes in between is no lost root.
        let mark = self.mark().await.map_err(asked("the bundle's configmap cannot be read"))?;
        let held = found(bounded(self.secrets.get(&self.settings.name)).await)
            .map_err(asked("the root's secret cannot be read"))?;
        let content = match (held, &mark) {
            (Some(secret), mark) => self.keep(secret, mark.as_deref()).await?,
            (None, None) => {
                self.inherits_nothing().await?;
                self.first(&[]).await?
            }
            (None, Some(old)) if self.settings.bootstrap_new_root => {
                tracing::warn!(secret = self.secret, "the root is gone: making a new one");
                self.first(old).await?
            }
            (None, Some(_)) => return Err(OpenError::Lost { secret: self.secret.clone() }),
        };
        if mark.is_none() {
            let bundle = self.read(&content)?.roots.iter().map(|root| certificate_pem(root)).collect();
            distribute::apply(self.cluster, &self.cluster.namespace, bundle)
                .await
                .map_err(asked("the bundle's configmap cannot be written"))?;
        }
        Ok(content)
    }

    /// The roots of the ConfigMap, which may be none that can be read; none when there is no ConfigMap.
    async fn mark(&self) -> Result<Option<Vec<CertificateDer<'static>>>, ApiFault> {
        let maps = Api::<ConfigMap>::namespaced(self.cluster.client.clone(), &self.cluster.namespace);
        let map = found(bounded(maps.get(BUNDLE_CONFIG_MAP)).await)?;
        Ok(map.as_ref().map(roots))
    }

    /// Whether a first root is one: nobody in another namespace trusts an earlier one.
    async fn inherits_nothing(&self) -> Result<(), OpenError> {
        let Some(selector) = self.settings.distributed.as_deref() else { return Ok(()) };
        if self.settings.bootstrap_new_root {
            return Ok(());
        }
        let asked = |what| move |fault| OpenError::Api { what, fault };
        let left =
            self.left(selector).await.map_err(asked("the bundles of other namespaces cannot be listed"))?;
        if left.is_empty() {
            return Ok(());
        }
        // Another replica may have been faster with all of it.
        if found(bounded(self.secrets.get(&self.settings.name)).await)
            .map_err(asked("the root's secret cannot be read"))?
            .is_some()
        {
            return Err(OpenError::Api { what: "the root's secret", fault: ApiFault::AlreadyExists });
        }
        let mut namespaces = left.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        if left.len() > NAMED {
            namespaces.push_str(" and others");
        }
        Err(OpenError::Inherited { secret: self.secret.clone(), namespaces })
    }

    /// The selected namespaces that hold a bundle. Of one that is being deleted, the pods go too.
    async fn left(&self, selector: &str) -> Result<BTreeSet<String>, ApiFault> {
        let client = &self.cluster.client;
        let named = ListParams::default().fields(&format!("metadata.name={BUNDLE_CONFIG_MAP}"));
        let maps = Api::<ConfigMap>::all(client.clone());
        let maps = bounded(maps.list(&named)).await?.items.into_iter();
        let held = maps.filter(|map| !roots(map).is_empty()).filter_map(|map| map.metadata.namespace);
        let held: BTreeSet<_> = held.collect();
        if held.is_empty() {
            return Ok(held);
        }
        let namespaces = Api::<Namespace>::all(client.clone());
        let selected =
            bounded(namespaces.list_metadata(&ListParams::default().labels(selector))).await?.items;
        let alive = selected.into_iter().filter(|one| one.metadata.deletion_timestamp.is_none());
        Ok(alive.filter_map(|one| one.metadata.name).filter(|name| held.contains(name)).collect())
    }

    fn read(&self, content: &Content) -> Result<RootSecret, OpenError> {
        let damaged = |error| OpenError::Damaged { secret: self.secret.clone(), error };
        let root = RootSecret::read(content).map_err(damaged)?;
        root.prove(&self.secret, self.trust_domain, self.now).map_err(damaged)?;
        Ok(root)
    }

    async fn keep(
        &self,
        secret: Secret,
        mark: Option<&[CertificateDer<'static>]>,
    ) -> Result<Content, OpenError> {
        let content = secret.data.clone().unwrap_or_default();
        let mark = mark.unwrap_or_default();
        match self.read(&content) {
            Ok(root) if mark.is_empty() || have_one_in_common(mark, &root.roots) => Ok(content),
            Ok(mut root) if self.settings.bootstrap_new_root => {
                tracing::warn!(
                    secret = self.secret,
                    "another root is taken: the known ones stay in the bundle"
                );
                root.roots = unique(root.roots.iter().chain(mark));
                self.replace(secret, &root).await
            }
            Ok(_) => Err(OpenError::Replaced { secret: self.secret.clone() }),
            Err(damage) if self.settings.bootstrap_new_root => {
                tracing::warn!(error = damage.to_string(), "making a new root in the place of a damaged one");
                let old = root_secret::readable_certificates(&content);
                let mut secret = secret;
                root_secret::set_aside(secret.data.get_or_insert_default());
                let mut root = self.new_root()?;
                root.roots = unique(root.roots.iter().chain(mark).chain(&old));
                self.replace(secret, &root).await
            }
            Err(damage) => Err(damage),
        }
    }

    async fn first(&self, old: &[CertificateDer<'static>]) -> Result<Content, OpenError> {
        if self.settings.first_root == FirstRoot::Existing && !self.settings.bootstrap_new_root {
            return Err(OpenError::Missing { secret: self.secret.clone() });
        }
        let mut root = self.new_root()?;
        root.roots = unique(root.roots.iter().chain(old));
        let mut content = Content::new();
        root.write(&mut content);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.settings.name.clone()),
                labels: Some(BTreeMap::from(distribute::LABELS.map(|(k, v)| (k.to_owned(), v.to_owned())))),
                ..ObjectMeta::default()
            },
            type_: Some(TLS_SECRET.to_owned()),
            data: Some(content.clone()),
            ..Secret::default()
        };
        bounded(self.secrets.create(&PostParams::default(), &secret))
            .await
            .map_err(|fault| OpenError::Api { what: "the root's secret cannot be made", fault })?;
        tracing::info!(secret = self.secret, "a new self-signed root was made");
        Ok(content)
    }

    fn new_root(&self) -> Result<RootSecret, OpenError> {
        RootSecret::first(self.trust_domain, self.now).map_err(OpenError::Signing)
    }

    /// The resource version that came with `secret` makes it a compare-and-swap.
    async fn replace(&self, mut secret: Secret, root: &RootSecret) -> Result<Content, OpenError> {
        let mut content = secret.data.take().unwrap_or_default();
        root.write(&mut content);
        secret.data = Some(content.clone());
        bounded(self.secrets.replace(&self.settings.name, &PostParams::default(), &secret))
            .await
            .map_err(|fault| OpenError::Api { what: "the root's secret cannot be written", fault })?;
        Ok(content)
    }
}

/// The roots of a ConfigMap, as far as it can be read.
fn roots(map: &ConfigMap) -> Vec<CertificateDer<'static>> {
    let pem = map.data.as_ref().and_then(|data| data.get(BUNDLE_KEY)).map_or("", String::as_str);
    certificates(pem.as_bytes()).unwrap_or_default()
}

/// Whether a bundle can take the place of another without cutting everybody off.
pub(crate) fn have_one_in_common(one: &[CertificateDer<'_>], other: &[CertificateDer<'_>]) -> bool {
    one.iter().any(|root| other.contains(root))
}
