mod annotations;
mod precedence;
mod probes;
mod refusals;
mod unread;

use serde_json::{Value, json};

use super::*;

/// A namespace that asks for Istio's.
fn istio_namespace() -> Namespace {
    namespace(&[("istio-injection", "enabled")], &[])
}

fn namespace(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Namespace {
    Namespace { name: "ignite".to_owned(), labels: map(labels), annotations: map(annotations) }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn pod(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Value {
    json!({
        "metadata": {"name": "ignite-0", "labels": map(labels), "annotations": map(annotations)},
        "spec": {"containers": [{"name": "ignite", "image": "ignite"}]},
    })
}

const NATIVE: Cluster = Cluster { native_sidecars: true, istio_injects: false, linkerd_injects: false };

fn outcome(pod: &Value, namespace: &Namespace, cluster: Cluster) -> Outcome {
    inject(&Request { pod, namespace, workload: None, cluster }, &InjectConfig::default())
}

fn injected(pod: &Value) -> Injected {
    match outcome(pod, &istio_namespace(), NATIVE) {
        Outcome::Injected(injected) => *injected,
        other @ (Outcome::Refused(_) | Outcome::Skipped(_)) => panic!("{other:?}"),
    }
}

/// The sidecar of an injected pod, wherever it is.
fn sidecar(pod: &Value) -> &Value {
    let lists = ["/spec/initContainers", "/spec/containers"].map(|path| pod.pointer(path));
    let mut all = lists.into_iter().flatten().filter_map(Value::as_array).flatten();
    all.find(|container| SIDECAR_CONTAINERS.iter().any(|name| container["name"] == *name)).expect("a sidecar")
}

fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let environment = sidecar(pod)["env"].as_array()?;
    environment.iter().find(|entry| entry["name"] == name)?["value"].as_str()
}

fn init_flags(pod: &Value) -> Vec<&str> {
    pod.pointer("/spec/initContainers/0/args")
        .and_then(Value::as_array)
        .map(|flags| flags.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

#[test]
fn a_mesh_that_is_named_by_nobody_leaves_every_pod_alone() {
    let pod = pod(&[], &[]);
    assert!(matches!(outcome(&pod, &namespace(&[], &[]), NATIVE), Outcome::Skipped(Skip::NotAsked)));
}

#[test]
fn the_patch_leads_from_the_pod_that_came_to_the_one_that_goes() {
    let pod = pod(&[("app", "ignite")], &[]);
    let injected = injected(&pod);
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &injected.patch).unwrap();
    assert_eq!(patched, injected.pod);
    assert!(injected.warnings.is_empty(), "{:?}", injected.warnings);
}

#[test]
fn an_upgrade_replaces_the_sidecar_and_leaves_nothing_of_the_old_one() {
    let pod = pod(&[("app", "ignite")], &[]);
    let namespace = istio_namespace();
    let config = InjectConfig { proxy_image: "ringmail/proxy:9.9.9".to_owned(), ..InjectConfig::default() };
    let old = injected(&pod).pod;
    let upgraded = |pod: &Value| {
        let request = Request { pod, namespace: &namespace, workload: None, cluster: NATIVE };
        match inject(&request, &config) {
            Outcome::Injected(injected) => injected.pod,
            other @ (Outcome::Refused(_) | Outcome::Skipped(_)) => panic!("{other:?}"),
        }
    };
    assert_eq!(upgraded(&old), upgraded(&pod));
    assert_eq!(sidecar(&upgraded(&old))["image"], "ringmail/proxy:9.9.9");
}

#[test]
fn a_container_that_is_added_later_has_its_probes_rewritten_by_the_second_pass() {
    let first = injected(&pod(&[], &[])).pod;
    let mut second = first.clone();
    let probe = json!({"name": "late", "image": "x", "livenessProbe": {"tcpSocket": {"port": 7}}});
    second["spec"]["containers"].as_array_mut().unwrap().push(probe);
    let second = injected(&second).pod;
    assert_eq!(second["spec"]["containers"][1]["livenessProbe"]["httpGet"]["path"], "/app-health/late/livez");
    assert!(variable(&second, "RINGMAIL_APP_PROBES").unwrap().contains("\"port\":7"));
}

#[test]
fn a_stranger_under_our_status_is_refused_and_not_taken_out() {
    let mut pod = injected(&pod(&[], &[])).pod;
    pod["spec"]["initContainers"][1] = json!({"name": "istio-proxy", "image": "docker.io/istio/proxyv2"});
    let refused = outcome(&pod, &istio_namespace(), NATIVE);
    assert!(matches!(refused, Outcome::Refused(Refusal::OtherSidecar { mesh: "Istio", .. })), "{refused:?}");
}

#[test]
fn an_uninjected_pod_is_what_it_was() {
    let mut before = pod(&[("app", "ignite")], &[("x", "y")]);
    before["spec"]["containers"][0]["livenessProbe"] =
        json!({"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 3});
    before["spec"]["containers"][0]["readinessProbe"] = json!({"grpc": {"port": 9, "service": ""}});
    for cluster in [NATIVE, Cluster::default()] {
        let Outcome::Injected(injected) = outcome(&before, &istio_namespace(), cluster) else { panic!() };
        let mut back = injected.pod.clone();
        assert!(uninject(&mut back));
        assert_eq!(back, before);
        assert!(!uninject(&mut back));
    }
}

#[test]
fn a_sidecar_is_told_from_the_pod_that_it_is_in_with_its_settings_and_capture() {
    let pod = pod(&[("app", "ignite")], &[("traffic.sidecar.istio.io/excludeInboundPorts", "8080")]);
    assert_eq!(sidecar_of(&pod), None);
    let injected = injected(&pod);
    let sidecar = sidecar_of(&injected.pod).unwrap();
    assert_eq!((&*sidecar.container, sidecar.native), ("istio-proxy", true));
    assert_eq!(sidecar.image, InjectConfig::default().proxy_image);
    assert_eq!(sidecar.environment["RINGMAIL_DISCOVERY"], "control");
    assert_eq!(sidecar.capture, ["--inbound-exclude-ports=8080"]);
    assert_eq!(injected.asked_in, Source::NamespaceLabel("istio-injection"));
    let mut foreign = injected.pod;
    foreign["spec"]["initContainers"][1]["env"] = json!([]);
    assert_eq!(sidecar_of(&foreign), None);
}

#[test]
fn the_word_that_decided_is_told_the_pods_before_its_namespaces() {
    let asked = |labels: &[(&str, &str)], annotations: &[(&str, &str)], namespace: &Namespace| match outcome(
        &pod(labels, annotations),
        namespace,
        NATIVE,
    ) {
        Outcome::Injected(injected) => injected.asked_in,
        other @ (Outcome::Refused(_) | Outcome::Skipped(_)) => panic!("{other:?}"),
    };
    let istio = istio_namespace();
    let own = [("ringmail.io/inject", "enabled")];
    assert_eq!(asked(&own, &[], &istio), Source::PodLabel("ringmail.io/inject"));
    let linkerd = [("linkerd.io/inject", "enabled")];
    assert_eq!(asked(&[], &linkerd, &istio), Source::PodAnnotation("linkerd.io/inject"));
    assert_eq!(asked(&[], &[], &istio), Source::NamespaceLabel("istio-injection"));
    let both = namespace(&[("ringmail.io/inject", "enabled"), ("istio-injection", "enabled")], &[]);
    assert_eq!(asked(&[], &[], &both), Source::NamespaceLabel("ringmail.io/inject"));
}
