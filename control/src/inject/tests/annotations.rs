//! One row for each annotation: what it does, or what is said of it.

use super::*;

fn with(name: &str, value: &str) -> Injected {
    injected(&pod(&[], &[(name, value)]))
}

fn warnings(injected: &Injected) -> String {
    injected.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn capture_is_set_by_annotations_of_both_meshes() {
    let traffic = "traffic.sidecar.istio.io/";
    for (name, value, flags) in [
        (
            format!("{traffic}includeInboundPorts"),
            "47100, 47500",
            vec!["--inbound-include-ports=47100,47500"],
        ),
        (format!("{traffic}includeInboundPorts"), "", vec!["--inbound-include-ports="]),
        (format!("{traffic}includeInboundPorts"), "*", vec![]),
        (format!("{traffic}excludeInboundPorts"), "8080", vec!["--inbound-exclude-ports=8080"]),
        (format!("{traffic}excludeOutboundPorts"), "5432,53", vec!["--outbound-exclude-ports=53,5432"]),
        (
            format!("{traffic}includeOutboundIPRanges"),
            "10.0.0.5/8",
            vec!["--outbound-include-cidrs=10.0.0.0/8"],
        ),
        (format!("{traffic}includeOutboundIPRanges"), "", vec!["--outbound-include-cidrs="]),
        (
            format!("{traffic}excludeOutboundIPRanges"),
            "fd00::1/16,10.1.2.3",
            vec!["--outbound-exclude-cidrs=10.1.2.3/32,fd00::/16"],
        ),
        (format!("{traffic}excludeInterfaces"), "net1", vec!["--exclude-interfaces=net1"]),
        (
            "config.linkerd.io/skip-inbound-ports".to_owned(),
            "25,6222-6224",
            vec!["--inbound-exclude-ports=25,6222,6223,6224"],
        ),
        ("config.linkerd.io/skip-outbound-ports".to_owned(), "3306", vec!["--outbound-exclude-ports=3306"]),
        (
            "config.linkerd.io/skip-subnets".to_owned(),
            "192.168.0.0/16",
            vec!["--inbound-exclude-cidrs=192.168.0.0/16"],
        ),
        ("config.linkerd.io/opaque-ports".to_owned(), "10800,47100", vec![]),
    ] {
        let injected = with(&name, value);
        assert_eq!(init_flags(&injected.pod), flags, "{name}={value}");
        assert_eq!(warnings(&injected), "", "{name}={value}");
    }
}

#[test]
fn ports_that_istio_adds_to_its_ranges_are_added_here() {
    let added = injected(&pod(
        &[],
        &[
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8"),
            ("traffic.sidecar.istio.io/includeOutboundPorts", "9000"),
        ],
    ));
    assert_eq!(init_flags(&added.pod), ["--outbound-include-cidrs=10.0.0.0/8", "--outbound-add-ports=9000"]);
}

#[test]
fn a_capture_that_cannot_be_read_refuses_the_pod_with_all_its_faults() {
    let cases = [
        ("traffic.sidecar.istio.io/includeInboundPorts", "http"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "*"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "0"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "70000"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/33"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "eth+"),
        ("config.linkerd.io/skip-inbound-ports", "9-1"),
        ("config.linkerd.io/skip-outbound-ports", "1-65535"),
        ("config.linkerd.io/skip-subnets", "10.0.0"),
    ];
    for (name, value) in cases {
        let said = outcome(&pod(&[], &[(name, value)]), &istio_namespace(), NATIVE);
        let Outcome::Refused(refusal @ Refusal::Annotations(_)) = said else { panic!("{name}: {said:?}") };
        assert!(refusal.to_string().starts_with(&format!("{name}={value:?}: expected ")), "{refusal}");
    }
    let said = outcome(&pod(&[], &cases[7..]), &istio_namespace(), NATIVE);
    let Outcome::Refused(Refusal::Annotations(faults)) = said else { panic!("{said:?}") };
    assert_eq!(faults.len(), 3);
}

#[test]
fn the_sidecar_is_set_by_annotations_of_both_meshes() {
    for (name, value, path, expected) in [
        ("sidecar.istio.io/proxyCPU", "100m", "/resources/requests/cpu", json!("100m")),
        ("sidecar.istio.io/proxyCPULimit", "2", "/resources/limits/cpu", json!("2")),
        ("sidecar.istio.io/proxyMemory", "64Mi", "/resources/requests/memory", json!("64Mi")),
        ("sidecar.istio.io/proxyMemory", "1Gi", "/resources/limits/memory", json!("1Gi")),
        ("sidecar.istio.io/proxyMemoryLimit", "16Mi", "/resources/requests/memory", json!("16Mi")),
        ("config.linkerd.io/proxy-cpu-request", "1", "/resources/requests/cpu", json!("1")),
        ("config.linkerd.io/proxy-memory-limit", "1Gi", "/resources/limits/memory", json!("1Gi")),
        (
            "config.linkerd.io/proxy-ephemeral-storage-request",
            "1Gi",
            "/resources/requests/ephemeral-storage",
            json!("1Gi"),
        ),
        (
            "sidecar.istio.io/proxyImage",
            "registry:5000/ringmail/proxy:2",
            "/image",
            json!("registry:5000/ringmail/proxy:2"),
        ),
        ("readiness.status.sidecar.istio.io/periodSeconds", "9", "/readinessProbe/periodSeconds", json!(9)),
        ("config.linkerd.io/image-pull-policy", "Never", "/imagePullPolicy", json!("Never")),
        (
            "sidecar.istio.io/userVolumeMount",
            r#"[{"name":"a","mountPath":"/a"}]"#,
            "/volumeMounts/3/mountPath",
            json!("/a"),
        ),
        (
            "sidecar.istio.io/userVolumeMount",
            r#"{"a":{"mountPath":"/a"}}"#,
            "/volumeMounts/3/name",
            json!("a"),
        ),
    ] {
        let injected = with(name, value);
        assert_eq!(sidecar(&injected.pod).pointer(path), Some(&expected), "{name}={value}");
        assert_eq!(warnings(&injected), "", "{name}={value}");
    }
    let distroless = with("sidecar.istio.io/proxyImageType", "distroless");
    assert!(sidecar(&distroless.pod)["image"].as_str().unwrap().ends_with("-distroless"));
    let by_config = with("proxy.istio.io/config", "image: {imageType: distroless}");
    assert_eq!(sidecar(&by_config.pod)["image"], sidecar(&distroless.pod)["image"]);
    let volume = with("sidecar.istio.io/userVolume", r#"[{"name":"a","emptyDir":{}}]"#);
    assert_eq!(volume.pod.pointer("/spec/volumes/4/name"), Some(&json!("a")));
}

#[test]
fn the_sidecars_settings_are_set_by_annotations_of_both_meshes() {
    for (name, value, setting, expected) in [
        ("sidecar.istio.io/logLevel", "warning", "LOG_LEVEL", "warn"),
        (
            "config.linkerd.io/proxy-log-level",
            "warn,ringmail_proxy=debug",
            "LOG_LEVEL",
            "warn,ringmail_proxy=debug",
        ),
        ("config.linkerd.io/proxy-log-format", "json", "LOG_FORMAT", "json"),
        ("config.linkerd.io/access-log", "none", "ACCESS_LOG", "off"),
        ("config.linkerd.io/shutdown-grace-period", "12s", "DRAIN_TIMEOUT", "12s"),
        ("proxy.istio.io/config", "terminationDrainDuration: 7s", "DRAIN_TIMEOUT", "7s"),
        ("proxy.istio.io/config", "concurrency: 3", "WORKERS", "3"),
        ("proxy.istio.io/config", "holdApplicationUntilProxyStarts: true", "DRAIN_TIMEOUT", "25s"),
        ("proxy.istio.io/config", "proxyMetadata: {EXIT_ON_ZERO_ACTIVE_CONNECTIONS: 'true'}", "WORKERS", "1"),
        ("config.linkerd.io/proxy-await", "enabled", "DISCOVERY", "control"),
    ] {
        let injected = with(name, value);
        assert_eq!(variable(&injected.pod, &format!("RINGMAIL_{setting}")), Some(expected), "{name}={value}");
        assert_eq!(warnings(&injected), "", "{name}={value}");
    }
    assert_eq!(variable(&with("sidecar.istio.io/proxyCPULimit", "2").pod, "RINGMAIL_WORKERS"), None);
}

#[test]
fn what_cannot_be_honoured_or_read_is_a_warning_that_names_it_and_what_holds() {
    for (name, value) in [
        ("sidecar.istio.io/interceptionMode", "TPROXY"),
        ("sidecar.istio.io/interceptionMode", "NONE"),
        ("sidecar.istio.io/proxyImageType", "debug"),
        ("sidecar.istio.io/proxyImage", "docker.io/istio/proxyv2:1.29"),
        ("sidecar.istio.io/proxyCPU", "lots"),
        ("sidecar.istio.io/logLevel", "loud"),
        ("sidecar.istio.io/componentLogLevel", "misc:error"),
        ("sidecar.istio.io/userVolume", "{"),
        ("sidecar.istio.io/userVolumeMount", r#"[{"name":"a","mountPath":"/var/run/secrets"}]"#),
        ("sidecar.istio.io/somethingNew", "1"),
        ("traffic.sidecar.istio.io/kubevirtInterfaces", "k6t-eth0"),
        ("traffic.sidecar.istio.io/somethingNew", "1"),
        ("proxy.istio.io/config", "tracing: {sampling: 10}"),
        ("proxy.istio.io/config", "holdApplicationUntilProxyStarts: false"),
        ("proxy.istio.io/config", "proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'true'}"),
        ("proxy.istio.io/config", "- a list"),
        ("proxy.istio.io/config", "concurrency: 0"),
        ("inject.istio.io/templates", "gateway"),
        ("prometheus.istio.io/merge-metrics", "true"),
        ("status.sidecar.istio.io/port", "0"),
        ("readiness.status.sidecar.istio.io/applicationPorts", "80"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "0"),
        ("config.linkerd.io/proxy-version", "edge-26.8.1"),
        ("config.linkerd.io/proxy-uid", "2102"),
        ("config.linkerd.io/proxy-log-format", "xml"),
        ("config.linkerd.io/shutdown-grace-period", "soon"),
        ("config.linkerd.io/shutdown-grace-period", "120s"),
        ("config.linkerd.io/default-inbound-policy", "deny"),
        ("config.linkerd.io/proxy-require-identity-inbound-ports", "47500"),
        ("config.linkerd.io/proxy-await", "disabled"),
        ("config.linkerd.io/enable-debug-sidecar", "true"),
        ("config.alpha.linkerd.io/proxy-wait-before-exit-seconds", "5"),
        ("config.linkerd.io/something-new", "1"),
        ("linkerd.io/inject", "ingress"),
        ("istio.io/reroute-virtual-interfaces", "k6t-eth0"),
        ("ambient.istio.io/redirection", "enabled"),
    ] {
        let said = with(name, value);
        let said: Vec<String> = said.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 1, "{name}={value}: {said:?}");
        let parts = said[0].starts_with(name) && said[0].contains(": expected ") && said[0].contains("; ");
        assert!(parts, "{said:?}");
        assert!(said[0].chars().count() <= MAX_WARNING_CHARACTERS, "{said:?}");
    }
}

#[test]
fn what_asks_for_what_holds_anyway_is_no_warning() {
    for (name, value) in [
        ("sidecar.istio.io/interceptionMode", "REDIRECT"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "true"),
        ("sidecar.istio.io/nativeSidecar", "true"),
        ("inject.istio.io/templates", "sidecar"),
        ("prometheus.istio.io/merge-metrics", "false"),
        ("config.linkerd.io/default-inbound-policy", "all-unauthenticated"),
        ("config.linkerd.io/proxy-enable-native-sidecar", "true"),
        ("prometheus.io/scrape", "true"),
        ("kubectl.kubernetes.io/restartedAt", "2026"),
        ("proxy.istio.io/config", ""),
    ] {
        assert_eq!(warnings(&with(name, value)), "", "{name}={value}");
    }
}

#[test]
fn linkerds_annotations_of_the_namespace_hold_unless_the_pod_has_its_own() {
    let inherited =
        namespace(&[("istio-injection", "enabled")], &[("config.linkerd.io/proxy-cpu-request", "300m")]);
    for (own, expected) in [(vec![], "300m"), (vec![("config.linkerd.io/proxy-cpu-request", "400m")], "400m")]
    {
        let Outcome::Injected(injected) = outcome(&pod(&[], &own), &inherited, NATIVE) else { panic!() };
        assert_eq!(sidecar(&injected.pod)["resources"]["requests"]["cpu"], expected);
    }
}

#[test]
fn of_two_meshes_the_one_that_asked_has_the_last_word() {
    let both = [("config.linkerd.io/proxy-cpu-request", "1"), ("sidecar.istio.io/proxyCPU", "2")];
    for (labels, expected) in
        [([("istio-injection", "enabled")], "2"), ([("linkerd.io/inject", "enabled")], "1")]
    {
        let Outcome::Injected(injected) = outcome(&pod(&[], &both), &namespace(&labels, &[]), NATIVE) else {
            panic!()
        };
        assert_eq!(sidecar(&injected.pod)["resources"]["requests"]["cpu"], expected);
    }
}

#[test]
fn without_native_sidecars_the_others_wait_for_an_ordinary_container() {
    let old = Cluster::default();
    let Outcome::Injected(injected) = outcome(&pod(&[], &[]), &istio_namespace(), old) else { panic!() };
    let first = &injected.pod["spec"]["containers"][0];
    assert_eq!(first["name"], "istio-proxy");
    assert_eq!(
        first["lifecycle"]["postStart"]["exec"]["command"],
        json!(["/usr/local/bin/ringmail-proxy", "--wait=86400"])
    );
    assert_eq!(first.get("restartPolicy"), None);
    let annotations = &injected.pod["metadata"]["annotations"];
    assert_eq!(annotations["kubectl.kubernetes.io/default-container"], "ignite");
    let asked = pod(&[], &[("sidecar.istio.io/nativeSidecar", "true")]);
    let Outcome::Injected(injected) = outcome(&asked, &istio_namespace(), old) else { panic!() };
    assert!(warnings(&injected).contains("Kubernetes 1.29"), "{:?}", injected.warnings);
    assert_eq!(injected.pod["spec"]["containers"][0]["name"], "istio-proxy");
    let mut job = pod(&[], &[("config.linkerd.io/proxy-enable-native-sidecar", "false")]);
    job["spec"]["restartPolicy"] = json!("Never");
    job["spec"]["initContainers"] = json!([{"name": "wait", "image": "x"}]);
    let Outcome::Injected(injected) = outcome(&job, &istio_namespace(), NATIVE) else { panic!() };
    let said = warnings(&injected);
    assert!(
        said.contains("spec.restartPolicy: the pod does not end") && said.contains("spec.initContainers"),
        "{said}"
    );
}

#[test]
fn the_drain_ends_before_the_pods_grace_does() {
    for (grace, expected) in
        [(None, "25s"), (Some(300), "295s"), (Some(6), "1s"), (Some(0), "1s"), (Some(-9), "1s")]
    {
        let mut pod = pod(&[], &[]);
        if let Some(grace) = grace {
            pod["spec"]["terminationGracePeriodSeconds"] = json!(grace);
        }
        assert_eq!(variable(&injected(&pod).pod, "RINGMAIL_DRAIN_TIMEOUT"), Some(expected), "{grace:?}");
    }
}

#[test]
fn what_surrounds_the_sidecar_badly_is_said() {
    for (field, value) in [("shareProcessNamespace", json!(true)), ("dnsPolicy", json!("Default"))] {
        let mut pod = pod(&[], &[]);
        pod["spec"][field] = value;
        assert!(warnings(&injected(&pod)).starts_with(&format!("spec.{field}: ")));
    }
}

#[test]
fn every_fault_of_the_settings_is_told_at_once() {
    let settings = json!({
        "proxy_image": "two words", "proxy_memory_limit": "much", "native_sidecar": "sometimes",
        "ca_address": "http://ca", "trust_domain": "UPPER", "proxy_settings": {"Log Level": "x"}, "colour": "blue",
        "never_inject_namespaces": "kube-system",
    });
    let Err(InjectConfigError(faults)) = InjectConfig::try_from(settings) else { panic!() };
    assert_eq!(faults.len(), 8, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.starts_with("injection.")), "{faults:?}");
    assert_eq!(InjectConfig::try_from(Value::Null), Ok(InjectConfig::default()));
    assert_eq!(InjectConfig::try_from(json!({})), Ok(InjectConfig::default()));
}

#[test]
fn a_guaranteed_pod_stays_so_where_the_sidecar_is_and_else_is_told() {
    let all = json!({"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "2000m"}});
    let with = |annotations: &[(&str, &str)]| {
        let mut pod = pod(&[], annotations);
        pod["spec"]["containers"][0]["resources"] = all.clone();
        injected(&pod)
    };
    let told = with(&[]);
    assert!(warnings(&told).starts_with("resources: the pod was of class Guaranteed"), "{:?}", told.warnings);
    let kept = with(&[
        ("sidecar.istio.io/proxyCPU", "1"),
        ("sidecar.istio.io/proxyCPULimit", "1"),
        ("sidecar.istio.io/proxyMemory", "128Mi"),
        ("sidecar.istio.io/proxyMemoryLimit", "128Mi"),
    ]);
    assert_eq!(warnings(&kept), "");
    let expected =
        json!({"requests": {"cpu": "1", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}});
    assert_eq!(
        (&sidecar(&kept.pod)["resources"], &kept.pod["spec"]["initContainers"][0]["resources"]),
        (&expected, &expected)
    );
    assert_eq!(warnings(&injected(&pod(&[], &[]))), "");
}
