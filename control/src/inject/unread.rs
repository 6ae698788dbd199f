//! Words about a sidecar that nobody can read. They ask for nothing and forbid nothing, so a typo would leave a pod outside
//! the mesh without a word; they are told, whatever is decided.

use super::decide::{
    ISTIO_INJECT, ISTIO_NAMESPACE, LINKERD_INJECT, RINGMAIL_INJECT, Source, is_no, is_yes, places,
};
use super::pod::Meta;
use super::{Namespace, Request, Warning};

/// What holds where a word is passed over.
const NOT_SAID: &str = "it counts as not said";

/// One warning for each label or annotation, of the pod or its namespace, that is about a sidecar and says nothing that
/// can be read. Words for an injector of another mesh's that is installed are left to it.
pub fn unread(request: &Request<'_>) -> Vec<Warning> {
    // What has no readable metadata is refused with the reason.
    let Ok(pod) = Meta::read(request.pod) else { return Vec::new() };
    let mut warnings = own(&pod, request.namespace);
    if !request.cluster.istio_injects {
        warnings.extend(istio(&pod, request.namespace));
    }
    if !request.cluster.linkerd_injects {
        warnings.extend(linkerd(&pod, request.namespace));
    }
    warnings
}

/// The first place decides, and what cannot be read there is refused.
fn own(pod: &Meta, namespace: &Namespace) -> Vec<Warning> {
    let passed_over = places(RINGMAIL_INJECT, pod, namespace).into_iter().skip(1);
    let unread = passed_over.filter(|(_, value)| !["enabled", "true", "disabled", "false"].contains(value));
    unread.map(|(source, value)| Warning::word(&source, value, "enabled or disabled", NOT_SAID)).collect()
}

fn linkerd(pod: &Meta, namespace: &Namespace) -> Vec<Warning> {
    let all = places(LINKERD_INJECT, pod, namespace).into_iter();
    let unread = all.filter(|(_, value)| !["enabled", "ingress", "disabled"].contains(value));
    let expected = "enabled, ingress or disabled";
    unread.map(|(source, value)| Warning::word(&source, value, expected, NOT_SAID)).collect()
}

fn istio(pod: &Meta, namespace: &Namespace) -> Vec<Warning> {
    match namespace.labels.get(ISTIO_NAMESPACE).map(String::as_str) {
        Some("enabled") => istio_in_namespace(pod).into_iter().collect(),
        // Whoever says so means the pods' own words to count for nothing.
        Some("disabled") => Vec::new(),
        Some(other) => {
            let source = Source::NamespaceLabel(ISTIO_NAMESPACE);
            vec![Warning::word(&source, other, "enabled or disabled", "it counts as disabled")]
        }
        None => istio_without_namespace(pod, namespace),
    }
}

fn istio_in_namespace(pod: &Meta) -> Option<Warning> {
    let (source, value) = istio_word(pod)?;
    let is_read = value.is_empty() || is_yes(value) || is_no(value);
    (!is_read).then(|| Warning::word(&source, value, "true or false", "it counts as false"))
}

/// Only the pod's label counts here, and only two words of it. An unread no is what holds anyway.
fn istio_without_namespace(pod: &Meta, namespace: &Namespace) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (source, value) in places(ISTIO_INJECT, pod, namespace) {
        let expected = match source {
            Source::PodLabel(_) if value == "true" => continue,
            Source::PodLabel(_) => "true or false, in these letters",
            Source::PodAnnotation(_) if pod.labels.contains_key(ISTIO_INJECT) => continue,
            Source::PodAnnotation(_) => "a label of the pod, as the namespace has no istio-injection",
            Source::NamespaceAnnotation(_) | Source::NamespaceLabel(_) => {
                "the namespace's label istio-injection: enabled"
            }
        };
        if !value.is_empty() && !is_no(value) {
            warnings.push(Warning::word(&source, value, expected, NOT_SAID));
        }
    }
    warnings
}

/// The pod's word as Istio's injector takes it: the label before the annotation.
fn istio_word(pod: &Meta) -> Option<(Source, &str)> {
    let label = pod.labels.get(ISTIO_INJECT).map(|value| (Source::PodLabel(ISTIO_INJECT), value.as_str()));
    let annotation = pod.annotations.get(ISTIO_INJECT);
    label.or_else(|| annotation.map(|value| (Source::PodAnnotation(ISTIO_INJECT), value.as_str())))
}
