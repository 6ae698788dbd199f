//! AdmissionReviews, as text in and text out; pure but for what it is told.
//!
//! Only what is looked at is typed; the pod stays the JSON that came, because the patch must fit exactly that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::inject::{Injected, Outcome, Refusal, Skip, Warning};

/// The version that is spoken; API servers have had it since 1.16.
const API_VERSION: &str = "admission.k8s.io/v1";

/// More warnings than anybody reads; the API server keeps 4 KiB of them.
const MAX_WARNINGS: usize = 16;

/// A request of the API server's.
#[derive(Debug)]
pub struct Review {
    /// What the answer is known by; never empty.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Nothing may be done but to answer.
    pub dry_run: bool,
    /// The pod; `None` for anything but the creation of one.
    pub pod: Option<Value>,
}

/// Why a body is no request, so that there is nobody to answer in kind.
#[derive(Debug, thiserror::Error)]
pub enum NoReview {
    /// It is not the JSON of one.
    #[error("not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another version, or of another kind.
    #[error("{found:?} is not spoken here, expected {API_VERSION} AdmissionReview")]
    Version {
        /// What it says of itself.
        found: String,
    },
    /// There is nobody to answer.
    #[error("the AdmissionReview has no request with a uid")]
    NoRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReview {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<RawRequest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRequest {
    uid: String,
    resource: Option<Resource>,
    sub_resource: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    dry_run: Option<bool>,
    object: Option<Value>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resource: String,
}

impl Review {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`NoReview`].
    pub fn read(body: &[u8]) -> Result<Self, NoReview> {
        let raw: RawReview = serde_json::from_slice(body)?;
        if raw.api_version != API_VERSION || raw.kind != "AdmissionReview" {
            return Err(NoReview::Version { found: format!("{} {}", raw.api_version, raw.kind) });
        }
        let request = raw.request.filter(|request| !request.uid.is_empty()).ok_or(NoReview::NoRequest)?;
        let is_pod =
            request.resource.is_some_and(|resource| resource.group.is_empty() && resource.resource == "pods");
        let is_whole = request.sub_resource.is_none_or(|name| name.is_empty());
        let is_creation = is_pod && is_whole && request.operation == "CREATE";
        Ok(Self {
            uid: request.uid,
            namespace: request.namespace.unwrap_or_default(),
            dry_run: request.dry_run.unwrap_or(false),
            pod: request.object.filter(|_| is_creation),
        })
    }
}

/// What the API server is told.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// As it is, with these warnings.
    Allowed(Vec<String>),
    /// With the patch.
    Injected(Box<Injected>),
    /// Not at all: the pod's fault.
    Refused(Refusal),
    /// Not now: our fault.
    Unable(String),
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Injected(injected) => Self::Injected(injected),
            Outcome::Refused(refusal) => Self::Refused(refusal),
            Outcome::Skipped(skip) => Self::Allowed(skip_warning(&skip)),
        }
    }
}

fn skip_warning(skip: &Skip) -> Vec<String> {
    if skip.is_worth_a_warning() { vec![format!("ringmail: not injected: {skip}")] } else { Vec::new() }
}

impl Verdict {
    /// The label of metrics and logs.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "skipped",
            Self::Injected(_) => "injected",
            Self::Refused(_) => "refused",
            Self::Unable(_) => "unable",
        }
    }
}

/// A verdict, and the words about a sidecar that nobody could read, which are told whatever it is.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) verdict: Verdict,
    pub(crate) unread: Vec<Warning>,
}

impl From<Verdict> for Decided {
    /// Without such words.
    fn from(verdict: Verdict) -> Self {
        Self { verdict, unread: Vec::new() }
    }
}

impl Decided {
    /// What there are events of.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let of_verdict: &[Warning] = match &self.verdict {
            Verdict::Injected(injected) => &injected.warnings,
            Verdict::Allowed(_) | Verdict::Refused(_) | Verdict::Unable(_) => &[],
        };
        self.unread.iter().chain(of_verdict).cloned().collect()
    }

    /// The AdmissionReview that answers the request `uid`.
    pub(crate) fn answer(&self, uid: &str) -> String {
        let mut response = json!({"uid": uid, "allowed": true});
        let mut warnings = told(&self.warnings());
        match &self.verdict {
            Verdict::Allowed(more) => warnings.extend_from_slice(more),
            Verdict::Injected(injected) => {
                // A patch of nothing is no patch to the API server.
                if !injected.patch.0.is_empty() {
                    response["patchType"] = json!("JSONPatch");
                    response["patch"] = json!(STANDARD.encode(json!(injected.patch).to_string()));
                }
            }
            Verdict::Refused(refusal) => deny(&mut response, 403, &format!("ringmail: {refusal}")),
            Verdict::Unable(fault) => {
                deny(&mut response, 503, &format!("ringmail cannot decide: {fault}"));
            }
        }
        if !warnings.is_empty() {
            response["warnings"] = json!(warnings);
        }
        json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}).to_string()
    }
}

fn told(warnings: &[Warning]) -> Vec<String> {
    let mut told: Vec<String> = warnings.iter().take(MAX_WARNINGS).map(ToString::to_string).collect();
    if warnings.len() > MAX_WARNINGS {
        told.push(format!("and {} more", warnings.len() - MAX_WARNINGS));
    }
    told
}

fn deny(response: &mut Value, code: u16, message: &str) {
    response["allowed"] = json!(false);
    response["status"] = json!({"status": "Failure", "code": code, "message": message});
}
