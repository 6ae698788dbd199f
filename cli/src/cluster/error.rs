//! Why a cluster could not be asked: what was asked, where, and what to do.

use std::path::PathBuf;

/// Names that are listed: more than a line helps nobody.
const NAMES_SHOWN: usize = 10;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error(
        "{place}: {what}: forbidden: {message}; the ClusterRole ringmail-viewer of docs/cli.md has all that is needed"
    )]
    Forbidden { place: String, what: String, message: String },
    #[error("kubeconfig {path}: {cause}", path = path.display())]
    Kubeconfig { path: PathBuf, cause: String },
    #[error("kubeconfig {path}: no context {context:?}; it has {}", names(known), path = path.display())]
    NoContext { path: PathBuf, context: String, known: Vec<String> },
    #[error(
        "no cluster is known: {path} cannot be read: {cause}; name a kubeconfig by --kubeconfig or KUBECONFIG \
         (`explain --config` decides from files, without a cluster)",
        path = path.display()
    )]
    NoKubeconfig { path: PathBuf, cause: String },
    #[error("{place}: no namespace {namespace}")]
    NoNamespace { place: String, namespace: String },
    #[error("{place}: no pod {namespace}/{name}; {}", others(namespace, names))]
    NoPod { place: String, namespace: String, name: String, names: Vec<String> },
    #[error("{place}: {what}: {message}")]
    Refused { place: String, what: String, message: String },
    #[error(
        "{place}: the mesh's settings in ConfigMap {map} cannot be used by this ringmail, which is of version {}: {cause}; \
         where control runs with them, it is of another version",
        env!("CARGO_PKG_VERSION")
    )]
    Settings { place: String, map: String, cause: String },
    #[error(
        "{place}: {what}: unauthorized: the API server takes the credentials of the kubeconfig for nobody's; \
         log in again, or choose another --context"
    )]
    Unauthorized { place: String, what: String },
    #[error(
        "{place}: {what}: no answer: {cause}; is this the cluster that is meant (--context), and can it be reached \
         from here?"
    )]
    Unreachable { place: String, what: String, cause: String },
}

impl ClusterError {
    /// What the API server's client says about `what`, such as `list pods`.
    pub(crate) fn api(place: &str, what: impl Into<String>, error: &kube::Error) -> Self {
        let (place, what) = (place.to_owned(), what.into());
        let kube::Error::Api(status) = error else {
            return Self::Unreachable { place, what, cause: causes(error) };
        };
        match status.code {
            401 => Self::Unauthorized { place, what },
            403 => Self::Forbidden { place, what, message: status.message.clone() },
            _ => Self::Refused { place, what, message: status.message.clone() },
        }
    }
}

/// An error with what it rests on, each said once.
fn causes(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let mut text = text.strip_prefix("ServiceError: ").unwrap_or(&text).to_owned();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

fn others(namespace: &str, others: &[String]) -> String {
    if others.is_empty() {
        return format!("namespace {namespace} has no pods");
    }
    format!("namespace {namespace} has {}", names(others))
}

fn names(all: &[String]) -> String {
    match all.len() {
        0 => "none".to_owned(),
        count if count > NAMES_SHOWN => {
            format!("{} and {} more", all[..NAMES_SHOWN].join(", "), count - NAMES_SHOWN)
        }
        _ => all.join(", "),
    }
}
