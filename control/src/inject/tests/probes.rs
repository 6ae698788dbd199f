//! What becomes of each probe and hook, and what the sidecar is told of it.

use super::*;

/// The container's probe after injection, and what the sidecar asks under `path`.
fn rewritten(container: Value, path: &str, pointer: &str) -> (Option<Value>, Option<Value>) {
    let mut pod = pod(&[], &[]);
    pod["spec"]["containers"][0] = container;
    let pod = injected(&pod).pod;
    let asked: Value =
        variable(&pod, "RINGMAIL_APP_PROBES").map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
    (pod["spec"]["containers"][0].pointer(pointer).cloned(), asked.get(path).cloned())
}

fn container(key: &str, probe: Value) -> Value {
    let ports = json!([{"name": "http", "containerPort": 8080}, {"name": "15020", "containerPort": 9}]);
    json!({"name": "app", "image": "x", "ports": ports, key: probe})
}

#[test]
fn every_kind_of_probe_goes_to_the_sidecar_which_is_told_what_was_asked() {
    for (handler, asked) in [
        (
            json!({"httpGet": {"port": 8080}}),
            json!({"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1}),
        ),
        (
            json!({"httpGet": {"path": "/x?y", "port": "http", "scheme": "HTTPS", "httpHeaders": [{"name": "a", "value": "b"}]}, "timeoutSeconds": 7}),
            json!({"httpGet": {"path": "/x?y", "port": 8080, "scheme": "HTTPS", "httpHeaders": [{"name": "a", "value": "b"}]}, "timeoutSeconds": 7}),
        ),
        (
            json!({"httpGet": {"port": "8081"}}),
            json!({"httpGet": {"path": "/", "port": 8081, "scheme": "HTTP"}, "timeoutSeconds": 1}),
        ),
        (json!({"tcpSocket": {"port": "http"}}), json!({"tcpSocket": {"port": 8080}, "timeoutSeconds": 1})),
        (json!({"grpc": {"port": 9}}), json!({"grpc": {"port": 9, "service": ""}, "timeoutSeconds": 1})),
        (
            json!({"grpc": {"port": 9, "service": "s"}}),
            json!({"grpc": {"port": 9, "service": "s"}, "timeoutSeconds": 1}),
        ),
    ] {
        for (key, word) in
            [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")]
        {
            let mut probe = handler.clone();
            probe["periodSeconds"] = json!(3);
            let path = format!("/app-health/app/{word}");
            let (after, told) = rewritten(container(key, probe), &path, &format!("/{key}"));
            let mut expected = json!({"httpGet": {"path": path, "port": 15020}, "periodSeconds": 3});
            if let Some(timeout) = handler.get("timeoutSeconds") {
                expected["timeoutSeconds"] = timeout.clone();
            }
            assert_eq!((after, told), (Some(expected), Some(asked.clone())), "{handler}");
        }
    }
}

#[test]
fn http_hooks_go_to_the_sidecar_and_others_stay() {
    for (key, word) in [("postStart", "poststart"), ("preStop", "prestop")] {
        let path = format!("/app-lifecycle/app/{word}");
        let hook = |handler: Value| {
            rewritten(container("lifecycle", json!({ key: handler })), &path, &format!("/lifecycle/{key}"))
        };
        let asked = json!({"httpGet": {"path": "/bye", "port": 8080, "scheme": "HTTP"}});
        let (after, told) = hook(json!({"httpGet": {"path": "/bye", "port": "http"}}));
        assert_eq!((after, told), (Some(json!({"httpGet": {"path": path, "port": 15020}})), Some(asked)));
        for stays in [
            json!({"exec": {"command": ["x"]}}),
            json!({"sleep": {"seconds": 3}}),
            json!({"tcpSocket": {"port": 1}}),
        ] {
            assert_eq!(hook(stays.clone()), (Some(stays), None));
        }
    }
}

#[test]
fn what_is_no_affair_of_the_sidecars_stays_as_it_is() {
    for handler in [
        json!({"exec": {"command": ["x"]}}),
        json!({"httpGet": {"port": 80, "host": "probe.example"}}),
        json!({"tcpSocket": {"port": 80, "host": "127.0.0.1"}}),
        json!({"httpGet": {"port": 15021, "path": "/healthz/ready"}}),
        json!({"httpGet": {"port": "nowhere"}}),
        json!({"httpGet": {"port": 0}}),
        json!({"tcpSocket": {"port": 70000}}),
        json!({"grpc": {}}),
        json!({}),
    ] {
        let container = container("livenessProbe", handler.clone());
        assert_eq!(rewritten(container, "/app-health/app/livez", "/livenessProbe"), (Some(handler), None));
    }
    let mut pod = pod(&[], &[]);
    pod["spec"]["containers"][0] = container("livenessProbe", json!({"httpGet": {"port": "nowhere"}}));
    let said = injected(&pod).warnings[0].to_string();
    assert!(said.starts_with("livenessProbe of container app: port \"nowhere\""), "{said}");
}

#[test]
fn a_port_of_the_applications_that_is_named_like_one_of_ours_is_its_own() {
    let container = container("livenessProbe", json!({"tcpSocket": {"port": "15020"}}));
    let (_, told) = rewritten(container, "/app-health/app/livez", "/livenessProbe");
    assert_eq!(told, Some(json!({"tcpSocket": {"port": 9}, "timeoutSeconds": 1})));
}

#[test]
fn switched_off_nothing_is_rewritten() {
    let mut pod = pod(&[], &[("sidecar.istio.io/rewriteAppHTTPProbers", "false")]);
    pod["spec"]["containers"][0] = container("livenessProbe", json!({"httpGet": {"port": 80}}));
    let after = injected(&pod).pod;
    assert_eq!(after["spec"]["containers"][0], pod["spec"]["containers"][0]);
    assert_eq!(variable(&after, "RINGMAIL_APP_PROBES"), None);
}

#[test]
fn a_dollar_in_a_probe_survives_kubernetes_expansion_and_the_second_pass() {
    let mut before = pod(&[], &[]);
    let probe = json!({"httpGet": {"path": "/$(HOME)$$x$", "port": 80, "scheme": "HTTP"}});
    before["spec"]["containers"][0] = container("livenessProbe", probe);
    let after = injected(&before).pod;
    assert!(variable(&after, "RINGMAIL_APP_PROBES").unwrap().contains("/$$(HOME)$$$$x$$\""));
    let mut back = after.clone();
    assert!(uninject(&mut back));
    assert_eq!(back["spec"], before["spec"]);
}
