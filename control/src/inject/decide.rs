//! Whether anybody asked for a sidecar: the labels and annotations of three meshes, each with its own precedence.
//!
//! Istio's are read as its webhooks' selectors and its injector read them together, Linkerd's as its injector does.
//! What belongs to an injector of theirs that is installed is left to it, so that nobody is injected twice.

use std::fmt;

use super::pod::Meta;
use super::{Cluster, InjectConfig, Namespace, Refusal};

pub(super) const ISTIO_INJECT: &str = "sidecar.istio.io/inject";
pub(super) const ISTIO_NAMESPACE: &str = "istio-injection";
pub(super) const ISTIO_REVISION: &str = "istio.io/rev";
pub(super) const ISTIO_MODE: &str = "istio.io/dataplane-mode";
pub(super) const LINKERD_INJECT: &str = "linkerd.io/inject";
pub(super) const RINGMAIL_INJECT: &str = "ringmail.io/inject";

/// Whose label or annotation asked. It names the sidecar's container, because guides and tools look for that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// One of Istio's: `istio-proxy`.
    Istio,
    /// One of Linkerd's, and none of Istio's: `linkerd-proxy`.
    Linkerd,
    /// Only `ringmail.io/inject`: `ringmail-proxy`.
    Ringmail,
}

/// Another mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// Istio.
    Istio,
    /// Linkerd.
    Linkerd,
}

/// Where something was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In an annotation of the namespace.
    NamespaceAnnotation(&'static str),
    /// In a label of the namespace.
    NamespaceLabel(&'static str),
    /// In an annotation of the pod.
    PodAnnotation(&'static str),
    /// In a label of the pod.
    PodLabel(&'static str),
}

/// Why a pod is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// The namespace's pods must start before any mesh does.
    #[error("pods of namespace {namespace} are never injected")]
    NeverInjected {
        /// The namespace.
        namespace: String,
    },
    /// Nothing asks for a sidecar.
    #[error("nothing asks for a sidecar")]
    NotAsked,
    /// Somebody does not want it.
    #[error("{source_of} says {value:?}")]
    OptedOut {
        /// Where it is said.
        source_of: Source,
        /// What is said.
        value: String,
    },
    /// It was another mesh's injector that was asked, and it is installed.
    #[error(
        "{source_of} asks the injector of {mesh}, which is installed; {RINGMAIL_INJECT} asks for Ringmail"
    )]
    OtherInjector {
        /// Whose injector.
        mesh: Mesh,
        /// Where it is asked.
        source_of: Source,
    },
    /// It was a revision of Istio's that was asked for.
    #[error(
        "{source_of} asks for revision {revision:?} of Istio, which Ringmail is not; {ISTIO_NAMESPACE}=enabled or \
         {RINGMAIL_INJECT} asks for Ringmail"
    )]
    Revision {
        /// Where it is asked.
        source_of: Source,
        /// The revision.
        revision: String,
    },
}

impl Skip {
    /// Whether somebody asked for a sidecar and should hear why there is none.
    pub fn is_worth_a_warning(&self) -> bool {
        match self {
            Self::OtherInjector { .. } | Self::Revision { .. } => true,
            Self::NeverInjected { .. } | Self::NotAsked | Self::OptedOut { .. } => false,
        }
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Istio => "Istio",
            Self::Linkerd => "Linkerd",
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NamespaceAnnotation(name) => write!(f, "the namespace's annotation {name}"),
            Self::NamespaceLabel(name) => write!(f, "the namespace's label {name}"),
            Self::PodAnnotation(name) => write!(f, "the pod's annotation {name}"),
            Self::PodLabel(name) => write!(f, "the pod's label {name}"),
        }
    }
}

impl Source {
    fn is_pods(&self) -> bool {
        match self {
            Self::PodAnnotation(_) | Self::PodLabel(_) => true,
            Self::NamespaceAnnotation(_) | Self::NamespaceLabel(_) => false,
        }
    }
}

pub(super) enum Decision {
    /// Who asked, and where it is said.
    Inject(AskedBy, Source),
    Skip(Skip),
}

/// What the labels and annotations of one mesh say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    No(Source, String),
    Revision(Source, String),
    Silent,
    Yes(Source),
}

impl Answer {
    fn is_yes(&self) -> bool {
        matches!(self, Self::Yes(_))
    }

    fn is_pods(&self) -> bool {
        match self {
            Self::No(source, _) | Self::Revision(source, _) | Self::Yes(source) => source.is_pods(),
            Self::Silent => false,
        }
    }
}

pub(super) fn decide(
    pod: &Meta,
    namespace: &Namespace,
    cluster: Cluster,
    config: &InjectConfig,
) -> Result<Decision, Refusal> {
    if config.never_inject_namespaces.contains(&namespace.name) {
        return Ok(Decision::Skip(Skip::NeverInjected { namespace: namespace.name.clone() }));
    }
    let own = ringmail(pod, namespace)?;
    let (istio, linkerd) = (istio(pod, namespace), linkerd(pod, namespace));
    let installed = |mesh| match mesh {
        Mesh::Istio => cluster.istio_injects,
        Mesh::Linkerd => cluster.linkerd_injects,
    };
    let meshes = [(Mesh::Istio, &istio), (Mesh::Linkerd, &linkerd)];
    let ours: Vec<_> = meshes.iter().filter(|(mesh, _)| !installed(*mesh)).collect();
    let is_injected = is_injected(&own, &ours);
    if !is_injected {
        return Ok(Decision::Skip(why_not(own, &meshes, installed)));
    }
    for (mesh, answer) in meshes {
        if installed(mesh)
            && let Answer::Yes(source_of) = answer
        {
            return Err(Refusal::TwoInjectors { mesh, source_of: source_of.clone() });
        }
    }
    ambient(pod, namespace, cluster)?;
    let asked = |mesh| ours.iter().any(|(of, answer)| *of == mesh && answer.is_yes());
    let asked_by = if asked(Mesh::Istio) {
        AskedBy::Istio
    } else if asked(Mesh::Linkerd) {
        AskedBy::Linkerd
    } else {
        AskedBy::Ringmail
    };
    Ok(Decision::Inject(asked_by, deciding(&own, &ours)))
}

/// The yes that decided: the pod's before its namespace's, our own word before the others'.
fn deciding(own: &Answer, others: &[&(Mesh, &Answer)]) -> Source {
    let all = || [own].into_iter().chain(others.iter().map(|(_, answer)| *answer));
    let yes = |answer: &Answer| match answer {
        Answer::Yes(source) => Some(source.clone()),
        Answer::No(..) | Answer::Revision(..) | Answer::Silent => None,
    };
    let of_pod = all().filter(|answer| answer.is_pods()).find_map(yes);
    of_pod.or_else(|| all().find_map(yes)).unwrap_or(Source::PodLabel(RINGMAIL_INJECT))
}

/// What the pod says beats what its namespace says; at the pod, our own word beats the others' and a no beats a yes.
fn is_injected(own: &Answer, others: &[&(Mesh, &Answer)]) -> bool {
    if own.is_pods() {
        return own.is_yes();
    }
    let of_pod: Vec<_> = others.iter().filter(|(_, answer)| answer.is_pods()).collect();
    if of_pod.iter().any(|(_, answer)| matches!(answer, Answer::No(..))) {
        return false;
    }
    if of_pod.iter().any(|(_, answer)| answer.is_yes()) {
        return true;
    }
    match own {
        Answer::No(..) => false,
        Answer::Yes(_) => true,
        Answer::Revision(..) | Answer::Silent => others.iter().any(|(_, answer)| answer.is_yes()),
    }
}

/// The most telling reason: what the pod says itself, then an injector of others, then the namespace's no.
fn why_not(own: Answer, meshes: &[(Mesh, &Answer); 2], installed: impl Fn(Mesh) -> bool) -> Skip {
    let no = |answer: &Answer| match answer {
        Answer::No(source_of, value) => {
            Some(Skip::OptedOut { source_of: source_of.clone(), value: value.clone() })
        }
        Answer::Revision(..) | Answer::Silent | Answer::Yes(_) => None,
    };
    let ours = || meshes.iter().filter(|(mesh, _)| !installed(*mesh)).map(|(_, answer)| *answer);
    let of_pod = [&own].into_iter().chain(ours()).filter(|answer| answer.is_pods()).find_map(no);
    let others = meshes.iter().filter(|(mesh, _)| installed(*mesh)).find_map(|(mesh, answer)| match answer {
        Answer::Yes(source_of) => Some(Skip::OtherInjector { mesh: *mesh, source_of: source_of.clone() }),
        Answer::No(..) | Answer::Revision(..) | Answer::Silent => None,
    });
    let revision = ours().find_map(|answer| match answer {
        Answer::Revision(source_of, revision) => {
            Some(Skip::Revision { source_of: source_of.clone(), revision: revision.clone() })
        }
        Answer::No(..) | Answer::Silent | Answer::Yes(_) => None,
    });
    let of_namespace = || [&own].into_iter().chain(ours()).find_map(no);
    of_pod.or(others).or(revision).or_else(of_namespace).unwrap_or(Skip::NotAsked)
}

/// Four selectors of Istio's webhooks, then what its injector makes of the pod's own word.
fn istio(pod: &Meta, namespace: &Namespace) -> Answer {
    let label = pod.labels.get(ISTIO_INJECT);
    match namespace.labels.get(ISTIO_NAMESPACE).map(String::as_str) {
        Some("enabled") => {}
        Some(other) => return Answer::No(Source::NamespaceLabel(ISTIO_NAMESPACE), other.to_owned()),
        None => return istio_without_namespace(pod, namespace),
    }
    // The injector reads the label as one of YAML's words for yes; the selector has already taken a plain false.
    let annotation = pod.annotations.get(ISTIO_INJECT);
    let (source, value) = match (label, annotation) {
        (Some(label), _) => (Source::PodLabel(ISTIO_INJECT), label.as_str()),
        (None, Some(annotation)) => (Source::PodAnnotation(ISTIO_INJECT), annotation.as_str()),
        (None, None) => return Answer::Yes(Source::NamespaceLabel(ISTIO_NAMESPACE)),
    };
    match value {
        "" => Answer::Yes(Source::NamespaceLabel(ISTIO_NAMESPACE)),
        value if is_yes(value) => Answer::Yes(source),
        _ => Answer::No(source, value.to_owned()),
    }
}

/// YAML's words for yes.
pub(super) fn is_yes(value: &str) -> bool {
    ["y", "yes", "true", "on"].contains(&value.to_lowercase().as_str())
}

/// YAML's words for no.
pub(super) fn is_no(value: &str) -> bool {
    ["n", "no", "false", "off"].contains(&value.to_lowercase().as_str())
}

/// Without the namespace's label only the pod's label counts, and only `true` itself: selectors compare text.
fn istio_without_namespace(pod: &Meta, namespace: &Namespace) -> Answer {
    let label = pod.labels.get(ISTIO_INJECT);
    if label.is_some_and(|label| label == "false") {
        return Answer::No(Source::PodLabel(ISTIO_INJECT), "false".to_owned());
    }
    if let Some(revision) = namespace.labels.get(ISTIO_REVISION) {
        return Answer::Revision(Source::NamespaceLabel(ISTIO_REVISION), revision.clone());
    }
    if let Some(revision) = pod.labels.get(ISTIO_REVISION) {
        return Answer::Revision(Source::PodLabel(ISTIO_REVISION), revision.clone());
    }
    match label.map(String::as_str) {
        Some("true") => Answer::Yes(Source::PodLabel(ISTIO_INJECT)),
        Some(_) | None => Answer::Silent,
    }
}

/// The pod's word, then the namespace's. Linkerd reads annotations; labels are taken too, since selectors can see them.
fn linkerd(pod: &Meta, namespace: &Namespace) -> Answer {
    for (source, value) in places(LINKERD_INJECT, pod, namespace) {
        match value {
            "enabled" | "ingress" => return Answer::Yes(source),
            "disabled" => return Answer::No(source, value.to_owned()),
            _ => {}
        }
    }
    Answer::Silent
}

/// The pod's word, then the namespace's. A word that is neither yes nor no would leave the pod in plaintext unseen.
fn ringmail(pod: &Meta, namespace: &Namespace) -> Result<Answer, Refusal> {
    match places(RINGMAIL_INJECT, pod, namespace).into_iter().next() {
        None => Ok(Answer::Silent),
        Some((source, value)) => match value {
            "enabled" | "true" => Ok(Answer::Yes(source)),
            "disabled" | "false" => Ok(Answer::No(source, value.to_owned())),
            _ => Err(Refusal::UnknownWord { source_of: source, value: value.to_owned() }),
        },
    }
}

pub(super) fn places<'a>(
    name: &'static str,
    pod: &'a Meta,
    namespace: &'a Namespace,
) -> Vec<(Source, &'a str)> {
    [
        (Source::PodLabel(name), pod.labels.get(name)),
        (Source::PodAnnotation(name), pod.annotations.get(name)),
        (Source::NamespaceLabel(name), namespace.labels.get(name)),
        (Source::NamespaceAnnotation(name), namespace.annotations.get(name)),
    ]
    .into_iter()
    .filter_map(|(source, value)| value.map(|value| (source, value.as_str())))
    .collect()
}

/// Istio's node proxy would carry the same connections a second time.
fn ambient(pod: &Meta, namespace: &Namespace, cluster: Cluster) -> Result<(), Refusal> {
    let mode = pod.labels.get(ISTIO_MODE).map(|mode| (Source::PodLabel(ISTIO_MODE), mode));
    let of_namespace =
        || namespace.labels.get(ISTIO_MODE).map(|mode| (Source::NamespaceLabel(ISTIO_MODE), mode));
    match mode.or_else(of_namespace) {
        Some((source_of, mode)) if cluster.istio_injects && mode == "ambient" => {
            Err(Refusal::TwoInjectors { mesh: Mesh::Istio, source_of })
        }
        Some(_) | None => Ok(()),
    }
}
