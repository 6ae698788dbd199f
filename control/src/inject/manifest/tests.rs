use proptest::prelude::*;

use super::*;

const GRID: &str = "\
# the grid
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ignite, namespace: ignite}
spec:
  template:
    metadata: {labels: {app: ignite}}
    spec:
      containers: [{name: ignite, image: ignite}]
";
const SERVICE: &str = "apiVersion: v1   # odd   spacing\nkind: Service\nmetadata: {name:   ignite}\n";

fn surroundings() -> Surroundings {
    let cluster = Cluster { native_sidecars: true, ..Cluster::default() };
    Surroundings { namespace: "default".to_owned(), namespaces: Vec::new(), cluster }
}

fn injected(text: &str) -> Manifest {
    inject_manifest(text, &surroundings(), &InjectConfig::default()).unwrap()
}

#[test]
fn what_is_no_workload_keeps_every_byte() {
    for text in [
        SERVICE,
        "",
        "\n\n",
        "---\n",
        "# nothing\n---\n# nothing\n",
        "--- # a comment\nkind: X\n...\n",
        "kind: Job\napiVersion: batch.volcano.sh/v1alpha1\r\n",
        "--- {kind: Service}\n",
        "a: |\n  text\n   ---\nb: 1",
        "apiVersion: v1\nkind: List\nitems:\n- {kind: Service, apiVersion: v1}\n",
        "just text",
    ] {
        assert_eq!(injected(text).text, text);
    }
}

#[test]
fn a_second_pass_changes_no_byte() {
    let first = injected(&format!("{SERVICE}---\n{GRID}---\n{SERVICE}"));
    assert!(first.text.starts_with(SERVICE) && first.text.ends_with(SERVICE));
    assert_eq!(injected(&first.text).text, first.text);
    assert!(matches!(first.workloads[0].decision, Decision::Injected(_)));
    assert_eq!(first.workloads[0].name, "StatefulSet ignite/ignite");
}

#[test]
fn a_workload_that_is_left_alone_keeps_every_byte() {
    let text = GRID.replace("{app: ignite}", "{sidecar.istio.io/inject: 'false'}");
    let left = injected(&text);
    assert_eq!(left.text, text);
    assert!(matches!(left.workloads[0].decision, Decision::Skipped(Skip::OptedOut { .. })));
}

#[test]
fn a_namespace_of_the_stream_decides_for_its_workloads() {
    for (labels, name) in [("istio-injection: enabled", Some("istio-proxy")), ("x: y", None)] {
        let text = format!(
            "{GRID}---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: ignite\n  labels: {{{labels}}}\n"
        );
        let text = injected(&text).text;
        match name {
            Some(name) => assert!(text.contains(&format!("name: {name}\n")), "{text}"),
            None => assert!(!text.contains("ringmail"), "{text}"),
        }
    }
}

#[test]
fn every_kind_with_a_pod_gets_a_sidecar_also_in_a_list() {
    let template = "template: {spec: {containers: [{name: a}]}}";
    let kinds = [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("batch/v1", "Job"),
        ("v1", "ReplicationController"),
    ];
    let mut items: Vec<String> = kinds
        .iter()
        .map(|(version, kind)| {
            format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: a}}, spec: {{{template}}}}}")
        })
        .collect();
    items
        .push("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a}]}}".to_owned());
    items.push(format!("{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: a}}, spec: {{jobTemplate: {{spec: {{{template}}}}}}}}}"));
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n{}",
        items.iter().map(|item| format!("- {item}\n")).collect::<String>()
    );
    let all = injected(&list);
    assert_eq!(all.workloads.len(), 8);
    assert_eq!(all.text.matches("name: ringmail-init\n").count(), 8);
    assert_eq!(injected(&all.text).text, all.text);
}

#[test]
fn a_document_that_is_no_yaml_is_told_by_number_and_line() {
    let error = inject_manifest("a: 1\n---\nb: [\n", &surroundings(), &InjectConfig::default()).unwrap_err();
    assert_eq!((error.number, error.line), (2, 3));
}

#[test]
fn numbers_and_words_mean_what_kubectl_takes_them_for() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: a\n    env: [{name: A, value: 'no'}, {name: B, value: '0644'}, {name: C, value: '1e3'}, {name: D, value: '12:30'}]\n  volumes: [{name: v, configMap: {name: c, defaultMode: 0644}}]\n";
    let text = injected(pod).text;
    for expected in [
        "defaultMode: 420\n",
        "value: \"no\"\n",
        "value: \"0644\"\n",
        "value: \"1e3\"\n",
        "value: \"12:30\"\n",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

fn values() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z/][a-zA-Z0-9_./-]{0,12}",
        "\\PC{0,12}",
        "([a-z#:-]{1,6}( [a-z]{1,3})?\n){1,4}[a-z]{0,3}",
        any::<String>(),
        proptest::sample::select(vec![
            "",
            "yes",
            "Off",
            "~",
            "null",
            "0x1f",
            "017",
            "-",
            "? ",
            "a: b",
            "{",
            "1_000",
            ".inf",
            "<<",
            "=",
            "2026-01-01"
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(text.clone(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(value in values()) {
        let text = yaml::write(&value);
        prop_assert_eq!(yaml::read(&text).map_err(TestCaseError::fail)?, value, "{}", text);
    }

    #[test]
    fn the_pieces_of_a_stream_are_the_stream(text in "((---|\\.\\.\\.|--- a|--- #|  ---|a: b|\\|)?(\r?\n)){0,12}[a-z-]{0,4}") {
        let joined: String = documents::split(&text).iter().map(Piece::text).collect();
        prop_assert_eq!(joined, text);
    }
}
