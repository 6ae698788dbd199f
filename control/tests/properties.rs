//! What must hold for any pod, whoever wrote it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use ringmail_control::inject::{Cluster, InjectConfig, Namespace, Outcome, Request, inject, uninject};
use serde_json::{Map, Value, json};

const NAMES: [&str; 12] = [
    "sidecar.istio.io/inject",
    "ringmail.io/inject",
    "linkerd.io/inject",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges",
    "config.linkerd.io/skip-inbound-ports",
    "sidecar.istio.io/proxyMemory",
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/userVolumeMount",
    "proxy.istio.io/config",
    "ringmail.io/status",
    "app",
];
const VALUES: [&str; 16] = [
    "true",
    "enabled",
    "false",
    "",
    "80,443",
    "10.0.0.0/8",
    "64Mi",
    "9Gi",
    "concurrency: 2",
    "{\"a\":{\"mountPath\":\"/a\"}}",
    "[{\"name\":\"a\",\"emptyDir\":{}}]",
    "[{\"name\":\"ringmail-token\"}]",
    "{\"version\":\"1\",\"initContainers\":[\"istio-proxy\",\"ringmail-init\"],\"containers\":[\"app\"],\"volumes\":[\"a\"],\"labels\":[\"app\"],\"revision\":\"\"}",
    "{{{",
    "a: [",
    "\u{0}\u{202e}x",
];

fn pairs() -> impl Strategy<Value = BTreeMap<String, String>> {
    let pair = (select(NAMES.to_vec()), select(VALUES.to_vec()));
    prop::collection::btree_map(
        pair.clone().prop_map(|(name, _)| name.to_owned()),
        pair.prop_map(|(_, value)| value.to_owned()),
        0..4,
    )
}

fn handler() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        (1u32..=65535).prop_map(Value::from),
        select(vec!["http", "none", "8080"]).prop_map(Value::from)
    ];
    prop_oneof![
        port.clone().prop_map(|port| json!({"httpGet": {"port": port, "path": "/x"}})),
        port.clone().prop_map(|port| json!({"httpGet": {"port": port, "host": "h", "scheme": "HTTPS"}})),
        port.clone().prop_map(|port| json!({"httpGet": {"port": port, "httpHeaders": [{"name": "a", "value": "b"}]}, "timeoutSeconds": 9})),
        port.clone().prop_map(|port| json!({"tcpSocket": {"port": port}})),
        port.prop_map(|port| json!({"grpc": {"port": port}})),
        Just(json!({"exec": {"command": ["x"]}})),
        Just(json!({})),
    ]
}

prop_compose! {
    fn container()(
        name in select(vec!["app", "web", "db", "istio-proxy", "ringmail-init"]),
        probes in prop::collection::btree_map(
            select(vec!["livenessProbe", "readinessProbe", "startupProbe"]).prop_map(str::to_owned), handler(), 0..3),
        hooks in prop::collection::btree_map(select(vec!["postStart", "preStop"]).prop_map(str::to_owned), handler(), 0..2),
        user in prop::option::of(select(vec![0, 1000, 1337])),
        restart in prop::option::of(Just("Always")),
    ) -> Value {
        let mut container = json!({"name": name, "image": "x", "ports": [{"name": "http", "containerPort": 8080}]});
        for (key, probe) in probes {
            container[key] = probe;
        }
        if !hooks.is_empty() {
            container["lifecycle"] = Value::Object(hooks.into_iter().collect());
        }
        if let Some(user) = user {
            container["securityContext"] = json!({"runAsUser": user});
        }
        if let Some(restart) = restart {
            container["restartPolicy"] = json!(restart);
        }
        container
    }
}

prop_compose! {
    fn pod()(
        labels in prop::option::of(pairs()),
        annotations in prop::option::of(pairs()),
        containers in prop::collection::vec(container(), 1..3),
        init in prop::option::of(prop::collection::vec(container(), 0..3)),
        volumes in prop::option::of(prop::collection::vec(select(vec!["a", "b", "ringmail-state"]), 0..2)),
        grace in prop::option::of(-1i64..400),
    ) -> Value {
        let mut pod = json!({"metadata": {"name": "p-0"}, "spec": {"containers": containers}});
        for (key, map) in [("labels", labels), ("annotations", annotations)] {
            if let Some(map) = map {
                pod["metadata"][key] = json!(map);
            }
        }
        if let Some(init) = init {
            pod["spec"]["initContainers"] = json!(init);
        }
        if let Some(volumes) = volumes {
            pod["spec"]["volumes"] = volumes.into_iter().map(|name| json!({"name": name, "emptyDir": {}})).collect();
        }
        if let Some(grace) = grace {
            pod["spec"]["terminationGracePeriodSeconds"] = json!(grace);
        }
        pod
    }
}

/// Any JSON at all where a pod is expected.
fn anything() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        select(vec![
            "metadata",
            "spec",
            "labels",
            "annotations",
            "containers",
            "name",
            "env",
            "volumes",
            "initContainers"
        ])
        .prop_map(str::to_owned),
        "[a-z]{1,3}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn asking() -> Namespace {
    let labels = BTreeMap::from([("istio-injection".to_owned(), "enabled".to_owned())]);
    Namespace { name: "ns".to_owned(), labels, annotations: BTreeMap::new() }
}

fn decide(pod: &Value, native_sidecars: bool) -> Outcome {
    let cluster = Cluster { native_sidecars, ..Cluster::default() };
    inject(&Request { pod, namespace: &asking(), workload: None, cluster }, &InjectConfig::default())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_second_pass_changes_nothing(pod in pod(), native in any::<bool>()) {
        if let Outcome::Injected(once) = decide(&pod, native) {
            match decide(&once.pod, native) {
                Outcome::Injected(twice) => {
                    prop_assert!(twice.patch.0.is_empty(), "{:#?}", twice.patch);
                    prop_assert_eq!(twice.pod, once.pod);
                }
                other @ (Outcome::Refused(_) | Outcome::Skipped(_)) => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn the_patch_makes_the_injected_pod_of_the_one_that_came(pod in pod(), native in any::<bool>()) {
        if let Outcome::Injected(injected) = decide(&pod, native) {
            let mut patched = pod.clone();
            json_patch::patch(&mut patched, &injected.patch).unwrap();
            prop_assert_eq!(patched, injected.pod);
        }
    }

    #[test]
    fn an_injected_pod_led_back_is_injected_to_the_same(pod in pod(), native in any::<bool>()) {
        if let Outcome::Injected(injected) = decide(&pod, native) {
            let mut back = injected.pod.clone();
            prop_assert!(uninject(&mut back));
            match decide(&back, native) {
                Outcome::Injected(again) => prop_assert_eq!(again.pod, injected.pod),
                other @ (Outcome::Refused(_) | Outcome::Skipped(_)) => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn no_container_of_an_injected_pod_bypasses_the_mesh_and_none_is_lost(pod in pod(), native in any::<bool>()) {
        if let Outcome::Injected(injected) = decide(&pod, native) {
            let containers = |pod: &Value| -> Vec<Value> {
                ["initContainers", "containers"].iter().filter_map(|key| pod["spec"][key].as_array()).flatten().cloned().collect()
            };
            let all = containers(&injected.pod);
            let ours = all.iter().filter(|one| one["securityContext"]["runAsUser"] == 1337).count();
            prop_assert_eq!(ours, 1);
            prop_assert_eq!(&all[0]["name"], "ringmail-init");
            let before: Vec<String> = containers(&pod).iter().map(|one| one["name"].to_string()).collect();
            let after: Vec<String> = all.iter().map(|one| one["name"].to_string()).collect();
            let is_ours = |name: &String| ["\"ringmail-init\"", "\"istio-proxy\"", "\"ringmail-proxy\"", "\"linkerd-proxy\""].contains(&name.as_str());
            let theirs = |names: Vec<String>| names.into_iter().filter(|name| !is_ours(name)).collect::<Vec<_>>();
            prop_assert_eq!(theirs(after), theirs(before));
        }
    }

    #[test]
    fn no_json_makes_it_panic(mut pod in anything(), status in any::<bool>()) {
        if status && pod.get("metadata").is_some_and(Value::is_object) {
            pod["metadata"]["annotations"] = json!({"ringmail.io/status": VALUES[12]});
        }
        let _ = decide(&pod, true);
        let _ = uninject(&mut pod);
    }
}
