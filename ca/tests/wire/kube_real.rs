//! The real API server: real tokens of real pods, and exactly the permissions that docs/ca.md lists.
//!
//! These tests take the cluster of KUBECONFIG, with an administrator's rights, and the `kubectl` on the path:
//! `KUBECONFIG=... cargo test -p ringmail-ca --test wire kube_real -- --ignored --test-threads 1`.
//! The CAs run here, with the kubeconfig of a service account; the pods need no node, for nothing in them ever runs.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use rcgen::KeyPair;
use ringmail_ca::messages::IstioCertificateResponse;
use serde_json::Value;
use tonic::{Code, Status};

use crate::support::{Ca, ask, assert_refused, certificates, csr, eventually, folder, request, verify};

/// The table of docs/ca.md, for names that end in NAME.
const PERMISSIONS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: ca-NAME, labels: {mesh: NAME}}
---
apiVersion: v1
kind: Namespace
metadata: {name: pods-NAME, labels: {mesh: NAME}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ringmail-ca, namespace: ca-NAME}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: node, namespace: pods-NAME}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: ringmail-ca-NAME}
rules:
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
- {apiGroups: [""], resources: [pods], verbs: [get]}
- {apiGroups: [""], resources: [namespaces], verbs: [list, watch]}
- {apiGroups: [""], resources: [configmaps], resourceNames: [ringmail-ca-root-cert], verbs: [list, watch, create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ringmail-ca-NAME}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ringmail-ca-NAME}
subjects: [{kind: ServiceAccount, name: ringmail-ca, namespace: ca-NAME}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: ringmail-ca, namespace: ca-NAME}
rules:
- {apiGroups: [""], resources: [configmaps], resourceNames: [ringmail-ca-root-cert], verbs: [get, list, watch, create, patch]}
- {apiGroups: [""], resources: [secrets], verbs: [create]}
- {apiGroups: [""], resources: [secrets], resourceNames: [ringmail-ca-root], verbs: [get, list, watch, update]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
- {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [ringmail-ca], verbs: [get, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: ringmail-ca, namespace: ca-NAME}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: ringmail-ca}
subjects: [{kind: ServiceAccount, name: ringmail-ca, namespace: ca-NAME}]
"#;

/// A pod on a node that nobody has: it is there, and that is all a token needs.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: ignite-0, namespace: pods-NAME}
spec:
  serviceAccountName: node
  nodeName: node-of-nobody
  containers: [{name: ignite, image: none}]
"#;

fn run(args: &[&str], stdin: &str) -> Result<String, String> {
    let mut command = Command::new("kubectl");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl");
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn kubectl(args: &[&str]) -> String {
    run(args, "").unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
}

/// Namespaces and roles of one test, gone with it.
struct World {
    name: String,
    kubeconfig: tempfile::NamedTempFile,
}

impl World {
    fn new(test: &str) -> Self {
        assert!(std::env::var_os("KUBECONFIG").is_some(), "these tests need a cluster: set KUBECONFIG");
        let name = format!("{test}-{}", std::process::id());
        run(&["apply", "-f", "-"], &PERMISSIONS.replace("NAME", &name)).unwrap();
        let own = format!("ca-{name}");
        let token = kubectl(&["create", "token", "ringmail-ca", "-n", &own]);
        let admin = kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&admin).unwrap();
        config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
        config["contexts"][0]["context"]["namespace"] = serde_json::json!(own);
        let mut kubeconfig = tempfile::NamedTempFile::new().unwrap();
        kubeconfig.write_all(config.to_string().as_bytes()).unwrap();
        Self { name, kubeconfig }
    }

    fn flags(&self) -> Vec<String> {
        let selector = format!("mesh={}", self.name);
        let flags = [
            "--token-review",
            "--root-secret",
            "ringmail-ca-root",
            "--distribute-bundle",
            "--bundle-namespaces",
        ];
        flags.iter().map(|flag| (*flag).to_owned()).chain([selector]).collect()
    }

    fn kubeconfig(&self) -> &str {
        self.kubeconfig.path().to_str().unwrap()
    }

    fn ca(&self) -> Ca {
        let flags = self.flags();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let ca = Ca::try_with_kubeconfig(folder(), self.kubeconfig(), &flags)
            .unwrap_or_else(|log| panic!("the ca did not start: {log:#?}"));
        eventually("ready", || ca.page("/healthz/ready").starts_with("HTTP/1.1 200"));
        ca
    }

    fn pods(&self) -> String {
        format!("pods-{}", self.name)
    }

    /// Makes the pod; its UID.
    fn pod(&self) -> String {
        run(&["apply", "-f", "-"], &POD.replace("NAME", &self.name)).unwrap();
        kubectl(&["get", "pod", "ignite-0", "-n", &self.pods(), "-o", "jsonpath={.metadata.uid}"])
    }

    fn delete_pod(&self) {
        kubectl(&["delete", "pod", "ignite-0", "-n", &self.pods(), "--grace-period=0", "--force"]);
    }

    fn bound(&self, audience: &str, uid: &str) -> String {
        let bound =
            ["--bound-object-kind", "Pod", "--bound-object-name", "ignite-0", "--bound-object-uid", uid];
        let pods = self.pods();
        let token = ["create", "token", "node", "-n", &pods, "--audience", audience];
        kubectl(&[&token[..], &bound].concat()).trim().to_owned()
    }

    fn has(&self, namespace: &str, bundle: &str) -> bool {
        let path = "jsonpath={.data.root-cert\\.pem}";
        run(&["get", "configmap", "ringmail-ca-root-cert", "-n", namespace, "-o", path], "")
            .is_ok_and(|held| held == bundle)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let (own, pods, role) =
            (format!("ca-{}", self.name), self.pods(), format!("ringmail-ca-{}", self.name));
        let _ = run(&["delete", "namespace", &own, &pods, "--wait=false"], "");
        let _ = run(&["delete", "clusterrole,clusterrolebinding", &role], "");
    }
}

async fn asked(ca: &Ca, token: &str) -> Result<IstioCertificateResponse, Status> {
    ask(ca.connect().await, Some(token), request(&csr(&KeyPair::generate().unwrap()))).await
}

#[tokio::test]
#[ignore = "needs a cluster: KUBECONFIG"]
async fn only_a_token_that_is_bound_to_a_live_pod_gets_a_certificate() {
    let world = World::new("tokens");
    let ca = world.ca();
    let uid = world.pod();
    for audience in ["ringmail-ca", "istio-ca"] {
        let answer = asked(&ca, &world.bound(audience, &uid)).await.unwrap();
        let id = verify(&ca.bundle(), &certificates(&answer.cert_chain)[..1]).unwrap();
        assert_eq!(id.as_str(), format!("spiffe://cluster.local/ns/{}/sa/node", world.pods()));
        let line = ca.audit();
        for (field, expected) in [("pod", "ignite-0"), ("pod_uid", &uid), ("node", "node-of-nobody")] {
            assert_eq!(line[field], expected, "{line}");
        }
    }
    let refused = async |token: &str, reason: &str| {
        assert_refused(&ca, asked(&ca, token).await, Code::Unauthenticated, reason);
    };
    refused(&world.bound("somebody-else", &uid), "token_rejected").await;
    let pods = world.pods();
    let unbound = kubectl(&["create", "token", "node", "-n", &pods, "--audience", "ringmail-ca"]);
    refused(unbound.trim(), "token_not_bound").await;
    let mut forged = world.bound("ringmail-ca", &uid);
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'Q' } else { 'A' });
    forged.insert(forged.rfind('.').unwrap() + 1, 'A');
    refused(&forged, "token_rejected").await;

    let token = world.bound("ringmail-ca", &uid);
    for phase in ["Running", "Succeeded", "Failed"] {
        let patch = format!(r#"{{"status":{{"phase":"{phase}"}}}}"#);
        kubectl(&[
            "patch",
            "pod",
            "ignite-0",
            "-n",
            &pods,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ]);
        match phase {
            "Running" => drop(asked(&ca, &token).await.unwrap()),
            _ => eventually_refused(&ca, &token, &["pod_ended"]).await,
        }
    }
    world.delete_pod();
    // For ten seconds the API server remembers that the token was good; the look at the pod does not.
    let gone = ["pod_gone", "token_rejected"];
    eventually_refused(&ca, &token, &gone).await;
    let again = world.pod();
    assert_ne!(again, uid);
    eventually_refused(&ca, &token, &gone).await;
    asked(&ca, &world.bound("ringmail-ca", &again)).await.unwrap();
    for line in ca.lines_so_far() {
        let line = line.to_string();
        assert!(token.split('.').all(|part| !line.contains(part)), "{line}");
    }
}

/// The API server's caches are a moment behind.
async fn eventually_refused(ca: &Ca, token: &str, reasons: &[&str]) {
    let began = Instant::now();
    loop {
        let answer = asked(ca, token).await;
        if answer.is_err() || began.elapsed().as_secs() > 10 {
            let error = answer.expect_err("it must be refused");
            assert_eq!(error.code(), Code::Unauthenticated, "{error}");
            let line = ca.line(|line| line["outcome"] == "refused");
            assert!(reasons.iter().any(|reason| line["reason"] == *reason), "{line}");
            return;
        }
    }
}

#[tokio::test]
#[ignore = "needs a cluster: KUBECONFIG"]
async fn replicas_share_the_root_and_a_rotation_reaches_every_namespace() {
    let world = World::new("root");
    let cas = [world.ca(), world.ca()];
    let bundle = |ca: &Ca| std::fs::read_to_string(ca.path("bundle.pem")).unwrap();
    assert_eq!(bundle(&cas[0]), bundle(&cas[1]));
    let own = format!("ca-{}", world.name);
    for namespace in [&own, &world.pods()] {
        eventually("the bundle is there", || world.has(namespace, &bundle(&cas[0])));
    }
    let pods = world.pods();
    kubectl(&["delete", "configmap", "ringmail-ca-root-cert", "-n", &pods]);
    eventually("a deleted configmap comes back", || world.has(&pods, &bundle(&cas[0])));
    let tampered = r#"{"data":{"root-cert.pem":"of somebody else"}}"#;
    kubectl(&["patch", "configmap", "ringmail-ca-root-cert", "-n", &pods, "--type=merge", "-p", tampered]);
    eventually("a changed configmap is put right", || world.has(&pods, &bundle(&cas[0])));

    let uid = world.pod();
    let token = world.bound("ringmail-ca", &uid);
    let old = certificates(&asked(&cas[0], &token).await.unwrap().cert_chain)[..1].to_vec();
    for (stage, roots) in [("trust", 2), ("sign", 2), ("retire", 1)] {
        let signer = cas[0].bundle().roots()[0].der.clone();
        let mut rotate = Command::new(env!("CARGO_BIN_EXE_ringmail-ca"));
        rotate.args([
            "rotate-root",
            "--kubeconfig",
            world.kubeconfig(),
            "--stage",
            stage,
            "--min-age",
            "1ms",
        ]);
        let said = rotate.output().unwrap();
        assert!(said.status.success(), "{said:?}");
        for ca in &cas {
            eventually(stage, || {
                let moved = stage != "sign" || ca.bundle().roots()[0].der != signer;
                moved && ca.bundle().roots().len() == roots
            });
            let new = certificates(&asked(ca, &token).await.unwrap().cert_chain)[..1].to_vec();
            verify(&ca.bundle(), &new).unwrap();
            assert_eq!(verify(&ca.bundle(), &old).is_ok(), stage != "retire", "{stage}");
        }
        eventually("the namespaces follow", || world.has(&pods, &bundle(&cas[1])));
    }
}

#[test]
#[ignore = "needs a cluster: KUBECONFIG"]
fn the_permissions_are_no_more_than_the_ca_needs() {
    let world = World::new("rbac");
    let own = format!("ca-{}", world.name);
    let user = format!("system:serviceaccount:{own}:ringmail-ca");
    let can = |verb: &str, what: &str, namespace: &str| {
        run(&["auth", "can-i", verb, what, "-n", namespace, "--as", &user], "").is_ok()
    };
    for (verb, what) in [("get", "secret/ringmail-ca-root"), ("update", "lease/ringmail-ca"), ("get", "pods")]
    {
        assert!(can(verb, what, &own), "{verb} {what}");
    }
    for (verb, what) in [
        ("get", "secret/other"),
        ("list", "secrets"),
        ("delete", "secret/ringmail-ca-root"),
        ("patch", "configmap/other"),
        ("delete", "configmap/ringmail-ca-root-cert"),
        ("list", "pods"),
        ("create", "pods"),
        ("get", "nodes"),
    ] {
        assert!(!can(verb, what, &own), "{verb} {what}");
    }
    for (verb, what) in
        [("get", "secret/ringmail-ca-root"), ("create", "secrets"), ("update", "lease/ringmail-ca")]
    {
        assert!(!can(verb, what, &world.pods()), "{verb} {what} elsewhere");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster: KUBECONFIG"]
async fn a_thousand_proxies_that_wait_are_served_within_seconds() {
    const PROXIES: usize = 1000;
    let world = World::new("rate");
    let ca = world.ca();
    let token = world.bound("ringmail-ca", &world.pod());
    let csr = csr(&KeyPair::generate().unwrap());
    let mut channels = Vec::new();
    for _ in 0..40 {
        channels.push(ca.connect().await);
    }
    let began = Instant::now();
    let mut proxies = tokio::task::JoinSet::new();
    for proxy in 0..PROXIES {
        let (channel, csr, token) = (channels[proxy % channels.len()].clone(), csr.clone(), token.clone());
        proxies.spawn(async move { ask(channel, Some(&token), request(&csr)).await.unwrap() });
    }
    while let Some(proxy) = proxies.join_next().await {
        proxy.unwrap();
    }
    let rate = PROXIES as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} certificates per second from a real API server");
    assert!(rate >= 200.0, "{rate:.0} certificates per second: expected at least 200");
}
