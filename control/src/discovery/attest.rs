//! Whose stream it is: the pod that the token is bound to, in the word of the API server that issued it.

use std::{pin::Pin, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::Semaphore, time::timeout};
use tonic::Status;

/// Kubernetes' own tokens are below 2 KiB.
const MAX_TOKEN: usize = 8 * 1024;
/// Tokens asked about at once: proxies that come back together must not take all of the API server.
const AT_ONCE: usize = 64;
/// Below the time in which a client gives up, so that it learns whose fault it was.
const DEADLINE: Duration = Duration::from_secs(5);
const SUBJECT: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// The pod that a token is bound to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub pod_name: String,
    /// Its UID: a later pod of the same name has another one.
    pub pod_uid: String,
}

/// Why there is no caller. No text holds any part of a token.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AttestError {
    /// Nothing was learnt about the token.
    #[error("the api server gives no answer about the token: {0}")]
    Away(String),
    /// The token is bound to no pod.
    #[error("token is not bound to a pod: expected the token of a projected volume")]
    NotBound,
    /// The token proves nothing.
    #[error("{0}")]
    Rejected(String),
}

impl AttestError {
    /// As the client sees it.
    pub fn status(&self) -> Status {
        match self {
            Self::Away(_) => Status::unavailable(self.to_string()),
            Self::NotBound | Self::Rejected(_) => Status::unauthenticated(self.to_string()),
        }
    }
}

/// An attestation in progress.
pub type Attesting<'a> = Pin<Box<dyn Future<Output = Result<Caller, AttestError>> + Send + 'a>>;

/// Who judges tokens.
pub trait Attest: Send + Sync {
    /// Whose token `token` is.
    fn attest<'a>(&'a self, token: &'a str) -> Attesting<'a>;
}

/// The API server as judge.
pub struct ReviewedTokens {
    client: Client,
    audiences: Vec<String>,
    permits: Semaphore,
}

impl ReviewedTokens {
    /// Tokens for one of `audiences`.
    pub fn new(client: Client, audiences: Vec<String>) -> Self {
        Self { client, audiences, permits: Semaphore::new(AT_ONCE) }
    }

    async fn review(&self, token: &str) -> Result<Caller, AttestError> {
        let away = |text: String| AttestError::Away(text.replace(token, "<token>"));
        let _permit = self.permits.acquire().await.map_err(|error| away(error.to_string()))?;
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(self.audiences.clone()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| away(error.to_string()))?;
        judge(&answer.status.unwrap_or_default(), &self.audiences)
    }
}

impl Attest for ReviewedTokens {
    fn attest<'a>(&'a self, token: &'a str) -> Attesting<'a> {
        Box::pin(async move {
            let reviewed = timeout(DEADLINE, self.review(token)).await;
            reviewed.unwrap_or_else(|_| Err(AttestError::Away(format!("nothing within {DEADLINE:?}"))))
        })
    }
}

fn judge(status: &TokenReviewStatus, audiences: &[String]) -> Result<Caller, AttestError> {
    let rejected = |text: &str| AttestError::Rejected(text.to_owned());
    if status.authenticated != Some(true) {
        return Err(rejected("the api server does not accept the token"));
    }
    // An API server that knows no audiences leaves this empty and means a token for itself.
    if !status.audiences.iter().flatten().any(|audience| audiences.contains(audience)) {
        return Err(rejected("the token is for another audience"));
    }
    let user = status.user.as_ref().ok_or_else(|| rejected("the token has no subject"))?;
    let subject = user.username.as_deref().and_then(|name| name.strip_prefix(SUBJECT)?.split_once(':'));
    let (namespace, service_account) =
        subject.ok_or_else(|| rejected("the token is not a service account's"))?;
    let the_only = |key: &str| match user.extra.as_ref()?.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value.clone()),
        _ => None,
    };
    Ok(Caller {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        pod_name: the_only(POD_NAME).ok_or(AttestError::NotBound)?,
        pod_uid: the_only(POD_UID).ok_or(AttestError::NotBound)?,
    })
}

/// The token of the only `authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, AttestError> {
    let malformed = |text: &str| AttestError::Rejected(format!("authorization: {text}"));
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| malformed("expected a bearer token, got none"))?;
    if values.next().is_some() {
        return Err(malformed("expected one header, got several"));
    }
    let value = value.to_str().map_err(|_| malformed("expected visible ascii"))?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && is_token(token) => Ok(token),
        Some(_) | None => Err(malformed("expected a bearer token of visible ascii and at most 8 KiB")),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(status: Value) -> Result<Caller, AttestError> {
        judge(&serde_json::from_value(status).unwrap(), &["ringmail-ca".to_owned()])
    }

    fn sound() -> Value {
        json!({
            "authenticated": true,
            "audiences": ["ringmail-ca"],
            "user": {
                "username": "system:serviceaccount:ignite:node",
                "extra": { POD_NAME: ["ignite-0"], POD_UID: ["e7b4"] },
            },
        })
    }

    #[test]
    fn a_token_speaks_for_the_pod_it_is_bound_to() {
        let caller = judged(sound()).unwrap();
        let expected = ("ignite", "node", "ignite-0", "e7b4");
        let Caller { namespace, service_account, pod_name, pod_uid } = &caller;
        assert_eq!((&**namespace, &**service_account, &**pod_name, &**pod_uid), expected);
    }

    #[test]
    fn a_token_that_lacks_anything_speaks_for_nobody() {
        for (path, value) in [
            ("/authenticated", json!(false)),
            ("/audiences", json!([])),
            ("/audiences", json!(["https://kubernetes.default.svc"])),
            ("/user/username", json!("system:node:node1")),
            ("/user/username", json!("system:serviceaccount:ignite")),
            ("/user/extra", json!(null)),
            ("/user/extra", json!({ POD_NAME: ["a", "b"], POD_UID: ["c"] })),
            ("/user/extra", json!({ POD_NAME: ["a"], POD_UID: [""] })),
        ] {
            let mut status = sound();
            *status.pointer_mut(path).unwrap() = value.clone();
            judged(status).expect_err(&format!("{path} = {value}"));
        }
    }

    #[test]
    fn only_one_bearer_token_of_visible_ascii_is_read() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned).ok()
        };
        assert_eq!(read(&["Bearer a.b"]), Some("a.b".to_owned()));
        assert_eq!(read(&["bearer a.b"]), Some("a.b".to_owned()));
        for values in
            [&[][..], &["Bearer a", "Bearer b"], &["Basic a"], &["Bearer "], &["Bearer a b"], &["a"]]
        {
            assert_eq!(read(values), None, "{values:?}");
        }
    }
}
