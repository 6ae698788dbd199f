//! `ringmail inject` as a pipe sees it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

const SERVICE: &str = "apiVersion: v1   # as typed\nkind: Service\nmetadata: {name:   ignite}\n";
const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: ignite-0}
spec: {containers: [{name: ignite, image: ignite}]}
";

fn inject(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringmail"))
        .arg("inject")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_second_pass_through_the_pipe_changes_no_byte() {
    let first = inject(&[], &format!("{SERVICE}---\n{POD}"));
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let text = stdout(&first);
    assert!(
        text.starts_with(&format!("{SERVICE}---\n")) && text.contains("name: ringmail-proxy\n"),
        "{text}"
    );
    assert_eq!(stderr(&first), "Pod default/ignite-0: injected\n");
    assert_eq!(stdout(&inject(&[], &text)), text);
}

#[test]
fn the_namespaces_labels_decide_and_name_the_container() {
    for (labels, expected) in [
        ("istio-injection=enabled", "name: istio-proxy\n"),
        ("linkerd.io/inject=enabled", "name: linkerd-proxy\n"),
    ] {
        let output = inject(&["-n", "ignite", "--namespace-labels", labels, "-f", "-"], POD);
        assert!(stdout(&output).contains(expected), "{}", stdout(&output));
    }
    let left = inject(&["--namespace-labels", "team=a"], POD);
    assert_eq!((left.status.code(), stdout(&left).as_str()), (Some(0), POD));
    assert!(stderr(&left).contains("left as it is: nothing asks"), "{}", stderr(&left));
}

#[test]
fn a_workload_that_must_not_run_leaves_standard_output_empty_and_ends_with_2() {
    let refused = inject(&[], &format!("{POD}---\n{}", POD.replace("spec: {", "spec: {hostNetwork: true, ")));
    assert_eq!((refused.status.code(), stdout(&refused).as_str()), (Some(2), ""));
    assert!(stderr(&refused).contains("refused: hostNetwork: true"), "{}", stderr(&refused));
}

#[test]
fn warnings_go_to_standard_error_and_files_and_images_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (pod, config) = (folder.path().join("pod.yaml"), folder.path().join("config.yaml"));
    std::fs::write(
        &pod,
        POD.replace("metadata: {", "metadata: {annotations: {sidecar.istio.io/interceptionMode: NONE}, "),
    )
    .unwrap();
    std::fs::write(&config, "injection: {trust_domain: grid.example}\nmesh: other\n").unwrap();
    let (pod, config) = (pod.to_str().unwrap(), config.to_str().unwrap());
    let output = inject(&["-f", pod, "-f", pod, "--config", config, "--proxy-image", "r.example/p:7"], "");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!(
        (text.matches("image: r.example/p:7\n").count(), text.matches("\n---\n").count()),
        (0, 1),
        "{text}"
    );
    assert_eq!(text.matches("\"r.example/p:7\"").count(), 2, "{text}");
    assert!(text.contains("value: grid.example\n"), "{text}");
    assert!(
        stderr(&output).contains("warning: sidecar.istio.io/interceptionMode: \"NONE\""),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_cannot_be_read_ends_with_1_and_says_where() {
    for (arguments, input, expected) in [
        (vec![], "a: [\n", "standard input: document 1, line 1"),
        (vec!["-f", "/nowhere/pod.yaml"], "", "/nowhere/pod.yaml"),
        (vec!["--config", "/nowhere/config.yaml"], "", "/nowhere/config.yaml"),
    ] {
        let output = inject(&arguments, input);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    assert_eq!(inject(&["--namespace-labels", "nonsense"], "").status.code(), Some(64));
}

#[test]
fn a_directory_is_its_manifests_by_name_and_one_without_any_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("b.yml", POD), ("a.yaml", SERVICE), ("notes.txt", "a: ["), ("c.json", "{}")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    std::fs::create_dir(folder.path().join("more.yaml")).unwrap();
    let directory = folder.path().to_str().unwrap();
    let output = inject(&["-f", directory], "");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with(&format!("{SERVICE}---\n")) && text.ends_with("---\n{}"), "{text}");
    assert!(text.contains("name: ringmail-proxy\n"), "{text}");
    let empty = folder.path().join("more.yaml");
    let output = inject(&["-f", empty.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("expected manifests (*.yaml"), "{}", stderr(&output));
}

#[test]
fn what_is_no_object_passes_and_is_named() {
    for text in ["garbage\n", "kind: Service\n", "- a\n"] {
        let stream = format!("# nothing\n---\n{SERVICE}---\n{text}");
        let output = inject(&[], &stream);
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), stream));
        assert!(
            stderr(&output).starts_with("standard input: document 3, line 7: no object of Kubernetes"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_fault_is_said_once_and_in_the_words_of_yaml() {
    let output = inject(&[], ": {{{\n");
    let said = stderr(&output);
    assert!(said.contains("document 1, line 1: ") && said.contains("a key is empty"), "{said}");
    assert!(!said.contains("Option<"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "injection: {nosuchkey: 1}\n").unwrap();
    let said = stderr(&inject(&["--config", config.to_str().unwrap()], ""));
    assert!(said.contains("injection.nosuchkey: there is no such setting"), "{said}");
    assert!(!said.trim_end().ends_with("at line 1, column 12"), "{said}");
}

#[test]
fn a_word_that_nobody_can_read_is_a_warning_whatever_is_decided() {
    let maybe = POD.replace("metadata: {", "metadata: {labels: {sidecar.istio.io/inject: maybe}, ");
    let output = inject(&["--namespace-labels", "istio-injection=enabled"], &maybe);
    let said = stderr(&output);
    assert!(said.contains("left as it is: the pod's label sidecar.istio.io/inject"), "{said}");
    assert!(said.contains("warning: the pod's label sidecar.istio.io/inject: \"maybe\": expected"), "{said}");
}
