//! Rotating the self-signed root in its Secret: stages that an operator calls, one at a time.
//!
//! The bundle carries old and new before the new one signs, and the old one leaves last. Each stage is one
//! compare-and-swap of the Secret, can be called again, and refuses to come before its time: between the
//! stages, every sidecar must have renewed its certificate once. Running CAs follow the Secret, so no pod
//! is restarted.

mod command;

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use ringmail_identity::TrustDomain;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::fault::bounded;
use super::root_secret::{Root, RootSecret, Rotation};
use super::{ApiFault, Cluster, ConnectError};
use crate::authority::describe;

pub use command::{CommandError, run};

const STAGE: &str = "ringmail.io/root-stage";
const SINCE: &str = "ringmail.io/root-stage-since";
/// Half of a leaf's default lifetime: every sidecar has renewed, and has the bundle that came along.
const UNTIL_SIGN: Duration = Duration::from_hours(12);
/// A leaf's default lifetime: nothing that the old root signed is valid any more.
const UNTIL_RETIRE: Duration = Duration::from_hours(24);
/// Lost races that are run again.
const ROUNDS: usize = 5;

/// A stage of the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Says how far the rotation has come.
    Status,
    /// A new root joins the bundle.
    Trust,
    /// The new root signs.
    Sign,
    /// The old root leaves the bundle.
    Retire,
    /// One step back.
    Undo,
}

/// Why a stage was not done.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The API server.
    #[error("{secret}: {fault}")]
    Api {
        /// The Secret.
        secret: String,
        /// What came of the request.
        fault: ApiFault,
    },
    /// There is no way to the API server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The Secret holds no usable root.
    #[error("{secret}: {error}")]
    Damaged {
        /// The Secret.
        secret: String,
        /// What is wrong.
        error: String,
    },
    /// Another stage comes first.
    #[error("{0}")]
    Order(&'static str),
    /// A new root cannot be made.
    #[error("a new root cannot be made: {0}")]
    Signing(String),
    /// The stage before is too young.
    #[error(
        "the last stage was {since} ago, expected at least {min_age}: sidecars that have not renewed since would be cut off; wait, or give --min-age with less if you know better"
    )]
    TooEarly {
        /// The age of the last stage.
        since: String,
        /// What it must be.
        min_age: String,
    },
}

/// What a stage does with a Secret.
struct Step {
    /// The new state; none when there is nothing to do.
    secret: Option<RootSecret>,
    /// For the operator.
    said: String,
    /// How old the last stage must be.
    min_age: Option<Duration>,
}

impl Step {
    fn nothing(said: &str) -> Self {
        Self { secret: None, said: said.to_owned(), min_age: None }
    }

    fn to(secret: RootSecret, said: String, min_age: Option<Duration>) -> Self {
        Self { secret: Some(secret), said, min_age }
    }
}

/// A rotation of the root in one Secret.
pub struct RootRotation {
    secrets: Api<Secret>,
    name: String,
    origin: String,
}

impl RootRotation {
    /// Of Secret `name` in the own namespace.
    pub fn new(cluster: &Cluster, name: &str) -> Self {
        let secrets = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        Self { secrets, name: name.to_owned(), origin: format!("secret {}/{name}", cluster.namespace) }
    }

    /// Does `stage` and says what came of it. `min_age` replaces the time that must lie between stages.
    pub async fn advance(
        &self,
        stage: Stage,
        min_age: Option<Duration>,
        now: SystemTime,
    ) -> Result<String, RotateError> {
        let mut fault = ApiFault::Conflict("others are always faster".to_owned());
        for _ in 0..ROUNDS {
            match self.round(stage, min_age, now).await {
                Err(RotateError::Api { fault: lost @ ApiFault::Conflict(_), .. }) => fault = lost,
                done => return done,
            }
        }
        Err(self.api(fault))
    }

    async fn round(
        &self,
        stage: Stage,
        min_age: Option<Duration>,
        now: SystemTime,
    ) -> Result<String, RotateError> {
        let mut object = bounded(self.secrets.get(&self.name)).await.map_err(|fault| self.api(fault))?;
        let damaged = |error| RotateError::Damaged { secret: self.origin.clone(), error };
        let mut content = object.data.take().unwrap_or_default();
        let root = RootSecret::read(&content).map_err(damaged)?;
        let trust_domain = trust_domain(&root.signing.certificate).map_err(damaged)?;
        let annotations = object.metadata.annotations.get_or_insert_default();
        let last = annotations.get(STAGE).cloned().unwrap_or_default();
        let step = step(root, stage, &last, &trust_domain, now)?;
        let Some(root) = step.secret else { return Ok(step.said) };
        if let Some(default) = step.min_age {
            check_age(annotations.get(SINCE), min_age.unwrap_or(default), now)?;
        }
        root.prove(&self.origin, &trust_domain, now).map_err(damaged)?;
        root.write(&mut content);
        annotations.insert(STAGE.to_owned(), word(stage).to_owned());
        annotations.insert(SINCE.to_owned(), timestamp(now));
        object.data = Some(content);
        // The resource version that was read makes it a compare-and-swap.
        bounded(self.secrets.replace(&self.name, &PostParams::default(), &object))
            .await
            .map_err(|fault| self.api(fault))?;
        Ok(step.said)
    }

    fn api(&self, fault: ApiFault) -> RotateError {
        RotateError::Api { secret: self.origin.clone(), fault }
    }
}

/// The state machine: where each stage leads from each state.
fn step(
    root: RootSecret,
    stage: Stage,
    last: &str,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Step, RotateError> {
    match stage {
        Stage::Status => Ok(Step::nothing(&status(&root))),
        Stage::Trust => trust(root, trust_domain, now),
        Stage::Sign => sign(root),
        Stage::Retire => retire(root),
        Stage::Undo => undo(root, last),
    }
}

fn trust(mut root: RootSecret, trust_domain: &TrustDomain, now: SystemTime) -> Result<Step, RotateError> {
    match root.rotation {
        Rotation::Trusted(_) => Ok(Step::nothing("a new root is trusted already; next: --stage sign")),
        Rotation::Signed(_) => {
            Err(RotateError::Order("the last rotation has not ended: --stage retire comes first"))
        }
        Rotation::Settled => {
            let next = Root::new(trust_domain, now).map_err(RotateError::Signing)?;
            let said = format!(
                "{} is trusted beside the old one; next, in 12 h: --stage sign",
                describe(&next.certificate)
            );
            root.roots.push(next.certificate.clone());
            root.rotation = Rotation::Trusted(next);
            Ok(Step::to(root, said, None))
        }
    }
}

fn sign(mut root: RootSecret) -> Result<Step, RotateError> {
    match root.rotation {
        Rotation::Settled => Err(RotateError::Order("there is no new root: --stage trust comes first")),
        Rotation::Signed(_) => Ok(Step::nothing("the new root signs already; next: --stage retire")),
        Rotation::Trusted(next) => {
            let said = format!("{} signs; next, in 24 h: --stage retire", describe(&next.certificate));
            root.rotation = Rotation::Signed(std::mem::replace(&mut root.signing, next));
            Ok(Step::to(root, said, Some(UNTIL_SIGN)))
        }
    }
}

/// Roots that stayed in the bundle for another reason, such as a lost key, leave with the old one.
fn retire(mut root: RootSecret) -> Result<Step, RotateError> {
    match root.rotation {
        Rotation::Trusted(_) => {
            Err(RotateError::Order("the new root does not sign yet: --stage sign comes first"))
        }
        Rotation::Settled if root.roots.len() == 1 => Ok(Step::nothing("there is no old root")),
        Rotation::Settled | Rotation::Signed(_) => {
            root.rotation = Rotation::Settled;
            root.roots.retain(|known| *known == root.signing.certificate);
            let said =
                format!("{} is the only root; the rotation has ended", describe(&root.signing.certificate));
            Ok(Step::to(root, said, Some(UNTIL_RETIRE)))
        }
    }
}

fn undo(mut root: RootSecret, last: &str) -> Result<Step, RotateError> {
    match root.rotation {
        Rotation::Settled => Ok(Step::nothing("there is nothing to undo")),
        Rotation::Signed(previous) => {
            let said =
                format!("{} signs again; the new root is still trusted", describe(&previous.certificate));
            root.rotation = Rotation::Trusted(std::mem::replace(&mut root.signing, previous));
            Ok(Step::to(root, said, None))
        }
        Rotation::Trusted(next) => {
            let said = format!("{} left the bundle", describe(&next.certificate));
            root.roots.retain(|known| *known != next.certificate);
            root.rotation = Rotation::Settled;
            // Where it has signed, what it signed must have been renewed first.
            let has_signed = last == word(Stage::Undo);
            Ok(Step::to(root, said, has_signed.then_some(UNTIL_RETIRE)))
        }
    }
}

fn status(root: &RootSecret) -> String {
    let signs = describe(&root.signing.certificate);
    let rotation = match &root.rotation {
        Rotation::Settled => "no rotation in progress".to_owned(),
        Rotation::Trusted(next) => format!("trusted, to sign next: {}", describe(&next.certificate)),
        Rotation::Signed(previous) => {
            format!("signed before, to be retired: {}", describe(&previous.certificate))
        }
    };
    let roots: String = root.roots.iter().map(|root| format!("\n  {}", describe(root))).collect();
    format!("signs: {signs}\n{rotation}\nbundle:{roots}")
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Status => "status",
        Stage::Trust => "trust",
        Stage::Sign => "sign",
        Stage::Retire => "retire",
        Stage::Undo => "undo",
    }
}

fn timestamp(now: SystemTime) -> String {
    Timestamp::try_from(now).map(|time| time.to_string()).unwrap_or_default()
}

/// A Secret without the time of its last stage was made at the time nobody knows: old enough.
fn check_age(since: Option<&String>, min_age: Duration, now: SystemTime) -> Result<(), RotateError> {
    let Some(since) = since.and_then(|text| text.parse::<Timestamp>().ok()) else { return Ok(()) };
    let age = now.duration_since(SystemTime::from(since)).unwrap_or_default();
    if age >= min_age {
        return Ok(());
    }
    let minutes = |time: Duration| format!("{} h {} min", time.as_secs() / 3600, time.as_secs() / 60 % 60);
    Err(RotateError::TooEarly { since: minutes(age), min_age: minutes(min_age) })
}

/// The trust domain that a root of ours is for.
fn trust_domain(root: &CertificateDer<'_>) -> Result<TrustDomain, String> {
    let (_, certificate) = X509Certificate::from_der(root).map_err(|e| format!("tls.crt: {e}"))?;
    let names = certificate.subject_alternative_name().map_err(|e| format!("tls.crt: {e}"))?;
    let names = names.map(|san| san.value.general_names.as_slice()).unwrap_or_default();
    let uri = names
        .iter()
        .find_map(|name| if let GeneralName::URI(uri) = name { uri.strip_prefix("spiffe://") } else { None });
    let uri = uri.ok_or("tls.crt names no trust domain: it is no root that ringmail-ca made")?;
    uri.parse().map_err(|e| format!("tls.crt: {e}"))
}

#[cfg(test)]
mod tests;
