//! PeerAuthentication.

use super::*;

fn strict(name: &str) -> String {
    peer_authentication(name, "{mtls: {mode: STRICT}}")
}

fn disable(name: &str) -> String {
    peer_authentication(name, "{mtls: {mode: DISABLE}}")
}

fn workload(name: &str, rest: &str) -> String {
    peer_authentication(name, &format!("{{selector: {{matchLabels: {{app: ignite}}}}, {rest}}}"))
}

/// PeerAuthentication reference, Mode UNSET: "Inherit from parent, if has one. Otherwise treated as PERMISSIVE."
#[test]
fn without_a_policy_the_mode_is_permissive() {
    assert_eq!(mode(&[], THIN), ("PERMISSIVE", "no PeerAuthentication sets a mode".to_owned()));
}

/// PeerAuthentication reference, Mode UNSET: "Inherit from parent, if has one. Otherwise treated as PERMISSIVE."
#[test]
fn an_unset_mode_is_inherited_scope_by_scope() {
    let unset = |name| peer_authentication(name, "{mtls: {mode: UNSET}}");
    let set = [strict("istio-system/mesh"), unset("ignite/default"), workload("ignite/pods", "mtls: null")];
    assert_eq!(mode(&set, THIN), ("STRICT", "PeerAuthentication istio-system/mesh".to_owned()));
    assert_eq!(mode(&[unset("istio-system/mesh")], THIN).0, "PERMISSIVE");
}

/// Security concepts, Authentication policies: "Istio applies the narrowest matching policy for each workload
/// using the following order: workload-specific, namespace-wide, mesh-wide."
#[test]
fn the_narrowest_scope_decides() {
    let mesh = strict("istio-system/mesh");
    let namespace = peer_authentication("ignite/default", "{mtls: {mode: PERMISSIVE}}");
    let pods = workload("ignite/pods", "mtls: {mode: DISABLE}");
    assert_eq!(mode(std::slice::from_ref(&mesh), THIN).1, "PeerAuthentication istio-system/mesh");
    let two = [mesh.clone(), namespace.clone()];
    assert_eq!(mode(&two, THIN), ("PERMISSIVE", "PeerAuthentication ignite/default".to_owned()));
    let three = [mesh, namespace, pods];
    assert_eq!(mode(&three, THIN), ("DISABLE", "PeerAuthentication ignite/pods".to_owned()));
}

/// PeerAuthentication reference, selector: "If not set, the policy will be applied to all workloads in the same
/// namespace as the policy."
#[test]
fn a_policy_of_another_namespace_or_selector_says_nothing() {
    let other =
        peer_authentication("ignite/other", "{selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}}");
    assert_eq!(mode(&[strict("elsewhere/default"), other], THIN).0, "PERMISSIVE");
}

/// Security concepts, Authentication policies: a namespace-wide policy has "an empty selector field".
#[test]
fn empty_match_labels_make_a_namespace_policy() {
    let empty = peer_authentication("ignite/default", "{selector: {matchLabels: {}}, mtls: {mode: STRICT}}");
    let mut other = pod();
    other.labels.clear();
    let inbound = Inbound::compile(&set(&[empty]), &settings(), &other);
    assert_eq!(inbound.mode(THIN).mode.as_str(), "STRICT");
}

/// Security concepts, Authentication policies: "Istio ignores the newer policies." and "When more than one
/// workload-specific peer authentication policy matches, Istio picks the oldest one."
#[test]
fn the_oldest_of_a_scope_wins_wherever_it_stands() {
    for (a, b) in [("istio-system/a", "istio-system/b"), ("ignite/a", "ignite/b")] {
        let (young, old) = (created(9, &strict(a)), created(3, &disable(b)));
        assert_eq!(mode(&[young.clone(), old.clone()], THIN).0, "DISABLE");
        assert_eq!(mode(&[old, young], THIN).0, "DISABLE");
    }
    let young = created(9, &workload("ignite/a", "mtls: {mode: STRICT}"));
    let old = created(3, &workload("ignite/b", "mtls: {mode: DISABLE}"));
    assert_eq!(mode(&[young, old], THIN), ("DISABLE", "PeerAuthentication ignite/b".to_owned()));
}

/// Security concepts, Authentication policies: "Istio ignores the newer policies." An ignored one fills no gap.
#[test]
fn a_younger_policy_fills_no_gap_of_the_oldest() {
    let old = created(3, &workload("ignite/a", "mtls: {mode: UNSET}"));
    let young =
        created(9, &workload("ignite/b", "mtls: {mode: STRICT}, portLevelMtls: {10800: {mode: DISABLE}}"));
    let set = [old, young];
    assert_eq!(mode(&set, THIN).0, "PERMISSIVE");
    assert!(reported(inbound(&set).reports(), "b", "shadowed"));
}

/// Istio's sorting of configurations, whose ties go by name, then namespace.
#[test]
fn policies_of_the_same_second_go_by_name() {
    let (a, b) = (created(3, &strict("ignite/a")), created(3, &disable("ignite/b")));
    assert_eq!(mode(&[b, a], THIN).0, "STRICT");
}

/// The rule of this crate for files: without a timestamp a resource is younger than all that have one, and the
/// earlier document is older.
#[test]
fn without_timestamps_the_order_of_documents_is_the_age() {
    let (strict, disable) = (strict("ignite/z"), disable("ignite/a"));
    assert_eq!(mode(&[strict.clone(), disable.clone()], THIN).0, "STRICT");
    assert_eq!(mode(&[disable.clone(), strict.clone()], THIN).0, "DISABLE");
    assert_eq!(mode(&[strict, created(3, &disable)], THIN).0, "DISABLE");
}

/// PeerAuthentication reference, portLevelMtls: "Port specific mutual TLS settings. These only apply when a
/// workload selector is specified."
#[test]
fn a_port_of_the_winning_workload_policy_has_its_own_mode() {
    let ports = "mtls: {mode: STRICT}, portLevelMtls: {10800: {mode: DISABLE}, '8080': {mode: PERMISSIVE}}";
    let set = [workload("ignite/pods", ports)];
    assert_eq!(mode(&set, THIN), ("DISABLE", "PeerAuthentication ignite/pods port 10800".to_owned()));
    assert_eq!(mode(&set, 8080), ("PERMISSIVE", "PeerAuthentication ignite/pods port 8080".to_owned()));
    assert_eq!(mode(&set, 47500), ("STRICT", "PeerAuthentication ignite/pods".to_owned()));
}

/// PeerAuthentication reference, example: "Policy to inherit mTLS mode from namespace (or mesh) settings, and
/// overwrite settings for port 8080".
#[test]
fn an_unset_port_has_the_mode_of_the_workload() {
    let ports = "mtls: {mode: UNSET}, portLevelMtls: {10800: {mode: UNSET}, 8080: {mode: DISABLE}}";
    let set = [strict("ignite/default"), workload("ignite/pods", ports)];
    assert_eq!(mode(&set, THIN), ("STRICT", "PeerAuthentication ignite/default".to_owned()));
    assert_eq!(mode(&set, 8080).0, "DISABLE");
}

/// PeerAuthentication reference, portLevelMtls: "These only apply when a workload selector is specified."
#[test]
fn ports_without_a_selector_are_refused() {
    let text = peer_authentication("ignite/default", "{portLevelMtls: {10800: {mode: DISABLE}}}");
    let faults = faults(&text);
    assert_eq!(
        faults[0].to_string(),
        "bad.yaml: document 1, line 5: spec.portLevelMtls: \
         expected a selector with matchLabels beside it, read none"
    );
}

/// Security concepts, Authentication policies: a policy of the root namespace must not have a selector; one that
/// has is ignored.
#[test]
fn a_selector_in_the_root_namespace_is_ignored_and_reported() {
    let set = [workload("istio-system/pods", "mtls: {mode: STRICT}")];
    assert_eq!(mode(&set, THIN).0, "PERMISSIVE");
    assert!(reported(inbound(&set).reports(), "pods", "no effect in the root namespace"));

    let mut root_pod = pod();
    root_pod.namespace = "istio-system".to_owned();
    let inbound = Inbound::compile(&super::set(&set), &settings(), &root_pod);
    assert_eq!(inbound.mode(THIN).mode.as_str(), "PERMISSIVE");
}
