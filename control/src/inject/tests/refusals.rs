//! What must not run, and the words a user reads of it.

use std::collections::BTreeSet;

use ringmail_evidence::shown;
use ringmail_init::config::{Parsed, SIDECAR_PORTS};

use super::*;

fn refusal(change: impl Fn(&mut Value)) -> String {
    let mut pod = pod(&[], &[]);
    change(&mut pod);
    match outcome(&pod, &istio_namespace(), NATIVE) {
        Outcome::Refused(refusal) => refusal.to_string(),
        other @ (Outcome::Injected(_) | Outcome::Skipped(_)) => panic!("{other:?}"),
    }
}

#[test]
fn pods_that_cannot_be_in_the_mesh_are_refused_with_the_reason() {
    let container = |name: &str| json!({"name": name, "image": "x"});
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/spec/hostNetwork", json!(true), "hostNetwork: true"),
        ("/spec/os", json!({"name": "windows"}), "for Windows"),
        ("/spec/nodeSelector", json!({"kubernetes.io/os": "windows"}), "for Windows"),
        ("/spec/securityContext", json!({"runAsUser": 1337}), "the pod: runAsUser: 1337"),
        ("/spec/securityContext", json!({"runAsGroup": 1337}), "the pod: runAsGroup: 1337"),
        (
            "/spec/securityContext",
            json!({"supplementalGroups": [1000, 1337]}),
            "the pod: supplementalGroups: 1337",
        ),
        ("/spec/securityContext", json!({"fsGroup": 1337}), "the pod: fsGroup: 1337"),
        ("/spec/containers/0/securityContext", json!({"runAsUser": 1337}), "container \"ignite\": runAsUser"),
        (
            "/spec/containers/0/securityContext",
            json!({"runAsGroup": 1337}),
            "container \"ignite\": runAsGroup",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "securityContext": {"runAsUser": 1337}}]),
            "container \"i\"",
        ),
        ("/spec/initContainers", json!([container("istio-init")]), "belongs to Istio"),
        ("/spec/containers/1", container("linkerd-proxy"), "belongs to Linkerd"),
        ("/spec/containers/1", container("envoy"), "an Envoy"),
        ("/spec/containers/1", container("ringmail-proxy"), "\"ringmail-proxy\" is already in the pod"),
        (
            "/spec/initContainers",
            json!([container("ringmail-init")]),
            "\"ringmail-init\" is already in the pod",
        ),
        ("/spec/volumes", json!([{"name": "ringmail-token"}]), "volume \"ringmail-token\""),
        ("/spec/containers/0/ports", json!([{"containerPort": 15020}]), "declares port 15020"),
        ("/spec/containers", json!([]), "spec.containers is empty"),
        ("/spec/containers", json!(7), "not a pod"),
        ("/spec", Value::Null, "not a pod"),
        ("/metadata/name", json!("x".repeat(MAX_POD_BYTES)), "bytes of JSON, expected at most"),
    ];
    for (path, value, expected) in cases {
        let said = refusal(|pod| {
            if let Some(place) = path.strip_suffix("/1") {
                pod.pointer_mut(place).unwrap().as_array_mut().unwrap().push(value.clone());
            } else {
                let (parent, key) = path.rsplit_once('/').unwrap();
                pod.pointer_mut(parent).unwrap()[key] = value.clone();
            }
        });
        assert!(said.contains(expected), "{path}: {said}");
    }
}

#[test]
fn a_container_with_its_own_user_is_not_judged_by_the_pods() {
    let mut pod = pod(&[], &[]);
    pod["spec"]["securityContext"] = json!({"runAsUser": 1337});
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1000});
    assert!(matches!(outcome(&pod, &istio_namespace(), NATIVE), Outcome::Injected(_)));
}

#[test]
fn a_udp_port_with_the_number_of_one_of_the_sidecars_is_no_clash() {
    let mut pod = pod(&[], &[]);
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 15020, "protocol": "UDP"}]);
    assert!(matches!(outcome(&pod, &istio_namespace(), NATIVE), Outcome::Injected(_)));
}

#[test]
fn metadata_that_is_none_is_refused_and_never_a_panic() {
    for metadata in [json!(7), json!([]), json!({"labels": 7}), json!({"annotations": {"a": 1}}), json!("x")]
    {
        let pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "a"}]}});
        let said = outcome(&pod, &istio_namespace(), NATIVE);
        assert!(matches!(said, Outcome::Refused(Refusal::NotAPod { .. })), "{metadata}: {said:?}");
    }
    for pod in [json!(7), json!([]), Value::Null, json!({})] {
        let said = outcome(&pod, &istio_namespace(), NATIVE);
        assert!(matches!(said, Outcome::Refused(Refusal::NotAPod { .. })), "{pod}: {said:?}");
    }
}

/// One list keeps containers off the ports, one keeps the capture off them, and one has clients speak plaintext there.
#[test]
fn the_ports_that_clients_take_for_the_sidecars_are_never_captured_and_no_container_may_have_them() {
    let told = BTreeSet::from(ringmail_policy::SIDECAR_PORTS);
    let Ok(Parsed::Settings(init)) = ringmail_init::config::parse([], []) else { panic!("no settings") };
    let own = SIDECAR_PORTS.into_iter().chain([init.inbound_port, init.outbound_port]);
    assert_eq!(told, own.collect());
    assert!(told.iter().all(|port| sidecar::SIDECAR_PORTS.contains(&i32::from(*port))));
}

/// What a pod's author may write anywhere. None of it may lead to a pod in the mesh without its sidecar, or to a flag that
/// the author has made.
const CRAFTED: [&str; 12] = [
    "8080\n--remove",
    "8080 --remove",
    "--dry-run",
    "8080,,",
    "65536",
    "-1",
    "0.0.0.0/0,::/0\0",
    "*,*",
    "../../etc/passwd",
    "{{ .Values }}",
    "$(NAMESPACE)",
    "\u{202e}8080",
];

const READ: [&str; 10] = [
    "traffic.sidecar.istio.io/includeInboundPorts",
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "traffic.sidecar.istio.io/excludeOutboundPorts",
    "traffic.sidecar.istio.io/includeOutboundIPRanges",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges",
    "traffic.sidecar.istio.io/excludeInterfaces",
    "config.linkerd.io/skip-inbound-ports",
    "config.linkerd.io/skip-outbound-ports",
    "sidecar.istio.io/proxyImage",
    "proxy.istio.io/config",
];

#[test]
fn crafted_annotations_lead_to_a_refusal_or_to_a_whole_sidecar() {
    let (mut refused, mut injected) = (0, 0);
    for (name, value) in READ.iter().flat_map(|name| CRAFTED.map(|value| (*name, value))) {
        match outcome(&pod(&[], &[(name, value)]), &istio_namespace(), NATIVE) {
            Outcome::Refused(_) => refused += 1,
            Outcome::Injected(all) => {
                injected += 1;
                sidecar(&all.pod);
                assert_eq!(all.pod["spec"]["initContainers"][0]["name"], "ringmail-init", "{name}={value:?}");
                for flag in init_flags(&all.pod) {
                    let own = !flag.starts_with("--remove") && !flag.starts_with("--dry-run");
                    assert!(own && !flag.contains(['\n', '\0', ' ']), "{name}={value:?}: {flag:?}");
                }
            }
            Outcome::Skipped(why) => panic!("{name}={value:?} keeps the pod out of the mesh: {why:?}"),
        }
    }
    assert!(refused >= 50 && injected >= 12, "{refused} {injected}");
    shown!(
        "A18",
        "crafted annotations: refused or with a whole sidecar",
        format!("{refused} and {injected} of 120"),
        "no third"
    );
}

/// Aliases in an annotation that is YAML, and in control's own settings.
#[test]
fn bombs_in_yaml_are_not_honoured_and_cost_next_to_nothing() {
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for level in 1..64 {
        bomb += &format!("a{level}: &a{level} [*a{}, *a{}]\n", level - 1, level - 1);
    }
    let deep = format!("x: {}{}", "[".repeat(8_000), "]".repeat(8_000));
    let began = std::time::Instant::now();
    for text in [&bomb, &deep] {
        let Outcome::Injected(all) =
            outcome(&pod(&[], &[("proxy.istio.io/config", text)]), &istio_namespace(), NATIVE)
        else {
            panic!("it is only not honoured");
        };
        assert!(!all.warnings.is_empty());
        assert!(serde_saphyr::from_str::<InjectConfig>(text).is_err());
    }
    let took = began.elapsed();
    shown!(
        "A21",
        "ms for bombs of aliases and depth in an annotation and in control's settings",
        took.as_millis(),
        "< 10,000"
    );
    assert!(took.as_secs() < 10, "{took:?}");
}
