//! What the processes of running pods may do to the machine, as the kernel tells it.

use std::fs;

use ringmail_evidence::shown;
use ringmail_tests::kube::{Place, Toolbox, process, stage, stage::SYSTEM};
use serde_json::{Value, json};

/// What a container's first process must be: user, capability sets, and what it may gain.
fn wanted(user: &'static str) -> [(&'static str, String); 9] {
    let (ids, none) = ([user; 4].join(" "), "0000000000000000".to_owned());
    [
        ("Uid", ids.clone()),
        ("Gid", ids),
        ("CapInh", none.clone()),
        ("CapPrm", none.clone()),
        ("CapEff", none.clone()),
        ("CapBnd", none.clone()),
        ("CapAmb", none),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
    ]
}

/// Of `/proc/PID/status` and `/proc/PID/mounts`.
fn is_confined(whose: &str, user: &'static str, status: &str, mounts: &str) {
    for (name, value) in wanted(user) {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>().join(" "), value, "{whose}: {name}");
    }
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).unwrap();
    let options = root.split_whitespace().nth(3).unwrap_or_default();
    assert!(options.split(',').any(|option| option == "ro"), "{whose}: {root}");
}

#[test]
#[ignore = "needs a cluster"]
fn a_sidecar_has_no_capability_and_no_writable_root_and_its_memory_is_closed_to_its_neighbours() {
    let stage = stage();
    let place = Place::in_mesh(stage, "confined").unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    let sidecar = |script: &str| place.sh("member", "istio-proxy", script);
    let (status, mounts) =
        (sidecar("cat /proc/1/status").unwrap(), sidecar("cat /proc/self/mounts").unwrap());
    is_confined("the sidecar", "1337", &status, &mounts);
    assert!(sidecar("touch /usr/local/bin/written").is_err(), "the root is writable");
    shown!("S1", "capabilities of the sidecar, from inside a running pod", 0, "no bit in any of five sets");
    shown!("S1", "NoNewPrivs, seccomp mode, user of the sidecar", "1, 2, 1337", "exactly");
    shown!("S1", "root of the sidecar", "ro", "mounted read-only, a write fails");
    // A shell beside the proxy, of the same user.
    for secret in ["mem", "environ", "maps"] {
        assert!(sidecar(&format!("cat /proc/1/{secret}")).is_err(), "/proc/1/{secret} can be read");
    }
    shown!(
        "S6",
        "memory of the sidecar to a process of its user in its container",
        "refused",
        "mem, environ and maps"
    );
    let init =
        place.field("pod/member", "{.spec.initContainers[?(@.name==\"ringmail-init\")].securityContext}");
    let init: Value = serde_json::from_str(&init.unwrap()).unwrap();
    assert_eq!(init["capabilities"], json!({"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}), "{init}");
    assert_eq!(init["readOnlyRootFilesystem"], true, "{init}");
    assert_eq!(init["allowPrivilegeEscalation"], false, "{init}");
    shown!("S1", "capabilities of the init container", "NET_ADMIN, NET_RAW", "exactly");
}

/// Their images have no shell to ask from inside, so the node's own view of the processes is read.
#[test]
#[ignore = "needs a cluster"]
fn ca_and_control_have_no_capability_and_no_writable_root() {
    let stage = stage();
    for container in ["ringmail-ca", "ringmail-control"] {
        let selector = format!("app.kubernetes.io/name={container}");
        let running = "--field-selector=status.phase=Running";
        let names = "jsonpath={.items[*].metadata.name}";
        let pods =
            stage.kubectl(&["get", "pods", "-n", SYSTEM, "-l", &selector, running, "-o", names]).unwrap();
        assert!(!pods.is_empty(), "no {container} runs");
        for pod in pods.split_whitespace() {
            let pid = process::main_in(stage, SYSTEM, pod, container).unwrap();
            let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
            is_confined(container, "65532", &of("status"), &of("mounts"));
        }
    }
    shown!("S1", "capabilities of CA and control, of running pods", 0, "no bit in any of five sets");
    shown!("S1", "NoNewPrivs, seccomp mode, user of CA and control", "1, 2, 65532", "exactly");
    shown!("S1", "roots of CA and control", "ro", "mounted read-only");
}
