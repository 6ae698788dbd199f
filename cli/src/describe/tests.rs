//! Descriptions, from the objects of a cluster.

use serde_json::json;

use super::*;
use crate::cluster::Supposed;
use crate::cluster::fixture::{CLUSTER, Fixture, namespace, policy};

fn described(fixture: &Fixture, name: &str) -> Description {
    let surroundings = Surroundings {
        namespace: Some(namespace()),
        cluster: CLUSTER,
        registered: Some(true),
        ..Surroundings::default()
    };
    in_surroundings(fixture, name, &surroundings)
}

fn in_surroundings(fixture: &Fixture, name: &str, surroundings: &Surroundings) -> Description {
    let mesh = fixture.mesh(&Supposed::default());
    describe(Subject::new(&mesh, mesh.pod("ignite", name).unwrap()).unwrap(), surroundings)
}

fn mode(of: &Description, port: Option<u16>) -> (Option<&'static str>, &str) {
    let line = of.ports.iter().find(|line| line.port == port).unwrap();
    (line.mode, &line.decided_by)
}

#[test]
fn a_pod_of_a_ring_is_told_with_sidecar_identity_services_and_modes() {
    let strict = policy("PeerAuthentication", "default", json!({"mtls": {"mode": "STRICT"}}));
    let said = described(&Fixture::with([strict]), "ignite-0");
    assert!(said.injection.injected && said.ready && said.warnings.is_empty(), "{said:?}");
    assert_eq!(said.injection.why, "the namespace's label istio-injection asks for it");
    let sidecar = said.sidecar.as_ref().unwrap();
    assert_eq!((&*sidecar.container, sidecar.ready, sidecar.native), ("istio-proxy", true, true));
    assert_eq!(said.identity.as_deref(), Some("spiffe://cluster.local/ns/ignite/sa/ignite"));
    for port in [Some(47500), Some(10800), None] {
        assert_eq!(mode(&said, port), (Some("STRICT"), "PeerAuthentication ignite/default"));
    }
    let thin = said.ports.iter().find(|line| line.port == Some(10800)).unwrap();
    assert_eq!((&*thin.name, thin.services.join(" ")), ("tcp-thin", "ignite:10800".to_owned()));
    let kinds: Vec<_> = said.services.iter().map(|service| (&*service.name, &*service.kind)).collect();
    assert_eq!(kinds, [("ignite", "ClusterIP"), ("ignite-headless", "headless")]);
}

#[test]
fn policies_and_rules_that_hold_for_it_are_named() {
    let fixture = Fixture::with([
        policy("AuthorizationPolicy", "nobody", json!({})),
        policy(
            "DestinationRule",
            "plain",
            json!({"host": "ignite", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}),
        ),
    ]);
    let said = described(&fixture, "ignite-0");
    let text = show::render(&said, false);
    assert!(
        text.contains("AuthorizationPolicy ignite/nobody  ALLOW  no rule in force: nobody matches"),
        "{text}"
    );
    assert!(
        text.contains("DestinationRule ignite/plain  ignite.ignite.svc.cluster.local  DISABLE"),
        "{text}"
    );
}

#[test]
fn why_a_pod_has_no_sidecar_is_told_and_whether_a_new_one_would() {
    let mut fixture = Fixture::new();
    let opted_out = described(&fixture, "bare");
    assert!(!opted_out.injection.injected);
    assert_eq!(opted_out.injection.why, "the pod's label sidecar.istio.io/inject says \"false\"");
    assert_eq!(mode(&opted_out, None), (None, "the pod has no sidecar"));
    fixture.pods[4]["metadata"]["labels"] = json!({});
    let late = described(&fixture, "bare");
    assert!(late.injection.why.starts_with("it was made before that"), "{}", late.injection.why);
    assert!(late.warnings[0].contains("delete the pod to have it made anew"), "{:?}", late.warnings);
    let unregistered =
        Surroundings { namespace: Some(namespace()), registered: Some(false), ..Surroundings::default() };
    let said = in_surroundings(&fixture, "bare", &unregistered);
    assert!(said.injection.why.contains("injector is not registered"), "{}", said.injection.why);
}

#[test]
fn a_sidecar_that_the_next_pod_would_not_have_or_have_otherwise_is_a_warning() {
    let mut fixture = Fixture::new();
    let unlabelled = Surroundings {
        namespace: Some(ringmail_control::inject::Namespace { name: "ignite".into(), ..Default::default() }),
        cluster: CLUSTER,
        ..Surroundings::default()
    };
    let said = in_surroundings(&fixture, "ignite-0", &unlabelled);
    assert!(
        said.warnings.iter().any(|one| one.ends_with("nothing asks for a sidecar")),
        "{:?}",
        said.warnings
    );
    fixture.pods[0]["spec"]["initContainers"][1]["image"] = json!("ringmail/proxy:0.0.1");
    let old = described(&fixture, "ignite-0");
    assert!(
        old.warnings
            .iter()
            .any(|one| one.contains("its sidecar is ringmail/proxy:0.0.1, and a new pod would get")),
        "{:?}",
        old.warnings
    );
}

#[test]
fn what_is_excluded_is_told_and_has_no_mode() {
    let said = described(&Fixture::new(), "excluding");
    assert_eq!(said.capture_exclusions, ["--inbound-exclude-ports=8080", "--outbound-exclude-ports=10800"]);
    assert_eq!(mode(&said, Some(8080)), (None, "not captured: no policy is asked"));
}

#[test]
fn a_sidecar_that_is_not_ready_and_an_init_that_failed_say_what_the_kubelet_knows() {
    let mut fixture = Fixture::new();
    let failed = json!({"terminated": {"exitCode": 69, "message": "no iptables"}});
    fixture.pods[0]["status"]["initContainerStatuses"] = json!([
        {"name": "ringmail-init", "ready": false, "restartCount": 2, "image": "", "imageID": "", "state": failed},
        {"name": "istio-proxy", "ready": false, "restartCount": 0, "image": "", "imageID": "",
         "state": {"waiting": {"reason": "PodInitializing"}}},
    ]);
    let said = described(&fixture, "ignite-0");
    let all = said.warnings.join("\n");
    assert!(all.contains("ringmail-init ended with 69: no iptables"), "{all}");
    assert!(
        all.contains("the sidecar is not ready (waiting: PodInitializing): `kubectl -n ignite logs"),
        "{all}"
    );
}

#[test]
fn services_that_mean_something_else_to_the_mesh_are_warned_of() {
    let mut fixture =
        Fixture::with([policy("PeerAuthentication", "default", json!({"mtls": {"mode": "STRICT"}}))]);
    fixture.services.push(json!({
        "metadata": {"name": "odd", "namespace": "ignite"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "selector": {"app": "ignite"}, "ports": [
            {"name": "http-thin", "port": 80, "targetPort": 10800},
            {"port": 81, "targetPort": "missing"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ]},
    }));
    let all = described(&fixture, "ignite-0").warnings.join("\n");
    for expected in [
        "Service odd, port 80: declared as http",
        "Service odd, port 80: clients of a NodePort speak plaintext, and PeerAuthentication ignite/default is STRICT",
        "Service odd, port 81: targetPort \"missing\": no container",
        "Service odd, port 81: its name says no protocol",
        "Service odd, port 53: UDP is neither encrypted nor blocked",
    ] {
        assert!(all.contains(expected), "{expected}\n{all}");
    }
}

#[test]
fn policies_that_miss_their_pods_or_ports_are_warned_of() {
    let app = json!({"matchLabels": {"app": "ignite"}});
    let mut fixture = Fixture::with([
        policy(
            "PeerAuthentication",
            "ports",
            json!({"selector": app, "portLevelMtls": {"80": {"mode": "STRICT"}}}),
        ),
        policy("AuthorizationPolicy", "typo", json!({"selector": {"matchLabels": {"app": "ignit"}}})),
        policy("PeerAuthentication", "broken", json!({"mtls": {"mode": "SOMETIMES"}})),
        policy("AuthorizationPolicy", "audit", json!({"action": "AUDIT"})),
    ]);
    fixture.services[0]["spec"]["ports"] = json!([{"name": "tcp-thin", "port": 80, "targetPort": 10800}]);
    let all = described(&fixture, "ignite-0").warnings.join("\n");
    for expected in [
        "PeerAuthentication ignite/ports port 80: no container declares port 80 and no Service leads there",
        "(port 80 of Service ignite is the container's 10800)",
        "AuthorizationPolicy ignite/typo selects no pod of the namespace (app=ignit)",
        "PeerAuthentication ignite/broken cannot be read: spec.mtls.mode: expected",
        "AuthorizationPolicy ignite/audit: not supported: AUDIT has no effect",
    ] {
        assert!(all.contains(expected), "{expected}\n{all}");
    }
}

#[test]
fn a_label_that_says_otherwise_than_the_pod_is_warned_of() {
    let mut fixture = Fixture::new();
    fixture.pods[0]["metadata"]["labels"]["security.istio.io/tlsMode"] = json!("disabled");
    fixture.pods[4]["metadata"]["labels"]["security.istio.io/tlsMode"] = json!("istio");
    for (name, expected) in
        [("ignite-0", "clients take it for a pod without"), ("bare", "that nobody answers")]
    {
        let all = described(&fixture, name).warnings.join("\n");
        assert!(all.contains(expected), "{name}: {all}");
    }
}

#[test]
fn the_text_has_every_part_and_says_none_where_there_is_none() {
    let text = show::render(&described(&Fixture::new(), "ignite-0"), false);
    for expected in [
        "pod        ignite/ignite-0\n",
        "status     Running, ready\n",
        "addresses  10.0.0.0 on node1\n",
        "injected   yes: the namespace's label istio-injection asks for it\n",
        "capture    all TCP, in both directions\n",
        "services   ignite (ClusterIP), ignite-headless (headless)\n",
        "47500   tcp-discovery  PERMISSIVE  no PeerAuthentication sets a mode  ignite-headless:47500\n",
        "authorization policies: none selects it",
        "destination rules: none names its Services",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("warnings"), "{text}");
}
