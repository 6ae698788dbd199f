//! Pods as users have them, before and after; a person has read what comes after.
//!
//! `RINGMAIL_REGENERATE=1 cargo test -p ringmail-control --test golden` writes the files anew; read the difference.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringmail_control::inject::manifest::{Decision, Manifest, Surroundings, inject_manifest};
use ringmail_control::inject::{Cluster, InjectConfig, Namespace};

const NATIVE: Cluster = Cluster { native_sidecars: true, istio_injects: false, linkerd_injects: false };
const OLD: Cluster = Cluster { native_sidecars: false, ..NATIVE };

/// The pod, what comes of it, the namespace's label, and the cluster.
const SCENARIOS: [(&str, &str, (&str, &str), Cluster); 8] = [
    ("ignite", "ignite.istio", ("istio-injection", "enabled"), NATIVE),
    ("ignite", "ignite.linkerd", ("linkerd.io/inject", "enabled"), NATIVE),
    ("ignite", "ignite.without-native", ("istio-injection", "enabled"), OLD),
    ("gridgain", "gridgain.linkerd", ("linkerd.io/inject", "enabled"), NATIVE),
    ("bare", "bare.ringmail", ("ringmail.io/inject", "enabled"), NATIVE),
    ("job", "job.istio", ("istio-injection", "enabled"), NATIVE),
    ("job", "job.without-native", ("istio-injection", "enabled"), OLD),
    ("everything", "everything.istio", ("istio-injection", "enabled"), NATIVE),
];

#[test]
fn each_pod_comes_out_as_read_before() {
    let mut differing = Vec::new();
    for (name, after, label, cluster) in SCENARIOS {
        let written = written(&injected(&before(name), label, cluster));
        let path = directory().join(format!("{after}.after"));
        if std::env::var_os("RINGMAIL_REGENERATE").is_some() {
            std::fs::write(&path, &written).unwrap();
        }
        if std::fs::read_to_string(&path).ok().as_ref() != Some(&written) {
            differing.push(format!("{after}:\n{written}"));
        }
    }
    assert!(differing.is_empty(), "not as in the golden file:\n{}", differing.join("\n"));
}

#[test]
fn every_golden_file_belongs_to_a_scenario() {
    for file in std::fs::read_dir(directory()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let is_known = SCENARIOS
            .iter()
            .any(|(before, after, ..)| name == format!("{before}.yaml") || name == format!("{after}.after"));
        assert!(is_known, "{name} is left over");
    }
}

#[test]
fn a_second_pass_over_each_changes_nothing() {
    for (name, _, label, cluster) in SCENARIOS {
        let once = injected(&before(name), label, cluster);
        let twice = injected(&once.text, label, cluster);
        assert_eq!(twice.text, once.text, "{name}");
    }
}

/// A variable that the proxy does not know is a setting that does not hold.
#[test]
fn every_variable_of_a_sidecar_is_a_setting_that_the_proxy_documents() {
    let settings = std::fs::read_to_string(directory().join("../../../docs/config.md")).unwrap();
    for (_, after, ..) in SCENARIOS {
        let pod = std::fs::read_to_string(directory().join(format!("{after}.after"))).unwrap();
        let variables: Vec<_> = pod.split("name: RINGMAIL_").skip(1).collect();
        assert!(!variables.is_empty(), "{after} has no variable");
        for variable in variables {
            let name = variable.lines().next().unwrap().trim_end().to_lowercase();
            assert!(
                settings.contains(&format!("`{name}`")),
                "{after}: {name} is no setting of docs/config.md"
            );
        }
    }
}

fn injected(text: &str, (name, value): (&str, &str), cluster: Cluster) -> Manifest {
    let labels = BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let namespace =
        |name: &str| Namespace { name: name.to_owned(), labels: labels.clone(), ..Namespace::default() };
    let namespaces = ["default", "ignite", "gridgain", "shop"].map(namespace).into();
    let surroundings = Surroundings { namespace: "default".to_owned(), namespaces, cluster };
    inject_manifest(text, &surroundings, &config()).unwrap()
}

/// With a version that no release changes.
fn config() -> InjectConfig {
    InjectConfig {
        proxy_image: "ringmail/proxy:1.2.3".to_owned(),
        init_image: "ringmail/init:1.2.3".to_owned(),
        ..InjectConfig::default()
    }
}

/// The warnings as comments, then the manifest.
fn written(manifest: &Manifest) -> String {
    let mut text = String::new();
    for workload in &manifest.workloads {
        match &workload.decision {
            Decision::Injected(warnings) => {
                for warning in warnings {
                    text.push_str(&format!("# {}: {warning}\n", workload.name));
                }
            }
            Decision::Refused(refusal) => panic!("{}: {refusal}", workload.name),
            Decision::Skipped(skip) => panic!("{}: {skip}", workload.name),
        }
    }
    let version = format!("\\\"version\\\":\\\"{}\\\"", env!("CARGO_PKG_VERSION"));
    text + &manifest.text.replace(&version, "\\\"version\\\":\\\"1.2.3\\\"")
}

fn before(name: &str) -> String {
    std::fs::read_to_string(directory().join(format!("{name}.yaml"))).expect("the pod")
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}
