//! A cluster of plain processes is a real one: pods run, say something, are reached by name, and the API server calls a
//! webhook in one of them. It goes away with its value, after an interrupt, and after a SIGKILL with the next start.
//!
//! Ignored by default, since they need what `scripts/install-deps.sh kube` installs; `make e2e-kube` runs them.

#![expect(clippy::unwrap_used, reason = "a test fails where it meets what it did not expect")]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringmail_lab::kube::{Cluster, KEPT_CLUSTERS, Shape, images};

/// From nothing to a node that is ready, on a machine with two cores that does nothing else.
const START_LIMIT: Duration = Duration::from_secs(30);

const POD_DEADLINE: Duration = Duration::from_secs(60);

/// What is named after a cluster on this machine, and where.
const TRACES: [(&str, &str); 5] = [
    ("/var/lib/ringmail-kube", ""),
    ("/run/netns", "rk"),
    ("/sys/class/net", "rk"),
    ("/sys/fs/cgroup/pids", "ringmail-kube-"),
    ("/sys/fs/cgroup", "ringmail-kube-"),
];

/// Everything of every cluster that is on the machine now, but for the kept one's and the lock.
fn traces() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (folder, prefix) in TRACES {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(rest) = name.strip_prefix(prefix) else { continue };
            if number(rest).is_some_and(|number| number >= KEPT_CLUSTERS) {
                found.push(Path::new(folder).join(name));
            }
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = mounts.lines().filter(|line| line.contains("/var/lib/ringmail-kube/"));
    let kept = |line: &&str| (0..KEPT_CLUSTERS).any(|kept| line.contains(&format!("/ringmail-kube/{kept}/")));
    found.extend(ours.filter(|line| !kept(line)).map(PathBuf::from));
    found
}

/// The cluster's number that a name begins with.
fn number(name: &str) -> Option<u8> {
    name.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn toolbox() -> PathBuf {
    images::build(&["toolbox"], "test", Path::new("/nonexistent")).unwrap().remove(0)
}

/// Runs a pod of the toolbox image and waits until it is ready.
fn run_pod(cluster: &Cluster, name: &str, node: &str, command: &str) {
    let pod = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: ringmail/toolbox:test
    imagePullPolicy: Never
    command: ["bash", "-c", {command:?}]
"#
    );
    cluster.kubectl_stdin(&["apply", "-f", "-"], &pod).unwrap();
    cluster.wait_condition("default", &format!("pod/{name}"), "condition=Ready", POD_DEADLINE).unwrap();
}

fn sh(cluster: &Cluster, pod: &str, script: &str) -> String {
    cluster.exec("default", pod, "main", &["bash", "-c", script]).unwrap()
}

const ECHO: &str =
    "echo it is up; exec socat TCP6-LISTEN:7000,fork,reuseaddr,ipv6only=0 SYSTEM:'echo $HOSTNAME'";

#[test]
#[ignore = "needs what scripts/install-deps.sh kube installs"]
fn one_node_runs_pods_with_logs_exec_dns_and_services_and_calls_a_webhook() {
    let image = toolbox();
    let begin = Instant::now();
    let mut cluster = Cluster::start(1).unwrap();
    let took = begin.elapsed();
    println!("one node is ready after {took:?} with {} MB", cluster.memory().unwrap() / 1_000_000);
    assert!(took < START_LIMIT, "the start took {took:?}");
    cluster.load_image(&image).unwrap();

    let begin = Instant::now();
    run_pod(&cluster, "echo", "node1", ECHO);
    println!("a pod is ready after {:?}", begin.elapsed());
    assert_eq!(cluster.kubectl(&["logs", "echo"]).unwrap(), "it is up\n");
    assert_eq!(sh(&cluster, "echo", "echo $HOSTNAME"), "echo\n");

    cluster.kubectl(&["expose", "pod", "echo", "--port=7000"]).unwrap();
    run_pod(&cluster, "asks", "node1", "sleep infinity");
    let names = sh(&cluster, "asks", "getent hosts echo.default.svc.cluster.local kubernetes.default");
    assert!(names.contains("10.96.") && names.contains("10.96.0.1 "), "{names}");
    assert!(cluster.exec("default", "asks", "main", &["getent", "hosts", "example.com"]).is_err());
    cluster
        .wait_for(POD_DEADLINE, "the Service leads to the pod", |cluster| {
            let said = cluster.exec("default", "asks", "main", &["socat", "-t5", "-", "TCP:echo:7000"])?;
            Ok((said == "echo\n").then_some(()))
        })
        .unwrap();
    // A pod that asks its own Service is led back to itself.
    assert_eq!(sh(&cluster, "echo", "socat -t5 - TCP:echo:7000"), "echo\n");

    a_webhook_in_a_pod_is_called(&cluster);
    pod_security_refuses_what_is_not_restricted(&cluster);

    cluster.restart_node(1).unwrap();
    assert_eq!(sh(&cluster, "echo", "socat -t5 - TCP:echo:7000"), "echo\n");
    cluster.stop_api().unwrap();
    assert!(cluster.kubectl(&["get", "nodes"]).is_err());
    cluster.start_api().unwrap();
    assert_eq!(cluster.kubectl(&["logs", "echo"]).unwrap(), "it is up\n");

    let left: Vec<_> = traces();
    assert!(!left.is_empty(), "a running cluster leaves traces, or this would prove nothing");
    drop(cluster);
    assert_eq!(traces(), Vec::<PathBuf>::new());
}

fn a_webhook_in_a_pod_is_called(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=webhook", "-addext", "subjectAltName=DNS:webhook.default.svc", "-days", "2"])
        .args(["-keyout", "tls.key", "-out", "tls.crt"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name: &str| folder.path().join(name).display().to_string();
    cluster
        .kubectl(&[
            "create",
            "secret",
            "tls",
            "webhook",
            "--cert",
            &file("tls.crt"),
            "--key",
            &file("tls.key"),
        ])
        .unwrap();
    let encoded = Command::new("base64").args(["-w", "0", &file("tls.crt")]).output().unwrap().stdout;
    let bundle = String::from_utf8(encoded).unwrap();
    let objects = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: webhook, labels: {{app: webhook}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: ringmail/toolbox:test
    imagePullPolicy: Never
    command: [webhook]
    readinessProbe: {{tcpSocket: {{port: 8443}}, periodSeconds: 1}}
    volumeMounts: [{{name: certificate, mountPath: /certificate}}]
  volumes: [{{name: certificate, secret: {{secretName: webhook}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: webhook}}
spec: {{selector: {{app: webhook}}, ports: [{{port: 443, targetPort: 8443}}]}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {{name: toolbox}}
webhooks:
- name: toolbox.ringmail.io
  clientConfig: {{service: {{name: webhook, namespace: default}}, caBundle: {bundle}}}
  rules: [{{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}}]
  objectSelector: {{matchLabels: {{hooked: "true"}}}}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
"#
    );
    cluster.kubectl_stdin(&["apply", "-f", "-"], &objects).unwrap();
    cluster.wait_condition("default", "pod/webhook", "condition=Ready", POD_DEADLINE).unwrap();
    let hooked = "{apiVersion: v1, kind: ConfigMap, metadata: {name: hooked, labels: {hooked: \"true\"}}}";
    let label = cluster
        .wait_for(POD_DEADLINE, "the API server calls the webhook", |cluster| {
            cluster.kubectl_stdin(&["apply", "-f", "-"], hooked)?;
            let path = "jsonpath={.metadata.labels.seen-by}";
            Ok(Some(cluster.kubectl(&["get", "configmap", "hooked", "-o", path])?))
        })
        .unwrap();
    assert_eq!(label, "toolbox");
}

fn pod_security_refuses_what_is_not_restricted(cluster: &Cluster) {
    cluster.kubectl(&["create", "namespace", "restricted"]).unwrap();
    let label = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl(&["label", "namespace", "restricted", label]).unwrap();
    let refused = cluster.kubectl(&["run", "-n", "restricted", "root", "--image=ringmail/toolbox:test"]);
    let refusal = format!("{:#}", refused.unwrap_err());
    assert!(refusal.contains("violates PodSecurity \"restricted"), "{refusal}");
}

#[test]
#[ignore = "needs what scripts/install-deps.sh kube installs"]
fn pods_on_two_nodes_reach_each_other_over_both_families_with_their_own_addresses() {
    let image = toolbox();
    let cluster = Cluster::start_shape(Shape { nodes: 2, dual_stack: true }).unwrap();
    println!("two nodes hold {} MB", cluster.memory().unwrap() / 1_000_000);
    cluster.load_image(&image).unwrap();
    let listen = "exec socat TCP6-LISTEN:7000,fork,reuseaddr,ipv6only=0 SYSTEM:'echo $SOCAT_PEERADDR'";
    run_pod(&cluster, "far", "node2", listen);
    run_pod(&cluster, "near", "node1", "sleep infinity");
    let service = "{apiVersion: v1, kind: Service, metadata: {name: far}, \
                   spec: {ipFamilyPolicy: RequireDualStack, selector: {app: far}, ports: [{port: 7000}]}}";
    cluster.kubectl_stdin(&["apply", "-f", "-"], service).unwrap();

    let addresses = |kind: &str, name: &str, path: &str| {
        let path = format!("jsonpath={{{path}}}");
        let listed = cluster.kubectl(&["get", kind, name, "-o", &path]).unwrap();
        listed.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let near = addresses("pod", "near", ".status.podIPs[*].ip");
    assert_eq!(near.len(), 2, "{near:?}");
    let mut targets = addresses("pod", "far", ".status.podIPs[*].ip");
    targets.extend(
        addresses("service", "far", ".spec.clusterIPs[*]")
            .iter()
            .map(|json| json.trim_matches(['[', ']', '"']).to_owned()),
    );
    assert_eq!(targets.len(), 4, "{targets:?}");
    for target in targets {
        let (v6, bracketed) = (target.contains(':'), format!("[{target}]"));
        let dial = if v6 { format!("TCP6:{bracketed}:7000") } else { format!("TCP4:{target}:7000") };
        let seen = cluster
            .wait_for(POD_DEADLINE, &format!("{target} answers"), |cluster| {
                Ok(Some(cluster.exec("default", "near", "main", &["socat", "-t5", "-", &dial])?))
            })
            .unwrap();
        let source: std::net::IpAddr = seen.trim_end().trim_matches(['[', ']']).parse().unwrap();
        let expected = near.iter().filter_map(|ip| ip.parse::<std::net::IpAddr>().ok());
        let canonical = source.to_canonical();
        assert!(
            expected.clone().any(|ip| ip == canonical),
            "{target} saw {source}, expected one of {near:?}"
        );
    }
    // From the machine itself only the nodes are reached; from a node's namespace pods are.
    let far = addresses("pod", "far", ".status.podIP").remove(0);
    let from_node = cluster.node_namespace(1).unwrap();
    from_node.enter(|| TcpStream::connect((far.as_str(), 7000)).map(drop)).unwrap().unwrap();
}

/// A program that has started a cluster of its own and holds it.
fn holder() -> Child {
    let mut holder = Command::new(env!("CARGO_BIN_EXE_lab-kube"))
        .arg("hold")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("up after"), "{said:?}");
    holder
}

#[test]
#[ignore = "needs what scripts/install-deps.sh kube installs"]
fn a_cluster_is_gone_after_an_interrupt_and_after_a_sigkill_with_the_next_start() {
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut holder = holder();
        assert!(!traces().is_empty());
        kill(Pid::from_raw(holder.id().cast_signed()), signal).unwrap();
        holder.wait().unwrap();
        if signal == Signal::SIGKILL {
            let left = traces();
            assert!(!left.is_empty(), "who is killed cleans nothing up");
            let folder = left.iter().find(|path| path.starts_with("/var/lib")).unwrap();
            let marker = folder.join("of-the-killed-one");
            std::fs::write(&marker, "").unwrap();
            let next = Cluster::start(1).unwrap();
            assert!(!marker.exists());
            drop(next);
        }
        assert_eq!(traces(), Vec::<PathBuf>::new(), "after {signal}");
    }
}

#[test]
#[ignore = "needs what scripts/install-deps.sh kube installs"]
fn a_component_that_ends_is_named_with_what_it_said_last_and_nothing_stays() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/kube-binaries.sh");
    let printed = Command::new(script).output().unwrap().stdout;
    let programs = String::from_utf8(printed).unwrap();
    let broken = tempfile::tempdir().unwrap();
    for program in std::fs::read_dir(programs.trim_end()).unwrap() {
        let program = program.unwrap();
        std::os::unix::fs::symlink(program.path(), broken.path().join(program.file_name())).unwrap();
    }
    let server = broken.path().join("kube-apiserver");
    std::fs::remove_file(&server).unwrap();
    std::fs::write(&server, "#!/bin/sh\necho its last words\nexit 1\n").unwrap();
    std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
    let started = Command::new(env!("CARGO_BIN_EXE_lab-kube"))
        .arg("hold")
        .env("RINGMAIL_KUBE_BINARIES", broken.path())
        .output()
        .unwrap();
    let said = String::from_utf8(started.stderr).unwrap();
    assert!(!started.status.success());
    assert!(said.contains("kube-apiserver has ended") && said.contains("its last words"), "{said}");
    assert_eq!(traces(), Vec::<PathBuf>::new());
}
