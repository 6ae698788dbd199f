use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::caller::{self, Caller, TLS12, TLS13, review};
use super::*;

fn patched(pod: &Value, response: &Value) -> Value {
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

#[tokio::test]
async fn a_pod_of_a_labelled_namespace_gets_a_sidecar_over_every_tls_and_http() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    for version in [TLS12, TLS13] {
        let stream = caller::connect(webhook.address, &bundle, version, "h2").await.unwrap();
        let answer = caller::post_h2(stream, review("ignite", &pod(), false).to_string()).await;
        let pod = patched(&pod(), &answer["response"]);
        assert_eq!(pod["spec"]["initContainers"][1]["name"], "istio-proxy");
        assert_eq!(pod["metadata"]["creationTimestamp"], Value::Null);
    }
    let response = Caller::new(webhook.address, &bundle).await.review(&review("ignite", &pod(), false)).await;
    patched(&pod(), &response);
    assert_eq!(webhook.metric("ringmail_injector_reviews_total{verdict=\"injected\"}"), 3.0);
}

#[tokio::test]
async fn pods_that_nobody_asked_about_and_other_objects_are_allowed_as_they_are() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let mut caller = Caller::new(webhook.address, &bundle).await;
    let mut others = vec![review("plain", &pod(), false)];
    for (path, value) in [
        ("/request/operation", json!("UPDATE")),
        ("/request/subResource", json!("status")),
        ("/request/resource/resource", json!("services")),
        ("/request/object", Value::Null),
    ] {
        let mut other = review("ignite", &pod(), false);
        other["request"]["subResource"] = json!("");
        *other.pointer_mut(path).unwrap() = value;
        others.push(other);
    }
    for other in others {
        let response = caller.review(&other).await;
        assert_eq!(response, json!({"uid": other["request"]["uid"], "allowed": true}));
    }
}

#[tokio::test]
async fn a_pod_that_cannot_be_injected_is_refused_in_words() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let mut refused = pod();
    refused["spec"]["hostNetwork"] = json!(true);
    let response =
        Caller::new(webhook.address, &bundle).await.review(&review("ignite", &refused, false)).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(403)));
    assert!(
        response["status"]["message"].as_str().unwrap().starts_with("ringmail: hostNetwork: true"),
        "{response}"
    );
    assert_eq!(response.get("patch"), None);
}

#[tokio::test]
async fn what_cannot_be_honoured_is_told_and_is_an_event_but_for_a_dry_run() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let mut caller = Caller::new(webhook.address, &bundle).await;
    let odd = annotated("sidecar.istio.io/interceptionMode", "TPROXY");
    for dry_run in [true, false] {
        let response = caller.review(&review("ignite", &odd, dry_run)).await;
        let told = response["warnings"][0].as_str().unwrap();
        assert!(
            told.starts_with("sidecar.istio.io/interceptionMode: \"TPROXY\": expected REDIRECT"),
            "{told}"
        );
    }
    let published = async {
        while api.change(|objects| objects.events.is_empty()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, published).await.expect("an event in time");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let events = api.change(|objects| objects.events.clone());
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["regarding"]["kind"], "StatefulSet");
    assert_eq!((&events[0]["regarding"]["name"], &events[0]["type"]), (&json!("ignite"), &json!("Warning")));
    assert!(events[0]["note"].as_str().unwrap().contains("interceptionMode"));
}

/// The namespace asks by a word that is none, one pod by another; the third is injected in spite of one.
#[tokio::test]
async fn a_word_that_nobody_can_read_is_told_and_is_an_event_whatever_is_decided() {
    let api = Api::new();
    api.change(|objects| {
        objects.namespaces.get_mut("plain").unwrap()["metadata"]["labels"] =
            json!({"istio-injection": "true"});
    });
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let mut caller = Caller::new(webhook.address, &bundle).await;
    for (namespace, pod, is_patched, expected) in [
        ("plain", pod(), false, "the namespace's label istio-injection: \"true\": expected enabled"),
        (
            "ignite",
            annotated("sidecar.istio.io/inject", "maybe"),
            false,
            "the pod's annotation sidecar.istio.io/inject: \"maybe\": expected true or false; it counts as false",
        ),
        (
            "ignite",
            annotated("linkerd.io/inject", "foo"),
            true,
            "the pod's annotation linkerd.io/inject: \"foo\": expected enabled, ingress or disabled",
        ),
    ] {
        let response = caller.review(&review(namespace, &pod, false)).await;
        assert_eq!((&response["allowed"], response.get("patch").is_some()), (&json!(true), is_patched));
        assert!(response["warnings"][0].as_str().unwrap().starts_with(expected), "{response}");
        let published = async {
            let is_there =
                |event: &Value| event["note"].as_str().is_some_and(|note| note.starts_with(expected));
            while !api.change(|objects| objects.events.iter().any(is_there)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, published).await.expect(expected);
    }
}

#[tokio::test]
async fn an_asked_for_revision_of_istio_is_told_to_whoever_asks() {
    let api = Api::new();
    api.change(|objects| {
        objects.namespaces.get_mut("plain").unwrap()["metadata"]["labels"] =
            json!({"istio.io/rev": "canary"});
    });
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let response = Caller::new(webhook.address, &bundle).await.review(&review("plain", &pod(), false)).await;
    assert!(response["warnings"][0].as_str().unwrap().contains("canary"), "{response}");
    assert_eq!(response.get("patch"), None);
}

#[tokio::test]
async fn a_fault_of_ours_refuses_with_its_reason() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let response =
        Caller::new(webhook.address, &bundle).await.review(&review("nowhere", &pod(), false)).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(503)));
    assert!(response["status"]["message"].as_str().unwrap().contains("namespace \"nowhere\""), "{response}");
}
