//! The webhook in front of a real API server: what it makes of a pod is what the cluster takes.
//!
//! Needs a cluster in `KUBECONFIG` whose API server reaches this process at `RINGMAIL_TEST_ADDRESS` (127.0.0.1 where the
//! test runs in its network namespace), and kubectl in `RINGMAIL_TEST_KUBECTL`. Everything it makes is removed again.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use prometheus::Registry;
use ringmail_control::inject::InjectConfig;
use ringmail_control::webhook::{Metrics, Settings, State, Webhook};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

fn kubectl(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(variable("RINGMAIL_TEST_KUBECTL"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What the API server would keep of the objects in `text`, and what it says.
fn dry_run(namespace: &str, text: &str) -> (Value, String) {
    let output = kubectl(&["create", "--dry-run=server", "-o", "json", "-n", namespace, "-f", "-"], text);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    (serde_json::from_slice(&output.stdout).unwrap(), said)
}

fn refused(namespace: &str, text: &str) -> String {
    let output = kubectl(&["create", "--dry-run=server", "-n", namespace, "-f", "-"], text);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// One scenario's namespaces, registration and webhook; nothing of it outlives [`Scene::end`].
struct Scene {
    client: Client,
    name: String,
    end: watch::Sender<bool>,
}

impl Scene {
    async fn begin() -> Self {
        let client = Client::try_default().await.expect("a cluster in KUBECONFIG");
        let name = format!("inject-{}", std::process::id());
        let scene = Self { client, name, end: watch::channel(false).0 };
        scene.namespace("", json!({"istio-injection": "enabled", "scene": scene.name})).await;
        scene.namespace("-linkerd", json!({"linkerd.io/inject": "enabled", "scene": scene.name})).await;
        let strict = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        scene.namespace("-restricted", strict).await;
        let address = variable("RINGMAIL_TEST_ADDRESS");
        let listener = TcpListener::bind((address.as_str(), 0)).await.unwrap();
        scene.register(&format!("https://{}/inject", listener.local_addr().unwrap())).await;
        let mut settings = Settings::new(InjectConfig::default());
        settings.namespace.clone_from(&scene.name);
        settings.configuration.clone_from(&scene.name);
        settings.serving_names = vec![address];
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let webhook = Webhook::new(settings, scene.client.clone(), metrics);
        let (mut state, ending) = (webhook.state(), scene.end.subscribe());
        tokio::spawn(webhook.run(listener, ending));
        let ready = state.wait_for(|state| matches!(state, State::Ready(_)));
        timeout(PATIENCE, ready).await.expect("ready in time").unwrap();
        scene.in_force().await;
        scene
    }

    async fn namespace(&self, end: &str, labels: Value) {
        let object = json!({"metadata": {"name": format!("{}{end}", self.name), "labels": labels}});
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    async fn register(&self, url: &str) {
        let object = json!({
            "metadata": {"name": self.name},
            "webhooks": [{
                "name": "sidecar-injector.ringmail.io", "admissionReviewVersions": ["v1"], "sideEffects": "NoneOnDryRun",
                "clientConfig": {"url": url}, "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
                "namespaceSelector": {"matchLabels": {"scene": self.name}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            }],
        });
        let all: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        all.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    /// The API server reads registrations a moment after they are written.
    async fn in_force(&self) {
        let asked = async {
            loop {
                let output =
                    kubectl(&["create", "--dry-run=server", "-o", "json", "-n", &self.name, "-f", "-"], BARE);
                if output.status.success() && String::from_utf8_lossy(&output.stdout).contains("istio-proxy")
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("the webhook in force in time");
    }

    async fn end(self) {
        let all: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        all.delete(&self.name, &DeleteParams::default()).await.unwrap();
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for end in ["", "-linkerd", "-restricted"] {
            namespaces.delete(&format!("{}{end}", self.name), &DeleteParams::default()).await.unwrap();
        }
        self.end.send_replace(true);
    }
}

const BARE: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec: {containers: [{name: app, image: app}]}
";

/// Golden pods name namespaces and owners that this cluster does not have.
fn golden(name: &str) -> String {
    let path = format!("{}/tests/golden/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut pod: Value = serde_saphyr::from_str(&text).unwrap();
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.remove("namespace");
    metadata.remove("ownerReferences");
    pod["spec"].as_object_mut().unwrap().remove("serviceAccountName");
    pod.to_string()
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let list = pod["spec"][list].as_array().cloned().unwrap_or_default();
    list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn the_api_server_takes_what_the_webhook_makes_and_kubectl_prints_what_it_says() {
    let scene = Scene::begin().await;
    let result = tokio::spawn(checks(scene.client.clone(), scene.name.clone())).await;
    scene.end().await;
    result.unwrap();
}

async fn checks(client: Client, name: String) {
    let (ignite, said) = dry_run(&name, &golden("ignite"));
    assert_eq!(names(&ignite, "initContainers"), ["ringmail-init", "istio-proxy"]);
    assert_eq!(said, "");
    let linkerd = format!("{name}-linkerd");
    let (gridgain, said) = dry_run(&linkerd, &golden("gridgain"));
    let expected = ["ringmail-init", "linkerd-proxy", "unpack-licence", "log-shipper"];
    assert_eq!(names(&gridgain, "initContainers"), expected);
    assert!(
        said.contains("Warning: config.linkerd.io/default-inbound-policy: \"all-authenticated\""),
        "{said}"
    );
    second_pass(&linkerd, &gridgain);
    second_pass(&name, &ignite);

    let said = refused(&name, &BARE.replace("spec: {", "spec: {hostNetwork: true, "));
    assert!(said.contains("denied the request: ringmail: hostNetwork: true"), "{said}");
    let port = "metadata: {annotations: {traffic.sidecar.istio.io/excludeInboundPorts: http}, ";
    let said = refused(&name, &BARE.replace("metadata: {", port));
    assert!(said.contains("traffic.sidecar.istio.io/excludeInboundPorts=\"http\": expected ports"), "{said}");

    restricted(&name, &ignite);
    registration();
    event(&client, &name).await;
}

/// With all the defaults that the API server and its own admission have put in.
fn second_pass(namespace: &str, pod: &Value) {
    let mut again = pod.clone();
    for key in ["uid", "creationTimestamp", "managedFields", "resourceVersion"] {
        again["metadata"].as_object_mut().unwrap().remove(key);
    }
    let (again, _) = dry_run(namespace, &again.to_string());
    for list in ["initContainers", "containers"] {
        let shape = |pod: &Value| -> Vec<Value> {
            let list = pod["spec"][list].as_array().cloned().unwrap_or_default();
            list.iter()
                .map(|one| {
                    json!([one["name"], one["image"], one["env"], one["livenessProbe"], one["lifecycle"]])
                })
                .collect()
        };
        assert_eq!(shape(&again), shape(pod));
    }
    assert_eq!(again["metadata"]["labels"], pod["metadata"]["labels"]);
    assert_eq!(again["metadata"]["annotations"], pod["metadata"]["annotations"]);
}

/// The sidecar alone, in a namespace that enforces *restricted*; and what that says once it is weakened.
fn restricted(name: &str, injected: &Value) {
    let namespace = format!("{name}-restricted");
    let mut sidecar = injected["spec"]["initContainers"][1].clone();
    sidecar.as_object_mut().unwrap().remove("restartPolicy");
    sidecar.as_object_mut().unwrap().remove("startupProbe");
    let volumes = injected["spec"]["volumes"].as_array().unwrap().clone();
    let pod = |sidecar: &Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone"},
               "spec": {"containers": [sidecar], "volumes": volumes}})
        .to_string()
    };
    dry_run(&namespace, &pod(&sidecar));
    sidecar["securityContext"]["capabilities"] = json!({});
    assert!(refused(&namespace, &pod(&sidecar)).contains("violates PodSecurity"));
}

/// The registration as the page about injection has it.
fn registration() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/inject.md")).unwrap();
    let (_, rest) = page.split_once("```yaml\n").expect("the registration");
    let (registration, _) = rest.split_once("```").expect("its end");
    let output = kubectl(&["create", "--dry-run=server", "-o", "json", "-f", "-"], registration);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let registration: Value = serde_json::from_slice(&output.stdout).unwrap();
    let policies: Vec<_> =
        registration["webhooks"].as_array().unwrap().iter().map(|one| &one["failurePolicy"]).collect();
    assert_eq!(policies, ["Fail", "Fail", "Fail", "Fail", "Fail", "Fail", "Ignore"]);
}

/// A pod that is really created, with an annotation that cannot be honoured.
async fn event(client: &Client, namespace: &str) {
    let odd = "metadata: {annotations: {sidecar.istio.io/interceptionMode: TPROXY}, ";
    let output = kubectl(&["create", "-n", namespace, "-f", "-"], &BARE.replace("metadata: {", odd));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(client.clone(), namespace);
    let found = async {
        loop {
            let all = events.list(&Default::default()).await.unwrap().items;
            if let Some(event) = all.into_iter().find(|event| event.reason.as_deref() == Some("NotHonoured"))
            {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let event = timeout(PATIENCE, found).await.expect("an event in time");
    assert_eq!(event.involved_object.name.as_deref(), Some("bare"));
    assert!(event.message.unwrap().contains("interceptionMode"));
}
