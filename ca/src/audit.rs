//! One line per decision: who asked, what was decided, and why.
//!
//! A [`Reason`] is at once the word in the audit line, the label of the metric and the gRPC code of
//! the answer, so that the three can never disagree.

use std::net::SocketAddr;
use std::time::Duration;

use tonic::Code;
use tracing::Metadata;

use crate::attest::Caller;

/// Target of every audit line, for the log filters.
pub const TARGET: &str = "audit";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $label:literal => $code:ident, $advice:literal;)*) => {
        /// Why a request for a certificate was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)* }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word used in audit lines and as the metric's label.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// What it means, for the reference page.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)* }
            }

            /// What to do about it.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }

            /// The gRPC code of the answer.
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// No `authorization: Bearer` header.
    MissingToken = "missing_token" => Unauthenticated,
        "have the caller send its token; a sidecar does, so look who calls";
    /// The header or the token has no shape we know, or is too long.
    MalformedToken = "malformed_token" => Unauthenticated,
        "look who calls: a sidecar sends what its token_file holds";
    /// A token that no source knows.
    UnknownToken = "unknown_token" => Unauthenticated,
        "compare the caller's token_file with the static tokens of this CA";
    /// `alg` is neither RS256 nor ES256, or not the one of the key.
    TokenAlgorithm = "token_algorithm" => Unauthenticated,
        "have the issuer of tokens sign with RS256 or ES256";
    /// No key of the set has the token's `kid`.
    TokenUnknownKey = "token_unknown_key" => Unauthenticated,
        "bring the issuer's key set in the JWKS file up to date";
    /// The signature does not verify.
    TokenSignature = "token_signature" => Unauthenticated,
        "look who made the token: the key that it names did not sign it";
    /// `exp` is past.
    TokenExpired = "token_expired" => Unauthenticated,
        "look whether the pod's projected token is renewed, and at the clocks of both nodes";
    /// `nbf` is in the future.
    TokenNotYetValid = "token_not_yet_valid" => Unauthenticated,
        "look at the clocks of this node and of the issuer of tokens";
    /// `aud` names nobody that is asked for.
    TokenAudience = "token_audience" => Unauthenticated,
        "give the projected token of the pod the audience of this CA";
    /// `iss` is not the configured issuer.
    TokenIssuer = "token_issuer" => Unauthenticated,
        "compare the issuer in the settings with the cluster's";
    /// `sub` is not a service account.
    TokenSubject = "token_subject" => Unauthenticated,
        "send the token of a service account";
    /// The API server does not accept the token: forged, expired, of another audience, or its pod is deleted.
    TokenRejected = "token_rejected" => Unauthenticated,
        "look at the pod: it is deleted, or its projected token has another audience or has expired";
    /// The token is bound to no pod.
    TokenNotBound = "token_not_bound" => Unauthenticated,
        "use a projected token, which is bound to its pod, instead of a long-lived one";
    /// The token's pod is not there any more.
    PodGone = "pod_gone" => Unauthenticated,
        "nothing, if the pod was deleted; if it was not, somebody else uses its token";
    /// The token's pod has run to its end.
    PodEnded = "pod_ended" => Unauthenticated,
        "nothing, if the pod has ended; if it has not, somebody else uses its token";
    /// The API server gives no answer; nothing is known about the token.
    ApiServerAway = "api_server_away" => Unavailable,
        "look at the API server and at the network between it and this CA";
    /// The API server does not let this CA review tokens or look at pods.
    ApiServerRefused = "api_server_refused" => Unavailable,
        "apply the ClusterRole of this CA: it may not review tokens or look at pods";
    /// The request asked for somebody else's identity.
    Impersonation = "impersonation" => Unauthenticated,
        "look who calls: it asked for an identity that is not its token's";
    /// The bytes are not a request of this service.
    MalformedRequest = "malformed_request" => InvalidArgument,
        "look who calls: it is no agent of the protocol";
    /// The message is larger than any real request.
    RequestTooLarge = "request_too_large" => ResourceExhausted,
        "look who calls: no agent sends as much";
    /// The CSR is larger than any real one.
    CsrTooLarge = "csr_too_large" => InvalidArgument,
        "look who calls: no agent sends as much";
    /// The CSR is not PEM-encoded PKCS#10.
    CsrMalformed = "csr_malformed" => InvalidArgument,
        "look who calls: it is no agent of the protocol";
    /// The CSR's key is not P-256, P-384 or RSA of 2048 to 4096 bits.
    CsrKey = "csr_key" => InvalidArgument,
        "have the agent make a key of P-256, P-384, or RSA of 2048 to 4096 bits";
    /// The CSR is not signed by its own key.
    CsrSignature = "csr_signature" => InvalidArgument,
        "look who calls: it does not hold the key that it asks a certificate for";
    /// The asked lifetime exceeds the maximum.
    TtlTooLong = "ttl_too_long" => InvalidArgument,
        "ask for less, or raise the maximum in the settings of this CA";
    /// The signing certificate has expired.
    SignerExpired = "signer_expired" => Unavailable,
        "renew the signing certificate (docs/ca.md), now: nobody gets a certificate";
    /// The signing operation itself failed.
    SigningFailed = "signing_failed" => Internal,
        "look at the error, and report it";
    /// Too many requests at once.
    Overloaded = "overloaded" => ResourceExhausted,
        "nothing, if it passes: agents ask again; else give this CA more CPU or replicas";
    /// The request was not complete within its deadline.
    DeadlineExceeded = "deadline_exceeded" => DeadlineExceeded,
        "look at the CPU of this CA and at the network to the caller";
    /// Another service or method was called.
    UnknownMethod = "unknown_method" => Unimplemented,
        "look who calls: it speaks another protocol";
}

/// Whether a line is the record of a certificate, of which none may be missing. Lines of refusals are not: somebody who is
/// refused a thousand times a second is told by a few of them and a count.
pub fn is_record(line: &Metadata<'_>) -> bool {
    line.target() == TARGET && line.fields().field("serial").is_some()
}

/// What was issued, for the audit line.
#[derive(Debug)]
pub(crate) struct Issued<'a> {
    pub(crate) serial: &'a str,
    pub(crate) ttl: Duration,
    pub(crate) key: String,
    /// DNS names of the leaf, where it has any.
    pub(crate) names: Option<String>,
}

/// Writes the line of an issued certificate.
pub(crate) fn issued(address: SocketAddr, caller: &Caller, issued: &Issued<'_>) {
    tracing::info!(
        target: TARGET,
        outcome = "issued",
        identity = caller.identity.to_string(),
        pod = caller.pod.as_ref().map(|pod| pod.name.as_str()),
        pod_uid = caller.pod.as_ref().map(|pod| pod.uid.as_str()),
        node = caller.pod.as_ref().and_then(|pod| pod.node.as_deref()),
        names = issued.names.as_deref(),
        serial = issued.serial,
        ttl_seconds = issued.ttl.as_secs(),
        key = issued.key.as_str(),
        caller = address.to_string(),
    );
}

/// Writes the line of a refusal. `caller` is whom the token proved, when it did.
pub(crate) fn refused(address: SocketAddr, caller: Option<&Caller>, reason: Reason, error: &str) {
    let pod = caller.and_then(|caller| caller.pod.as_ref());
    tracing::info!(
        target: TARGET,
        outcome = "refused",
        reason = reason.as_str(),
        identity = caller.map(|caller| caller.identity.to_string()).unwrap_or_default(),
        pod = pod.map(|pod| pod.name.as_str()),
        pod_uid = pod.map(|pod| pod.uid.as_str()),
        node = pod.and_then(|pod| pod.node.as_deref()),
        error,
        advice = reason.advice(),
        caller = address.to_string(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let labels: HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        assert!(labels.iter().all(|l| l.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn no_refusal_is_answered_with_ok() {
        assert!(Reason::ALL.iter().all(|r| r.code() != Code::Ok));
    }
}
