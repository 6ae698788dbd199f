//! The API server's answer about a token, turned into a caller or a refusal. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use serde::Deserialize;

use super::TokenReviewRules;
use crate::attest::{AttestError, BoundPod, Caller, service_account};
use crate::cluster::cut;

const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Shorter parts of a token are no secret, and cutting them out would mangle the text.
const SECRET_PART: usize = 8;

/// As much of a TokenReview as matters here.
#[derive(Deserialize)]
pub(super) struct Reviewed {
    status: Option<TokenReviewStatus>,
}

/// The caller that the answer proves.
pub(super) fn judge(
    reviewed: Reviewed,
    rules: &TokenReviewRules,
    token: &str,
) -> Result<Caller, AttestError> {
    let status = reviewed.status.unwrap_or_default();
    if status.authenticated != Some(true) {
        let error = status.error.filter(|error| !error.is_empty());
        let error = error.unwrap_or_else(|| "it gives no reason".to_owned());
        return Err(AttestError::Rejected(without_token(&error, token)));
    }
    // An API server that knows no audiences leaves this empty and means a token for itself.
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|audience| rules.audiences.contains(audience)) {
        return Err(AttestError::Audience);
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.clone().unwrap_or_default();
    if !user.groups.iter().flatten().any(|group| group == SERVICE_ACCOUNTS) {
        return Err(AttestError::Subject(name));
    }
    let identity = service_account(&name, &rules.trust_domain)?;
    Ok(Caller { identity, pod: Some(bound_pod(&user)?) })
}

fn bound_pod(user: &UserInfo) -> Result<BoundPod, AttestError> {
    let extra = user.extra.as_ref();
    let name = the_only(extra, POD_NAME).filter(|name| is_object_name(name)).ok_or(AttestError::NotBound)?;
    let uid = the_only(extra, POD_UID).ok_or(AttestError::NotBound)?;
    Ok(BoundPod { name, uid, node: the_only(extra, NODE_NAME) })
}

fn the_only(extra: Option<&BTreeMap<String, Vec<String>>>, key: &str) -> Option<String> {
    match extra?.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value.clone()),
        _ => None,
    }
}

/// What may stand in a path of the API.
fn is_object_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !name.is_empty() && name.len() <= 253 && name.bytes().all(allowed) && !name.starts_with('.')
}

/// `text` without any part of `token`, and no longer than a line.
pub(super) fn without_token(text: &str, token: &str) -> String {
    let parts = std::iter::once(token).chain(token.split('.')).filter(|part| part.len() >= SECRET_PART);
    cut(&parts.fold(text.to_owned(), |text, part| text.replace(part, "<token>")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::token_review::PodCheck;
    use crate::audit::Reason;
    use serde_json::{Value, json};

    fn answered(status: Value) -> Result<Caller, AttestError> {
        let rules = TokenReviewRules {
            audiences: vec!["ringmail-ca".to_owned(), "istio-ca".to_owned()],
            trust_domain: "cluster.local".parse().unwrap(),
            pod_check: PodCheck::LookUp,
        };
        let reviewed = serde_json::from_value(json!({ "status": status })).unwrap();
        judge(reviewed, &rules, "header-part.claims-part.signature-part")
    }

    fn sound() -> Value {
        json!({
            "authenticated": true,
            "audiences": ["ringmail-ca"],
            "user": {
                "username": "system:serviceaccount:ignite:node",
                "uid": "1", "groups": ["system:serviceaccounts", "system:authenticated"],
                "extra": {
                    POD_NAME: ["ignite-0"],
                    POD_UID: ["e7b4"],
                    NODE_NAME: ["node1"],
                },
            },
        })
    }

    #[test]
    fn a_bound_token_of_a_service_account_proves_identity_and_pod() {
        let caller = answered(sound()).unwrap();
        assert_eq!(caller.identity.as_str(), "spiffe://cluster.local/ns/ignite/sa/node");
        let pod = caller.pod.unwrap();
        assert_eq!(
            (pod.name.as_str(), pod.uid.as_str(), pod.node.as_deref()),
            ("ignite-0", "e7b4", Some("node1"))
        );
    }

    #[test]
    fn every_missing_or_wrong_part_is_a_refusal_of_its_own() {
        let extra = |key: &str, value: Value| (format!("/user/extra/{}", key.replace('/', "~1")), value);
        let plain = |path: &str, value: Value| (path.to_owned(), value);
        for ((path, value), expected) in [
            (plain("/authenticated", json!(false)), Reason::TokenRejected),
            (plain("/authenticated", json!(null)), Reason::TokenRejected),
            (plain("/audiences", json!([])), Reason::TokenAudience),
            (plain("/audiences", json!(null)), Reason::TokenAudience),
            (plain("/audiences", json!(["https://kubernetes.default.svc"])), Reason::TokenAudience),
            (plain("/user", json!(null)), Reason::TokenSubject),
            (plain("/user/groups", json!(["system:authenticated"])), Reason::TokenSubject),
            (plain("/user/username", json!("system:node:node1")), Reason::TokenSubject),
            (plain("/user/username", json!("system:serviceaccount:ignite")), Reason::TokenSubject),
            (plain("/user/username", json!("system:serviceaccount:a:b:c")), Reason::TokenSubject),
            (plain("/user/username", json!("system:serviceaccount:a/../b:c")), Reason::TokenSubject),
            (plain("/user/extra", json!(null)), Reason::TokenNotBound),
            (extra(POD_NAME, json!([])), Reason::TokenNotBound),
            (extra(POD_NAME, json!(["a", "b"])), Reason::TokenNotBound),
            (extra(POD_NAME, json!(["../../secrets/x"])), Reason::TokenNotBound),
            (extra(POD_UID, json!([""])), Reason::TokenNotBound),
        ] {
            let mut status = sound();
            *status.pointer_mut(&path).unwrap() = value.clone();
            let error = answered(status).expect_err(&path);
            assert_eq!(error.reason(), expected, "{path} = {value}");
        }
        let mut status = sound();
        status.pointer_mut("/user/extra").unwrap().as_object_mut().unwrap().remove(NODE_NAME);
        assert_eq!(answered(status).unwrap().pod.unwrap().node, None, "older API servers know no node");
    }

    #[test]
    fn the_api_servers_word_is_passed_on_without_any_part_of_the_token() {
        let error = "invalid claims-part of header-part.claims-part.signature-part, audiences [\"x\"]";
        let error = answered(json!({ "authenticated": false, "error": error })).unwrap_err().to_string();
        assert_eq!(
            error,
            "api server does not accept the token: invalid <token> of <token>, audiences [\"x\"]"
        );
    }
}
