//! `ringmail describe` and `ringmail explain` against a real API server.
//!
//! Needs a cluster in `KUBECONFIG` with Ringmail installed. The pods need an address and nothing else, so that no image has
//! to be there. Everything is in one namespace, which is removed again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::config::Kubeconfig;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// For a pod to get its address.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// The command with a KUBECONFIG of its own, and what it is given on standard input.
fn ringmail(kubeconfig: Option<&Path>, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail"));
    if let Some(path) = kubeconfig {
        command.env("KUBECONFIG", path);
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn answer(arguments: &[&str], input: &str) -> (Option<i32>, Value) {
    let output = ringmail(None, &[arguments, &["-o", "json"]].concat(), input);
    let said = serde_json::from_slice(&output.stdout);
    (output.status.code(), said.unwrap_or_else(|error| panic!("{error}: {}", stderr(&output))))
}

async fn create<K>(client: &Client, namespace: &str, object: Value)
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    Api::<K>::namespaced(client.clone(), namespace).create(&PostParams::default(), &object).await.unwrap();
}

async fn policy(client: &Client, namespace: &str, (kind, plural): (&str, &str), name: &str, spec: Value) {
    let resource = ApiResource {
        group: "security.istio.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "security.istio.io/v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    let mut object = DynamicObject::new(name, &resource);
    object.data = json!({ "spec": spec });
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    api.create(&PostParams::default(), &object).await.unwrap();
}

fn node(name: &str, labels: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "serviceAccountName": "ignite", "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "ignite", "image": "ringmail.invalid/none:1", "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 47500, "name": "tcp-discovery"}, {"containerPort": 10800, "name": "tcp-thin"}],
            }],
        },
    })
}

/// Two nodes of a ring behind a Service, a pod without a sidecar, STRICT, and whom the ring lets in.
async fn scene(client: &Client, namespace: &str) {
    create::<ServiceAccount>(client, namespace, json!({"metadata": {"name": "ignite"}})).await;
    let ports = json!([{"name": "tcp-thin", "port": 10800}]);
    let spec = json!({"selector": {"app": "ignite"}, "ports": ports});
    create::<Service>(client, namespace, json!({"metadata": {"name": "thin"}, "spec": spec})).await;
    let peers = ("PeerAuthentication", "peerauthentications");
    policy(client, namespace, peers, "default", json!({"mtls": {"mode": "STRICT"}})).await;
    let principal = format!("cluster.local/ns/{namespace}/sa/ignite");
    let rules = json!([{"from": [{"source": {"principals": [principal]}}]}]);
    let rights = ("AuthorizationPolicy", "authorizationpolicies");
    policy(client, namespace, rights, "ring", json!({"rules": rules})).await;
    for (name, labels) in [
        ("ignite-0", json!({"app": "ignite"})),
        ("ignite-1", json!({"app": "ignite"})),
        ("bare", json!({"sidecar.istio.io/inject": "false"})),
    ] {
        create::<Pod>(client, namespace, node(name, labels)).await;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let begun = Instant::now();
    for name in ["ignite-0", "ignite-1", "bare"] {
        while pods.get(name).await.unwrap().status.and_then(|status| status.pod_ip).is_none() {
            assert!(begun.elapsed() < PATIENCE, "pod {name} has no address after {PATIENCE:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A kubeconfig for an account without any right.
async fn kubeconfig_without_rights(client: &Client, namespace: &str, folder: &Path) -> std::path::PathBuf {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    let token = accounts.create_token_request("ignite", &PostParams::default(), &request).await.unwrap();
    let own = Kubeconfig::read().unwrap();
    let cluster = serde_json::to_value(&own.clusters[0]).unwrap();
    let context = json!({"name": "none", "context": {"cluster": cluster["name"], "user": "none"}});
    let user = json!({"name": "none", "user": {"token": token.status.unwrap().token}});
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "none",
        "clusters": [cluster], "contexts": [context], "users": [user],
    });
    let path = folder.join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    path
}

async fn looks(client: Client, namespace: String) {
    scene(&client, &namespace).await;
    let name = |pod: &str| format!("{namespace}/{pod}");
    described(&name("ignite-0"), &namespace);
    explained(&name, &namespace);
    let missing = ringmail(None, &["describe", "pod", "-n", &namespace, "ignite-7"], "");
    assert_eq!(missing.status.code(), Some(1));
    let said = stderr(&missing);
    assert!(
        said.contains(&format!("no pod {namespace}/ignite-7; namespace {namespace} has bare, ignite-0")),
        "{said}"
    );
    let folder = tempfile::tempdir().unwrap();
    let nobody = kubeconfig_without_rights(&client, &namespace, folder.path()).await;
    let from = name("ignite-0");
    let to = format!("{}:47500", name("ignite-1"));
    let refused = ringmail(Some(&nobody), &["explain", "--from", &from, "--to", &to], "");
    let said = stderr(&refused);
    assert!(refused.status.code() == Some(1) && said.contains("of all namespaces: forbidden: "), "{said}");
    assert!(said.contains("ClusterRole ringmail-viewer"), "{said}");
}

fn described(pod: &str, namespace: &str) {
    let (code, said) = answer(&["describe", "pod", pod], "");
    assert_eq!(code, Some(0));
    assert_eq!(said["injection"]["injected"], true, "{said:#}");
    assert_eq!(said["injection"]["why"], "the namespace's label istio-injection asks for it");
    assert_eq!(said["identity"], format!("spiffe://cluster.local/ns/{namespace}/sa/ignite"));
    assert_eq!(said["authorization_policies"][0]["name"], format!("AuthorizationPolicy {namespace}/ring"));
    let thin = said["ports"].as_array().unwrap().iter().find(|line| line["port"] == 10800).unwrap();
    assert_eq!(thin["mode"], "STRICT");
    assert_eq!(thin["decided_by"], format!("PeerAuthentication {namespace}/default"));
    assert_eq!(thin["services"][0], "thin:10800");
}

fn explained(name: &impl Fn(&str) -> String, namespace: &str) {
    let (first, bare) = (name("ignite-0"), name("bare"));
    let node = format!("{}:47500", name("ignite-1"));
    let thin = format!("thin.{namespace}.svc.cluster.local:10800");
    let outcome = |from: &str, to: &str, more: &[&str], input: &str| {
        let (code, said) = answer(&[&["explain", "--from", from, "--to", to], more].concat(), input);
        (code, said["outcome"].as_str().unwrap().to_owned(), said)
    };
    let (code, ring, said) = outcome(&first, &node, &[], "");
    assert_eq!((code, &*ring), (Some(0), "mutual_tls"), "{said:#}");
    assert_eq!(said["steps"][2]["decided_by"], format!("AuthorizationPolicy {namespace}/ring rule 0"));
    let (code, service, said) = outcome(&first, &thin, &[], "");
    assert_eq!((code, &*service), (Some(0), "mutual_tls"), "{said:#}");
    assert_eq!(said["endpoints"].as_array().unwrap().len(), 2);
    let (code, refused, said) = outcome(&bare, &thin, &[], "");
    assert_eq!((code, &*refused), (Some(2), "refused"), "{said:#}");
    let open = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: {namespace}}}\n\
         spec: {{mtls: {{mode: PERMISSIVE}}}}\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: ring, namespace: {namespace}}}\nspec: {{rules: [{{}}]}}\n"
    );
    let (code, supposed, said) = outcome(&bare, &thin, &["-f", "-"], &open);
    assert_eq!((code, &*supposed), (Some(0), "plaintext"), "{said:#}");
    let replaced = format!("PeerAuthentication {namespace}/default (in place of the cluster's)");
    assert_eq!(said["supposing"][0], replaced);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn the_commands_say_of_a_ring_what_its_own_objects_say() {
    let client = Client::try_default().await.unwrap();
    let name = format!("cli-look-{}", std::process::id());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let labels = json!({"istio-injection": "enabled"});
    let namespace = json!({"metadata": {"name": name, "labels": labels}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
    let outcome = tokio::spawn(looks(client, name.clone())).await;
    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
    outcome.unwrap();
}
