//! Pods that would break the mesh are refused with a reason that `kubectl` shows, and what is only strange is not.

use ringmail_tests::kube::{Place, Toolbox, stage, stage::SYSTEM};

#[test]
#[ignore = "needs a cluster"]
fn what_cannot_be_injected_is_refused_with_its_reason() {
    let stage = stage();
    let place = Place::in_mesh(stage, "refusals").unwrap();
    let second =
        "initContainers: [{name: istio-proxy, image: docker.io/istio/proxyv2:1.24.0, restartPolicy: Always}]";
    let rows = [
        ("on the node's network", Toolbox::idle("a").spec("hostNetwork: true"), "hostNetwork"),
        ("as the proxy's user", Toolbox::idle("a").spec("securityContext: {runAsUser: 1337}"), "1337"),
        ("another mesh's sidecar", Toolbox::idle("a").spec(second), "istio-proxy"),
    ];
    for (what, pod, named) in rows {
        let refused = format!("{:#}", pod.begin(&place).unwrap_err());
        assert!(refused.contains("denied the request") && refused.contains(named), "{what}: {refused}");
    }
    assert_eq!(place.kubectl(&["get", "pods", "--no-headers"]).unwrap(), "");
}

#[test]
#[ignore = "needs a cluster"]
fn crafted_annotations_do_not_reach_the_rules_or_the_sidecars_settings() {
    let stage = stage();
    let place = Place::in_mesh(stage, "crafted").unwrap();
    let huge = "x".repeat(200 << 10);
    let rows = [
        ("traffic.sidecar.istio.io/excludeInboundPorts", "\"8080; iptables -F\""),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "\"99999\""),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "\"$(reboot)\""),
        ("sidecar.istio.io/proxyCPU", "\"-1\""),
        ("proxy.istio.io/config", "\"{a: *a}\""),
        ("config.linkerd.io/skip-inbound-ports", huge.as_str()),
    ];
    for (number, (name, value)) in rows.into_iter().enumerate() {
        let pod = format!("crafted-{number}");
        let annotation = format!("{name}: {value}");
        let begun = Toolbox::idle(&pod).annotations(&annotation).begin(&place);
        // It is refused by name, or taken without effect: never started with half of it, nor waited for.
        match begun {
            Err(error) => {
                let text = format!("{error:#}");
                assert!(
                    text.contains(name) || text.contains("Too long"),
                    "{name}: {}",
                    &text[..text.len().min(2_000)]
                );
            }
            Ok(()) => {
                let arguments = place
                    .field(&format!("pod/{pod}"), "{.spec.initContainers[?(@.name=='ringmail-init')].args}")
                    .unwrap();
                for part in ["iptables", "99999", "reboot", "xxxx"] {
                    assert!(!arguments.contains(part), "{name}: {arguments}");
                }
            }
        }
    }
    let restarts = "{.items[*].status.containerStatuses[*].restartCount}";
    let selector = "app.kubernetes.io/name=ringmail-control";
    let restarts = stage
        .kubectl(&["get", "pods", "-n", SYSTEM, "-l", selector, "-o", &format!("jsonpath={restarts}")])
        .unwrap();
    assert!(restarts.split_whitespace().all(|count| count == "0"), "control has restarted: {restarts}");
}

#[test]
#[ignore = "needs a cluster"]
fn a_pod_that_shares_its_processes_and_one_with_a_debugger_are_in_the_mesh_like_any_other() {
    let stage = stage();
    let place = Place::in_mesh(stage, "strange").unwrap();
    Toolbox::server("server").begin(&place).unwrap();
    Toolbox::idle("shares").spec("shareProcessNamespace: true").begin(&place).unwrap();
    Toolbox::idle("plain").start(&place).unwrap();
    for pod in ["server", "shares"] {
        place.ready(pod).unwrap();
    }
    let server = place.address("server").unwrap();
    for pod in ["shares", "plain"] {
        let heard = ringmail_tests::kube::toolbox::dial(&place, pod, &server, 10800).unwrap();
        assert_eq!(heard.as_deref(), Some("server"), "{pod}");
    }
    // An ephemeral container comes by another way than the pod: the injector is not asked, and the pod stays as it is.
    let image = format!("docker.io/ringmail/toolbox:{}", stage::VERSION);
    let debug = ["debug", "plain", "--image", &image, "--container=debugger", "--", "sleep", "60"];
    place.kubectl(&debug).unwrap();
    let looks = "{.status.ephemeralContainerStatuses[0].state.running.startedAt}";
    place
        .until(std::time::Duration::from_secs(30), "the debugger runs", || {
            Ok((!place.field("pod/plain", looks)?.is_empty()).then_some(()))
        })
        .unwrap();
    let names = place.field("pod/plain", "{.spec.initContainers[*].name}").unwrap();
    assert_eq!(names, "ringmail-init istio-proxy");
}
