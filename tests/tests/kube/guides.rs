//! What the guides of Istio and Linkerd tell their readers to type, and what they promise to see.

use ringmail_tests::kube::{Grid, GridSettings, Place, Toolbox, stage};
use std::{sync::Mutex, time::Duration};

/// Both guides call their namespace `ignite`.
static THE_NAMESPACE: Mutex<()> = Mutex::new(());

/// Counters appear with the first look after a connection ends or moves bytes.
const COUNTED_WITHIN: Duration = Duration::from_secs(20);

#[test]
#[ignore = "needs a cluster"]
fn istios_guide_proves_mutual_tls_by_its_own_command() {
    let stage = stage();
    let _namespace = THE_NAMESPACE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = Place::in_mesh(stage, "ignite").unwrap();
    Grid::start(&place, GridSettings::of(2)).unwrap();
    let pods = stage.shell("kubectl get pods -n ignite --no-headers").unwrap();
    assert_eq!(pods.lines().count(), 2, "{pods}");
    assert!(pods.lines().all(|line| line.split_whitespace().nth(1) == Some("2/2")), "{pods}");
    let found = stage
        .shell(
            "kubectl exec ignite-0 -n ignite -c istio-proxy -- curl -s localhost:15000/stats/prometheus \
             | grep 'connection_security_policy=\"mutual_tls\"'",
        )
        .unwrap();
    for family in [
        "istio_tcp_connections_opened_total",
        "istio_tcp_connections_closed_total",
        "istio_tcp_sent_bytes_total",
        "istio_tcp_received_bytes_total",
    ] {
        let series: Vec<_> = found.lines().filter(|line| line.starts_with(&format!("{family}{{"))).collect();
        assert!(!series.is_empty(), "no {family} in:\n{found}");
        for line in series {
            for label in [
                "source_principal=\"spiffe://cluster.local/ns/ignite/sa/ignite\"",
                "destination_principal=\"spiffe://cluster.local/ns/ignite/sa/ignite\"",
                "destination_service=\"ignite-headless.ignite.svc.cluster.local\"",
            ] {
                assert!(line.contains(label), "{label} is not in {line}");
            }
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value > 0.0, "{line}");
        }
    }
    let settings = stage.shell("kubectl logs ignite-0 -n ignite -c istio-proxy").unwrap();
    assert!(!settings.contains("unknown setting"), "{settings}");
}

#[test]
#[ignore = "needs a cluster"]
fn linkerds_guide_finds_its_container_its_port_and_its_labels() {
    let stage = stage();
    let _namespace = THE_NAMESPACE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = Place::new(stage, "ignite").unwrap();
    stage.shell("kubectl annotate namespace ignite linkerd.io/inject=enabled").unwrap();
    place.label("linkerd.io/inject=enabled").unwrap();
    Grid::start(&place, GridSettings { nodes: 2, default_account: true }).unwrap();
    let sidecar =
        "{.spec.initContainers[?(@.name=='linkerd-proxy')].ports[?(@.name=='linkerd-admin')].containerPort}";
    assert_eq!(place.field("pod/ignite-0", sidecar).unwrap(), "4191");

    let me = "ignite.serviceaccount.identity.linkerd.cluster.local";
    let inbound = |port: u16| {
        vec![
            "direction=\"inbound\"".to_owned(),
            "peer=\"src\"".to_owned(),
            format!("target_port=\"{port}\""),
            format!(":{port}\""),
            "tls=\"true\"".to_owned(),
            format!("client_id=\"default.{me}\""),
            "srv_name=\"".to_owned(),
            format!("srv_port=\"{port}\""),
        ]
    };
    let outbound = |to: &str| {
        vec![
            "direction=\"outbound\"".to_owned(),
            "peer=\"dst\"".to_owned(),
            "tls=\"true\"".to_owned(),
            format!("server_id=\"default.{me}\""),
            "dst_namespace=\"ignite\"".to_owned(),
            format!("dst_pod=\"{to}\""),
            "dst_statefulset=\"ignite\"".to_owned(),
        ]
    };
    let expected = [("ignite-0", inbound(47500)), ("ignite-1", outbound("ignite-0"))];
    for (pod, labels) in expected {
        let line = format!("kubectl exec {pod} -n ignite -c linkerd-proxy -- curl -s localhost:4191/metrics");
        let what = format!("tcp_open_total of {pod} with {labels:?}");
        place
            .until(COUNTED_WITHIN, &what, || {
                let text = stage.shell(&line)?;
                let found = text.lines().any(|line| {
                    line.starts_with("tcp_open_total{")
                        && labels.iter().all(|label| line.contains(label))
                        && !line.ends_with(" 0")
                });
                Ok(found.then_some(()))
            })
            .unwrap();
    }
}

#[test]
#[ignore = "needs a cluster"]
fn the_distroless_image_carries_the_program_and_nothing_to_type_into() {
    let stage = stage();
    let place = Place::in_mesh(stage, "distroless").unwrap();
    let distroless = "proxy.istio.io/config: 'image: {imageType: distroless}'";
    Toolbox::server("bare").annotations(distroless).begin(&place).unwrap();
    Toolbox::idle("asks").start(&place).unwrap();
    place.ready("bare").unwrap();
    let image = place.field("pod/bare", "{.spec.initContainers[?(@.name=='istio-proxy')].image}").unwrap();
    assert!(image.ends_with("-distroless"), "{image}");
    let refused = place.sh("bare", "istio-proxy", "true").unwrap_err().to_string();
    assert!(refused.contains("executable file not found") || refused.contains("no such file"), "{refused}");
    let bare = place.address("bare").unwrap();
    let heard = ringmail_tests::kube::toolbox::dial(&place, "asks", &bare, 10800).unwrap();
    assert_eq!(heard.as_deref(), Some("bare"));
    // The same numbers, asked by a neighbour, as Prometheus does.
    let numbers = place.sh("asks", "main", &format!("curl -s http://{bare}:15020/stats/prometheus")).unwrap();
    assert!(numbers.contains("connection_security_policy=\"mutual_tls\""), "{numbers}");
}
