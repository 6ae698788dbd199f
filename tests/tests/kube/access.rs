//! What each part of the mesh may do to the cluster, by trying: what it needs, and nothing beside it.

use ringmail_tests::kube::{Place, Toolbox, stage, stage::Stage};

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
    let _use = stage.shared();
    for (verb, resource, namespace, control, ca) in ROWS {
        for (who, may) in [(CONTROL, control), (CA, ca)] {
            assert_eq!(
                can(stage, who, verb, resource, namespace),
                *may,
                "{who} {verb} {resource} in {namespace:?}"
            );
        }
    }
}

#[test]
#[ignore = "needs a cluster"]
fn a_pod_of_the_mesh_may_nothing_by_its_sidecar() {
    let stage = stage();
    let _use = stage.shared();
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
    let status = place
        .sh("member", "istio-proxy", "grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/1/status")
        .unwrap();
    let words: Vec<_> = status.split_whitespace().collect();
    assert_eq!(
        words,
        ["CapEff:", "0000000000000000", "CapBnd:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"]
    );
    assert!(
        place.sh("member", "istio-proxy", "touch /usr/local/bin/written").is_err(),
        "the root is writable"
    );
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
