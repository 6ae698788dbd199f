//! Tokens of Kubernetes service accounts, judged by the API server that issued them.
//!
//! A TokenReview proves signature, lifetime and audience, and that the pod a token is bound to has not been
//! deleted. Whether that pod still runs is asked besides: a pod that has ended keeps its token valid until
//! somebody deletes it. Nothing is remembered: each certificate rests on an answer of that moment. What
//! cannot be asked is `Unavailable` and never a word about the token. No text holds any part of a token.

mod outage;
mod review;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use kube::{Client, Resource};
use ringmail_identity::TrustDomain;
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout, timeout_at};

use super::{AttestError, Attesting, Attestor, BoundPod, Caller, SourceError};
use crate::cluster::ApiFault;
use outage::Outage;
use review::Reviewed;

/// Longest wait for all that the API server is asked about one token. Below a request's own deadline, so
/// that the caller learns whose fault it was.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Tokens asked about at once, each on a connection of its own. At 5 ms for an answer it lets through
/// thousands per second, and it leaves an API server that is slow the room of its other clients.
const AT_ONCE: usize = 64;
/// How often an API server that gave no answer is asked by ourselves, for the readiness.
const PROBE: Duration = Duration::from_secs(1);
/// An answer this old says nothing about the present: a CA that nobody asks asks for itself.
const STALE: Duration = Duration::from_secs(10);
/// What no API server accepts.
const PROBE_TOKEN: &str = "not.a.token";
const PROBE_POD: (&str, &str) = ("default", "ringmail-ca-probe");

/// Whether the pod of a token is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodCheck {
    /// It is read for each token: gone or ended means no.
    LookUp,
    /// It is not: the API server's word that it is not deleted is enough, or the caller watches pods anyway.
    Skip,
}

/// What a token must be.
#[derive(Clone, Debug)]
pub struct TokenReviewRules {
    /// Audiences; a token must be for one of them.
    pub audiences: Vec<String>,
    /// The trust domain of the identities.
    pub trust_domain: TrustDomain,
    /// Whether the token's pod is looked at.
    pub pod_check: PodCheck,
}

/// The API server as judge of tokens. Clones share connections, limits and what is known of an outage.
#[derive(Clone)]
pub struct TokenReviewAttestor {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    rules: TokenReviewRules,
    places: Semaphore,
    outage: Outage,
}

/// As much of a pod as matters here: a whole one is long to read.
#[derive(Deserialize)]
struct PodState {
    metadata: PodMetadata,
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
struct PodMetadata {
    uid: String,
}

#[derive(Deserialize)]
struct PodStatus {
    phase: Option<String>,
}

impl TokenReviewAttestor {
    /// Judges tokens by `rules`.
    pub fn new(client: Client, rules: TokenReviewRules) -> Self {
        let (places, outage) = (Semaphore::new(AT_ONCE), Outage::unproved());
        Self { shared: Arc::new(Shared { client, rules, places, outage }) }
    }

    /// Whose token `token` is.
    ///
    /// # Errors
    /// [`AttestError::ApiServerAway`] and [`AttestError::ApiServerRefused`] say nothing about the token and
    /// are worth another try; every other one is the API server's word on it.
    pub async fn attest(&self, token: &str) -> Result<Caller, AttestError> {
        self.shared.attest(token).await
    }

    /// Why no token can be judged at present.
    pub fn fault(&self) -> Option<String> {
        self.shared.outage.fault()
    }

    /// Asks at the start, again for as long as there is no answer, and when nobody else has for a while, until
    /// `shutdown` turns true. Without it, a CA that is not ready would get no request and never learn that the
    /// API server is back.
    pub async fn keep_asking(self, mut shutdown: watch::Receiver<bool>) {
        loop {
            if self.shared.outage.is_unsure(Instant::now(), STALE) {
                self.shared.probe().await;
            }
            tokio::select! {
                _ = shutdown.wait_for(|ending| *ending) => return,
                () = sleep(PROBE) => {}
            }
        }
    }
}

impl Attestor for TokenReviewAttestor {
    fn attest<'a>(&'a self, token: &'a str) -> Attesting<'a> {
        Box::pin(self.attest(token))
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn reload(&self) -> Result<(), SourceError> {
        Ok(())
    }

    fn fault(&self) -> Option<String> {
        self.fault()
    }
}

impl Shared {
    async fn attest(&self, token: &str) -> Result<Caller, AttestError> {
        let until = tokio::time::Instant::now() + DEADLINE;
        // A place that does not come free in time says that we ask too much, not that nobody answers.
        let Ok(Ok(_place)) = timeout_at(until, self.places.acquire()).await else {
            return Err(AttestError::ApiServerAway(format!("{AT_ONCE} others are being asked about")));
        };
        let attempt = self.outage.admit(Instant::now())?;
        let judged = timeout_at(until, self.judge(token)).await;
        let judged = judged.unwrap_or_else(|_| Err(nothing_in_time()));
        self.outage.learn(attempt, &judged, Instant::now());
        judged
    }

    async fn judge(&self, token: &str) -> Result<Caller, AttestError> {
        let caller = self.review(token).await?;
        if let (PodCheck::LookUp, Some(pod)) = (self.rules.pod_check, &caller.pod) {
            self.check_pod(caller.identity.namespace().unwrap_or_default(), pod).await?;
        }
        Ok(caller)
    }

    async fn review(&self, token: &str) -> Result<Caller, AttestError> {
        let spec =
            TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(self.rules.audiences.clone()) };
        let body = serde_json::to_vec(&TokenReview { spec, ..TokenReview::default() });
        let body = body.map_err(|e| AttestError::ApiServerAway(e.to_string()))?;
        let request = Request::new(TokenReview::url_path(&(), None)).create(&PostParams::default(), body);
        let answer = self.ask(request).await.map_err(|fault| without_answer(fault, token))?;
        // The client's own reader would log an answer that it cannot read, and the answer repeats the token.
        let reviewed: Reviewed = serde_json::from_str(&answer).map_err(|_| unreadable("TokenReview"))?;
        review::judge(reviewed, &self.rules, token)
    }

    /// The API server's cache answers first, which costs it next to nothing. It may be a moment behind, so
    /// that a pod is missing there is only believed of the store itself.
    async fn check_pod(&self, namespace: &str, pod: &BoundPod) -> Result<(), AttestError> {
        for version in [GetParams::any(), GetParams::default()] {
            match self.pod(namespace, &pod.name, &version).await? {
                Some(state) if state.metadata.uid == pod.uid => return alive(namespace, pod, &state),
                Some(_) | None => {}
            }
        }
        Err(AttestError::PodGone { pod: format!("{namespace}/{} with uid {}", pod.name, pod.uid) })
    }

    async fn pod(
        &self,
        namespace: &str,
        name: &str,
        version: &GetParams,
    ) -> Result<Option<PodState>, AttestError> {
        let request = Request::new(Pod::url_path(&(), Some(namespace))).get(name, version);
        match self.ask(request).await {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|_| unreadable("Pod")),
            Err(ApiFault::NotFound) => Ok(None),
            Err(fault) => Err(without_answer(fault, "")),
        }
    }

    async fn ask(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<String, ApiFault> {
        let request = request.map_err(kube::Error::BuildRequest)?;
        Ok(self.client.request_text(request).await?)
    }

    /// Both questions of an attestation, with a token and a pod that do not exist.
    async fn probe(&self) {
        let attempt = self.outage.probe();
        let both = async {
            match self.review(PROBE_TOKEN).await {
                Err(error) if error.is_outage() => return Err(error),
                // A server that finds fault with this one finds fault with every question of ours.
                Err(AttestError::Unreviewed(text)) => return Err(AttestError::ApiServerAway(text)),
                Ok(_) | Err(_) => {}
            }
            let (namespace, name) = PROBE_POD;
            match self.rules.pod_check {
                PodCheck::LookUp => self.pod(namespace, name, &GetParams::any()).await.map(|_| ()),
                PodCheck::Skip => Ok(()),
            }
        };
        let asked = timeout(DEADLINE, both).await;
        let asked = asked.unwrap_or_else(|_| Err(nothing_in_time()));
        self.outage.learn(attempt, &asked, Instant::now());
    }
}

impl AttestError {
    /// Whether nothing was learnt about the token.
    fn is_outage(&self) -> bool {
        matches!(self, Self::ApiServerAway(_) | Self::ApiServerRefused(_))
    }
}

fn alive(namespace: &str, pod: &BoundPod, state: &PodState) -> Result<(), AttestError> {
    let phase = state.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if ["Succeeded", "Failed"].contains(&phase) {
        let pod = format!("{namespace}/{}", pod.name);
        return Err(AttestError::PodEnded { pod, phase: phase.to_owned() });
    }
    Ok(())
}

fn without_answer(fault: ApiFault, token: &str) -> AttestError {
    let redacted = |text: String| review::without_token(&text, token);
    match fault {
        ApiFault::Away(text) => AttestError::ApiServerAway(redacted(text)),
        ApiFault::Refused(text) => AttestError::ApiServerRefused(redacted(text)),
        // Of this question alone: whoever sends such a token must not keep others from being judged.
        ApiFault::Invalid(text) => AttestError::Unreviewed(redacted(text)),
        // A server without this API.
        ApiFault::AlreadyExists | ApiFault::Conflict(_) | ApiFault::NotFound => {
            AttestError::ApiServerAway(redacted(fault.to_string()))
        }
    }
}

fn nothing_in_time() -> AttestError {
    AttestError::ApiServerAway(format!("nothing within {DEADLINE:?}"))
}

fn unreadable(what: &str) -> AttestError {
    AttestError::ApiServerAway(format!("an answer that is no {what}"))
}
