//! One row for each rule of precedence.

use super::*;

#[derive(Debug, PartialEq)]
enum Expected {
    Injected(&'static str),
    Refused,
    Skipped(&'static str),
}
use Expected::{Injected as As, Refused as No, Skipped as Left};

type Pairs = &'static [(&'static str, &'static str)];

/// Labels and annotations of the pod, then of the namespace.
struct Row(Pairs, Pairs, Pairs, Pairs, Expected);

fn said(pod: &Value, namespace: &Namespace, cluster: Cluster) -> String {
    match outcome(pod, namespace, cluster) {
        Outcome::Injected(injected) => sidecar(&injected.pod)["name"].as_str().unwrap().to_owned(),
        Outcome::Refused(refusal) => format!("refused: {refusal}"),
        Outcome::Skipped(skip) => format!("skipped: {skip}"),
    }
}

fn check(rows: &[Row], cluster: Cluster) {
    for Row(labels, annotations, namespace_labels, namespace_annotations, expected) in rows {
        let said =
            said(&pod(labels, annotations), &namespace(namespace_labels, namespace_annotations), cluster);
        let holds = match expected {
            As(name) => said == *name,
            No => said.starts_with("refused: "),
            Left(why) => said.starts_with("skipped: ") && said.contains(why),
        };
        assert!(
            holds,
            "pod {labels:?} {annotations:?}, namespace {namespace_labels:?} {namespace_annotations:?}: {said}, expected {expected:?}"
        );
    }
}

const ISTIO: &str = "sidecar.istio.io/inject";
const LINKERD: &str = "linkerd.io/inject";
const OWN: &str = "ringmail.io/inject";
const ENABLED: Pairs = &[("istio-injection", "enabled")];

#[test]
fn istios_labels_and_annotations_have_istios_precedence() {
    check(
        &[
            Row(&[], &[], ENABLED, &[], As("istio-proxy")),
            Row(&[], &[], &[("istio-injection", "disabled")], &[], Left("istio-injection")),
            Row(&[(ISTIO, "true")], &[], &[("istio-injection", "disabled")], &[], Left("istio-injection")),
            Row(&[(ISTIO, "true")], &[], &[], &[], As("istio-proxy")),
            Row(&[(ISTIO, "yes")], &[], &[], &[], Left("nothing asks")),
            Row(&[], &[(ISTIO, "true")], &[], &[], Left("nothing asks")),
            Row(&[(ISTIO, "false")], &[], ENABLED, &[], Left("pod's label sidecar.istio.io/inject")),
            Row(&[], &[(ISTIO, "false")], ENABLED, &[], Left("pod's annotation sidecar.istio.io/inject")),
            Row(&[(ISTIO, "true")], &[(ISTIO, "false")], ENABLED, &[], As("istio-proxy")),
            Row(&[(ISTIO, "false")], &[(ISTIO, "true")], ENABLED, &[], Left("pod's label")),
            Row(&[(ISTIO, "Yes")], &[], ENABLED, &[], As("istio-proxy")),
            Row(&[(ISTIO, "on")], &[], ENABLED, &[], As("istio-proxy")),
            Row(&[(ISTIO, "maybe")], &[], ENABLED, &[], Left("\"maybe\"")),
            Row(&[(ISTIO, "")], &[], ENABLED, &[], As("istio-proxy")),
            Row(&[], &[], &[("istio.io/rev", "canary")], &[], Left("revision \"canary\" of Istio")),
            Row(&[("istio.io/rev", "canary")], &[], &[], &[], Left("revision \"canary\" of Istio")),
            Row(&[(ISTIO, "true"), ("istio.io/rev", "canary")], &[], &[], &[], Left("revision")),
            Row(&[("istio.io/rev", "canary")], &[], ENABLED, &[], As("istio-proxy")),
            Row(
                &[],
                &[],
                &[("istio-injection", "enabled"), ("istio.io/rev", "canary")],
                &[],
                As("istio-proxy"),
            ),
        ],
        NATIVE,
    );
}

#[test]
fn linkerds_pod_annotation_beats_its_namespaces() {
    check(
        &[
            Row(&[], &[], &[], &[(LINKERD, "enabled")], As("linkerd-proxy")),
            Row(&[], &[], &[(LINKERD, "enabled")], &[], As("linkerd-proxy")),
            Row(&[], &[(LINKERD, "enabled")], &[], &[], As("linkerd-proxy")),
            Row(&[], &[(LINKERD, "ingress")], &[], &[], As("linkerd-proxy")),
            Row(
                &[],
                &[(LINKERD, "disabled")],
                &[],
                &[(LINKERD, "enabled")],
                Left("pod's annotation linkerd.io/inject"),
            ),
            Row(&[], &[(LINKERD, "enabled")], &[], &[(LINKERD, "disabled")], As("linkerd-proxy")),
            Row(&[], &[(LINKERD, "what")], &[], &[(LINKERD, "enabled")], As("linkerd-proxy")),
            Row(&[], &[(LINKERD, "what")], &[], &[], Left("nothing asks")),
        ],
        NATIVE,
    );
}

#[test]
fn our_own_word_decides_and_the_container_is_named_by_who_asked() {
    check(
        &[
            Row(&[], &[], &[(OWN, "enabled")], &[], As("ringmail-proxy")),
            Row(&[], &[], &[], &[(OWN, "true")], As("ringmail-proxy")),
            Row(&[(OWN, "enabled")], &[], &[], &[], As("ringmail-proxy")),
            Row(&[], &[(OWN, "enabled")], &[], &[], As("ringmail-proxy")),
            Row(&[(OWN, "disabled")], &[(OWN, "enabled")], &[], &[], Left("pod's label ringmail.io/inject")),
            Row(&[(OWN, "disabled")], &[], ENABLED, &[], Left("pod's label ringmail.io/inject")),
            Row(&[(OWN, "enabled")], &[(ISTIO, "false")], ENABLED, &[], As("ringmail-proxy")),
            Row(&[(OWN, "enabled")], &[], ENABLED, &[], As("istio-proxy")),
            Row(&[(OWN, "enabled")], &[(LINKERD, "enabled")], &[], &[], As("linkerd-proxy")),
            Row(&[], &[(LINKERD, "enabled")], ENABLED, &[], As("istio-proxy")),
            Row(
                &[(ISTIO, "false")],
                &[],
                &[(OWN, "enabled")],
                &[],
                Left("pod's label sidecar.istio.io/inject"),
            ),
            Row(&[], &[(LINKERD, "disabled")], ENABLED, &[], Left("pod's annotation linkerd.io/inject")),
            Row(&[(ISTIO, "true")], &[], &[(OWN, "disabled")], &[], As("istio-proxy")),
            Row(
                &[],
                &[],
                &[("istio-injection", "enabled"), (OWN, "disabled")],
                &[],
                Left("namespace's label ringmail.io/inject"),
            ),
            Row(&[], &[], &[("istio-injection", "disabled")], &[(LINKERD, "enabled")], As("linkerd-proxy")),
            Row(&[(OWN, "perhaps")], &[], &[], &[], No),
            Row(&[], &[], &[(OWN, "")], &[], No),
        ],
        NATIVE,
    );
}

#[test]
fn what_an_installed_injector_is_asked_for_is_left_to_it() {
    let with_istio = Cluster { istio_injects: true, ..NATIVE };
    check(
        &[
            Row(&[], &[], ENABLED, &[], Left("injector of Istio, which is installed")),
            Row(&[(ISTIO, "true")], &[], &[], &[], Left("injector of Istio")),
            Row(&[], &[], &[(OWN, "enabled")], &[], As("ringmail-proxy")),
            Row(&[(ISTIO, "false")], &[], &[(OWN, "enabled")], &[], As("ringmail-proxy")),
            Row(&[], &[], &[("istio-injection", "enabled"), (OWN, "enabled")], &[], No),
            Row(&[], &[], &[("istio.io/dataplane-mode", "ambient"), (OWN, "enabled")], &[], No),
            Row(&[], &[(LINKERD, "enabled")], &[], &[], As("linkerd-proxy")),
        ],
        with_istio,
    );
    let with_linkerd = Cluster { linkerd_injects: true, ..NATIVE };
    check(
        &[
            Row(&[], &[(LINKERD, "enabled")], &[], &[], Left("injector of Linkerd")),
            Row(&[(OWN, "enabled")], &[], &[], &[(LINKERD, "enabled")], No),
            Row(&[], &[], ENABLED, &[], As("istio-proxy")),
        ],
        with_linkerd,
    );
}

#[test]
fn pods_that_must_start_before_any_mesh_are_never_injected() {
    for name in ["kube-system", "kube-public", "kube-node-lease", "local-path-storage", "ringmail-system"] {
        let namespace = Namespace { name: name.to_owned(), ..namespace(ENABLED, &[]) };
        let said = said(&pod(&[(OWN, "enabled")], &[]), &namespace, NATIVE);
        assert_eq!(said, format!("skipped: pods of namespace {name} are never injected"));
    }
}
