//! Words that are not what their author may think are told, whatever is decided.

use super::*;

type Pairs = &'static [(&'static str, &'static str)];

const ISTIO: &str = "sidecar.istio.io/inject";
const LINKERD: &str = "linkerd.io/inject";
const OWN: &str = "ringmail.io/inject";
const ENABLED: Pairs = &[("istio-injection", "enabled")];

fn told(labels: Pairs, annotations: Pairs, namespace: &Namespace, cluster: Cluster) -> Vec<String> {
    let pod = pod(labels, annotations);
    let request = Request { pod: &pod, namespace, workload: None, cluster };
    unread(&request).iter().map(ToString::to_string).collect()
}

#[test]
fn a_word_that_nobody_can_read_is_told_with_its_place_its_value_and_what_was_expected() {
    for (labels, annotations, of_namespace, expected) in [
        (
            &[(ISTIO, "maybe")] as Pairs,
            &[] as Pairs,
            ENABLED,
            "the pod's label sidecar.istio.io/inject: \"maybe\"",
        ),
        (&[], &[(ISTIO, "maybe")], ENABLED, "the pod's annotation sidecar.istio.io/inject: \"maybe\""),
        (&[], &[], &[("istio-injection", "true")], "the namespace's label istio-injection: \"true\""),
        (&[], &[], &[(LINKERD, "true")], "the namespace's label linkerd.io/inject: \"true\""),
        (&[], &[], &[(ISTIO, "true")], "the namespace's label sidecar.istio.io/inject: \"true\""),
        (&[(ISTIO, "yes")], &[], &[], "the pod's label sidecar.istio.io/inject: \"yes\""),
        (&[], &[(ISTIO, "true")], &[], "the pod's annotation sidecar.istio.io/inject: \"true\""),
        (&[], &[(LINKERD, "foo")], ENABLED, "the pod's annotation linkerd.io/inject: \"foo\""),
        (
            &[(OWN, "enabled")],
            &[],
            &[(OWN, "perhaps")],
            "the namespace's label ringmail.io/inject: \"perhaps\"",
        ),
    ] {
        let told = told(labels, annotations, &namespace(of_namespace, &[]), NATIVE);
        assert_eq!(told.len(), 1, "{expected}: {told:?}");
        assert!(told[0].starts_with(expected) && told[0].contains(": expected "), "{expected}: {told:?}");
    }
    let of_namespace = namespace(&[], &[(LINKERD, "on")]);
    let told = told(&[], &[], &of_namespace, NATIVE);
    assert!(told[0].starts_with("the namespace's annotation linkerd.io/inject"), "{told:?}");
}

#[test]
fn words_that_are_read_and_a_no_where_nothing_asks_are_not_told() {
    for (labels, annotations, of_namespace) in [
        (&[] as Pairs, &[] as Pairs, &[] as Pairs),
        (&[("app", "ignite")], &[("note", "x")], &[("team", "a")]),
        (&[(ISTIO, "Yes")], &[], ENABLED),
        (&[(ISTIO, "off")], &[], ENABLED),
        (&[(ISTIO, "")], &[], ENABLED),
        (&[(ISTIO, "true")], &[(ISTIO, "maybe")], ENABLED),
        (&[(ISTIO, "true")], &[(ISTIO, "true")], &[]),
        (&[(ISTIO, "maybe")], &[], &[("istio-injection", "disabled")]),
        (&[], &[(ISTIO, "false")], &[]),
        (&[], &[], &[(ISTIO, "false")]),
        (&[], &[(LINKERD, "disabled")], &[(LINKERD, "ingress")]),
        (&[(OWN, "true")], &[(OWN, "false")], &[(OWN, "disabled")]),
        // This one is a refusal.
        (&[(OWN, "perhaps")], &[], &[]),
    ] {
        let told = told(labels, annotations, &namespace(of_namespace, &[]), NATIVE);
        assert!(told.is_empty(), "{labels:?} {annotations:?} {of_namespace:?}: {told:?}");
    }
}

#[test]
fn words_for_an_installed_injector_of_others_are_left_to_it() {
    let of_namespace = namespace(&[("istio-injection", "true"), (LINKERD, "true")], &[]);
    let with_istio = Cluster { istio_injects: true, ..NATIVE };
    assert!(told(&[], &[], &of_namespace, with_istio)[0].contains(LINKERD));
    let with_both = Cluster { linkerd_injects: true, ..with_istio };
    assert_eq!(told(&[], &[], &of_namespace, with_both), [""; 0]);
}
