//! Sets that are put together from single objects, and whom each of them concerns.

use std::collections::BTreeMap;

use ringmail_policy::{Client, ClientClass, Facts, Inbound, Origin, Pod, Resources, ServicePort};

use super::{
    authorization, created, destination_rule, peer_authentication, pod, set, settings, workload_entry,
};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_older_of_two_objects_decides_in_whatever_order_they_came() {
    let old = created(1, &peer_authentication("ignite/z", "{mtls: {mode: STRICT}}"));
    let young = created(2, &peer_authentication("ignite/a", "{mtls: {mode: DISABLE}}"));
    let (old, young) = (set(&[old]), set(&[young]));
    for parts in [[&old, &young], [&young, &old]] {
        let merged = Resources::merge(parts);
        let decided = Inbound::compile(&merged, &settings(), &pod()).mode(1).decided_by.to_string();
        assert_eq!(decided, "PeerAuthentication ignite/z");
    }
}

#[test]
fn an_object_concerns_the_pods_it_may_select_and_no_others() {
    let modes = |name: &str, spec: &str, namespace: &str| {
        let own = labels(&[("app", "ignite")]);
        set(&[peer_authentication(name, spec)]).sets_modes_of(&settings(), namespace, &own)
    };
    let selecting = "{selector: {matchLabels: {app: other}}}";
    assert!(modes("ignite/p", "{}", "ignite") && !modes("ignite/p", "{}", "thin"));
    assert!(modes("istio-system/p", "{}", "thin") && !modes("ignite/p", selecting, "ignite"));
    let authorizes = |name: &str, spec: &str, namespace: &str| {
        let own = labels(&[("app", "ignite")]);
        set(&[authorization(name, spec)]).authorizes_for(&settings(), namespace, &own)
    };
    assert!(authorizes("ignite/p", "{}", "ignite") && !authorizes("ignite/p", "{}", "thin"));
    assert!(authorizes("istio-system/p", "{}", "thin") && !authorizes("istio-system/p", selecting, "thin"));
}

#[test]
fn all_clients_of_a_class_are_told_the_same() {
    let rules = set(&[
        destination_rule(
            "ignite/own",
            "{host: node, trafficPolicy: {tls: {mode: DISABLE}}, exportTo: ['.']}",
        ),
        destination_rule(
            "thin/selecting",
            "{host: node.ignite.svc.cluster.local, workloadSelector: {matchLabels: {tier: web}}, \
             trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}",
        ),
        destination_rule(
            "other/far",
            "{host: node.ignite.svc.cluster.local, exportTo: [visited], trafficPolicy: {tls: {mode: SIMPLE}}}",
        ),
        destination_rule("istio-system/root", "{host: '*.local', trafficPolicy: {tls: {mode: MUTUAL}}}"),
    ]);
    let settings = settings();
    let facts = Facts {
        name: "node".to_owned(),
        namespace: "ignite".to_owned(),
        service_account: "default".to_owned(),
        services: vec![ServicePort {
            host: "node.ignite.svc.cluster.local".to_owned(),
            namespace: "ignite".to_owned(),
            port: 1,
            target_port: 1,
        }],
        ..Facts::default()
    };
    let workload = std::sync::Arc::new(facts.workload(&settings.trust_domain).unwrap());
    let told = |client: Option<&Pod>| {
        let mut client = Client::new(&rules, &settings, client);
        client.destination(workload.clone(), Origin::Default("a test".into())).unwrap()
    };
    let mut classes = Vec::new();
    for namespace in ["ignite", "thin", "visited", "other", "elsewhere", "istio-system"] {
        for own in [labels(&[]), labels(&[("tier", "web")]), labels(&[("tier", "db"), ("app", "x")])] {
            let pod = Pod { namespace: namespace.to_owned(), labels: own, ..Pod::default() };
            let class = rules.client_class(&pod);
            assert_eq!(told(Some(&pod)), told(class.pod().as_ref()), "{pod:?}");
            classes.push(class);
        }
    }
    classes.sort();
    classes.dedup();
    // Nobody, three kinds of pods of `thin`, and one of each namespace besides that a rule names.
    assert_eq!(classes.len(), 1 + 3 + 4);
}

#[test]
fn clients_whom_no_rule_tells_from_others_are_of_one_class() {
    let class = |rule: &str, namespace: &str| {
        let pod = Pod { namespace: namespace.to_owned(), ..Pod::default() };
        set(&[destination_rule("a/r", rule)]).client_class(&pod)
    };
    let (own, exported) = ("{host: x}", "{host: x, exportTo: [b]}");
    for (rule, namespace, told) in [
        (own, "a", true),
        (own, "b", false),
        (exported, "a", true),
        (exported, "b", true),
        (exported, "c", false),
    ] {
        assert_eq!(class(rule, namespace) != ClientClass::default(), told, "{rule} {namespace}");
    }
}

#[test]
fn a_rule_concerns_the_workloads_that_its_host_names() {
    let facts =
        Facts { name: "node".into(), namespace: "a".into(), service_account: "x".into(), ..Facts::default() };
    let workload = facts.workload(&settings().trust_domain).unwrap();
    let names = |host: &str| set(&[destination_rule("a/r", &format!("{{host: '{host}'}}"))]).names(&workload);
    assert!(names("node") && names("*.cluster.local") && !names("other"));
}

#[test]
fn an_entry_is_a_workload_with_what_says_so() {
    let entry = set(&[workload_entry("a/vm", "{address: 10.0.0.9}")]);
    let (workload, origin) = entry.workloads(&settings().trust_domain).remove(0).unwrap();
    assert_eq!((&*workload.name, origin.to_string().as_str()), ("vm", "WorkloadEntry a/vm"));
}
