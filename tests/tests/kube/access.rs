//! What each part of the mesh may do to the cluster, by trying: what it needs, and nothing beside it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use ringmail_evidence::shown;
use ringmail_lab::mesh::find_programs;
use ringmail_tests::kube::{Place, STRICT, Toolbox, stage, stage::Stage};
use serde_json::{Value, json};

/// The page that tells users which role the commands need.
const PAGE: &str = include_str!("../../../docs/cli.md");

/// The API server's authorizer learns of a role by a watch.
const GRANTED_WITHIN: Duration = Duration::from_secs(10);

const CONTROL: &str = "system:serviceaccount:ringmail-system:ringmail-control";
const CA: &str = "system:serviceaccount:ringmail-system:ringmail-ca";

/// A verb, a resource (`resource/name`), a namespace (empty for the whole cluster), and whether control and the CA may.
type Row = (&'static str, &'static str, &'static str, bool, bool);

const ROWS: &[Row] = &[
    ("create", "tokenreviews.authentication.k8s.io", "", true, true),
    ("get", "pods", "", false, true),
    ("list", "pods", "", true, false),
    ("watch", "pods", "", true, false),
    ("list", "services", "", true, false),
    ("list", "endpointslices.discovery.k8s.io", "", true, false),
    ("list", "nodes", "", true, false),
    ("get", "namespaces", "", true, false),
    ("list", "namespaces", "", false, true),
    ("list", "peerauthentications.security.istio.io", "", true, false),
    ("create", "customresourcedefinitions.apiextensions.k8s.io", "", true, false),
    ("patch", "mutatingwebhookconfigurations/ringmail-injector", "", true, false),
    ("create", "events.events.k8s.io", "default", true, false),
    ("patch", "configmaps/ringmail-ca-root-cert", "default", false, true),
    ("get", "secrets/ringmail-ca-root", "ringmail-system", false, true),
    ("get", "secrets/ringmail-injector-ca", "ringmail-system", true, false),
    ("update", "leases.coordination.k8s.io/ringmail-control", "ringmail-system", true, false),
    ("update", "leases.coordination.k8s.io/ringmail-ca", "ringmail-system", false, true),
    // Nobody may do any of these.
    ("list", "secrets", "", false, false),
    ("get", "secrets/anything", "default", false, false),
    ("list", "secrets", "ringmail-system", false, false),
    ("delete", "secrets/ringmail-ca-root", "ringmail-system", false, false),
    ("create", "pods", "default", false, false),
    ("create", "pods/exec", "default", false, false),
    ("delete", "pods", "default", false, false),
    ("patch", "pods", "default", false, false),
    ("get", "configmaps/anything", "default", false, false),
    ("patch", "mutatingwebhookconfigurations/another", "", false, false),
    ("create", "mutatingwebhookconfigurations", "", false, false),
    ("update", "customresourcedefinitions/peerauthentications.security.istio.io", "", false, false),
    ("delete", "peerauthentications.security.istio.io", "default", false, false),
    ("create", "serviceaccounts/token", "default", false, false),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io", "", false, false),
    ("impersonate", "users", "", false, false),
    ("*", "*", "", false, false),
];

#[test]
#[ignore = "needs a cluster"]
fn control_and_the_ca_may_do_what_they_need_and_nothing_beside_it() {
    let stage = stage();
    for (verb, resource, namespace, control, ca) in ROWS {
        for (who, may) in [(CONTROL, control), (CA, ca)] {
            assert_eq!(
                can(stage, who, verb, resource, namespace),
                *may,
                "{who} {verb} {resource} in {namespace:?}"
            );
        }
    }
    let refused = ROWS.iter().flat_map(|row| [row.3, row.4]).filter(|may| !may).count();
    shown!("S2", "verbs tried as control and as the CA that must be refused", refused, "all refused");
    shown!("S2", "verbs that they need", 2 * ROWS.len() - refused, "all admitted");
}

#[test]
#[ignore = "needs a cluster"]
fn a_pod_of_the_mesh_may_nothing_by_its_sidecar() {
    let stage = stage();
    let place = Place::in_mesh(stage, "rights").unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    let account = "system:serviceaccount:rights:default";
    for (verb, resource) in
        [("list", "pods"), ("get", "secrets"), ("list", "peerauthentications.security.istio.io")]
    {
        assert!(!can(stage, account, verb, resource, "rights"), "{verb} {resource}");
    }
    // The sidecar's token is for the mesh alone, and the API server takes it for nothing else.
    let ask = "curl -sk -o /dev/null -w '%{http_code}' -H \"Authorization: Bearer $(cat \
               /var/run/secrets/tokens/ringmail-token)\" https://kubernetes.default.svc/api";
    assert_eq!(place.sh("member", "istio-proxy", ask).unwrap(), "401");
}

/// What the page tells to apply, word for word: the role, and the command that binds it.
fn documented() -> (&'static str, &'static str) {
    let mut blocks = PAGE.split("```").skip(1).step_by(2).map(str::trim);
    let role = blocks.find(|block| block.contains("kind: ClusterRole\n")).unwrap();
    let binding = blocks.find(|block| block.starts_with("kubectl create clusterrolebinding ")).unwrap();
    (role.strip_prefix("yaml\n").unwrap(), binding)
}

/// The page's role and binding in the cluster, taken away at the end.
struct Granted<'a>(&'a Stage);

impl<'a> Granted<'a> {
    fn to(stage: &'a Stage, account: &str) -> Self {
        let (role, binding) = documented();
        let granted = Self(stage);
        granted.take_back();
        stage.apply(role).unwrap();
        let to_account = binding.replace("--group=platform", &format!("--serviceaccount={account}"));
        assert_ne!(to_account, binding, "the page names another group");
        stage.shell(&to_account).unwrap();
        granted
    }

    fn take_back(&self) {
        let args = ["delete", "--ignore-not-found"];
        let both = ["clusterrolebinding/ringmail-viewers", "clusterrole/ringmail-viewer"];
        if let Err(error) = self.0.kubectl(&[&args[..], &both].concat()) {
            eprintln!("the page's role is still there: {error:#}");
        }
    }
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// A kubeconfig of the account, by a token of its own.
fn kubeconfig_of(place: &Place, account: &str, folder: &Path) -> PathBuf {
    let token = place.kubectl(&["create", "token", account]).unwrap();
    let own = place.kubectl(&["config", "view", "--minify", "--flatten", "--raw", "-o", "json"]).unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&own).unwrap();
    kubeconfig["users"][0]["user"] = json!({ "token": token.trim() });
    let path = folder.join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    path
}

fn ringmail(kubeconfig: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(find_programs().unwrap().join("ringmail"));
    command.args(args).args(["-o", "json"]).arg("--kubeconfig").arg(kubeconfig).output().unwrap()
}

/// Objects and commands that no look at the mesh needs.
const BEYOND: &[&[&str]] = &[
    &["get", "secrets"],
    &["get", "secrets", "--all-namespaces"],
    &["get", "secret", "ringmail-ca-root", "-n", "ringmail-system"],
    &["get", "configmap", "ringmail-ca-root-cert"],
    &["get", "configmaps", "-n", "ringmail-system"],
    &["get", "pod", "server"],
    &["get", "namespaces"],
    &["get", "serviceaccounts"],
    &["logs", "server", "-c", "main"],
    &["exec", "server", "-c", "main", "--", "true"],
    &["port-forward", "server", "15000"],
    &["run", "more", "--image=none"],
    &["delete", "pod", "server"],
    &["delete", "peerauthentication", "default"],
    &["label", "namespace", "rights-viewer", "istio-injection=disabled", "--overwrite"],
    &["create", "token", "viewer"],
    &["create", "clusterrolebinding", "more", "--clusterrole=cluster-admin", "--user=me"],
    &["get", "pods", "--as=admin"],
];

#[test]
#[ignore = "needs a cluster"]
fn the_role_that_the_page_documents_is_what_the_commands_need_and_nothing_beside_it() {
    let stage = stage();
    let place = Place::in_mesh(stage, "rights-viewer").unwrap();
    place.apply(STRICT).unwrap();
    Toolbox::server("server").start(&place).unwrap();
    Toolbox::idle("client").start(&place).unwrap();
    place.kubectl(&["create", "serviceaccount", "viewer"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let viewer = kubeconfig_of(&place, "viewer", folder.path());
    let describe: &[&str] = &["describe", "pod", "rights-viewer/server"];
    let explain: &[&str] =
        &["explain", "--from", "rights-viewer/client", "--to", "rights-viewer/server:47500"];
    for command in [describe, explain] {
        let refused = ringmail(&viewer, command);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            refused.status.code() == Some(1) && said.contains("the ClusterRole ringmail-viewer"),
            "{said}"
        );
    }

    let _granted = Granted::to(stage, "rights-viewer:viewer");
    let answer = |command: &[&str]| {
        let what = format!("{command:?} with the role of the page");
        place
            .until(GRANTED_WITHIN, &what, || {
                let output = ringmail(&viewer, command);
                let said = serde_json::from_slice::<Value>(&output.stdout).ok();
                Ok(said.filter(|said| output.status.success() && said["unseen"].is_null()))
            })
            .unwrap()
    };
    let said = answer(describe);
    assert_eq!(said["identity"], "spiffe://cluster.local/ns/rights-viewer/sa/default", "{said:#}");
    assert_eq!(said["ports"].as_array().unwrap().last().unwrap()["mode"], "STRICT", "{said:#}");
    let said = answer(explain);
    assert_eq!(said["outcome"], "mutual_tls", "{said:#}");
    assert_eq!(said["steps"][1]["decided_by"], "PeerAuthentication rights-viewer/default", "{said:#}");

    let as_viewer = format!("--kubeconfig={}", viewer.display());
    for beyond in BEYOND {
        let namespace: &[&str] = if beyond.contains(&"-n") { &[] } else { &["-n", "rights-viewer"] };
        let args = [&[as_viewer.as_str()], namespace, beyond].concat();
        let output = Command::new(stage.client().program()).args(&args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.to_lowercase().contains("forbidden"), "{beyond:?}: {said}");
    }
}

fn can(stage: &Stage, who: &str, verb: &str, resource: &str, namespace: &str) -> bool {
    let mut args = vec!["auth", "can-i", verb];
    let (resource, subresource) = match resource.split_once('/') {
        Some((kind, sub @ ("exec" | "token"))) => (kind, Some(sub)),
        _ => (resource, None),
    };
    let subresource = subresource.map(|sub| format!("--subresource={sub}"));
    args.push(resource);
    args.extend(subresource.as_deref());
    let asked_as = format!("--as={who}");
    args.extend([asked_as.as_str(), "--as-group=system:serviceaccounts", "--as-group=system:authenticated"]);
    if namespace.is_empty() {
        args.push("--all-namespaces");
    } else {
        args.extend(["-n", namespace]);
    }
    // It ends with status 1 where the answer is no.
    let output = stage.client().output(&args, None).unwrap();
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => true,
        "no" => false,
        other => panic!("{args:?}: {other:?} {}", String::from_utf8_lossy(&output.stderr)),
    }
}
