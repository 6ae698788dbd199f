//! Text that is refused, and the line that says why.

use super::*;

fn lines(text: &str) -> Vec<String> {
    faults(text).iter().map(ToString::to_string).collect()
}

#[test]
fn a_fault_names_source_document_line_path_and_both_values() {
    let text = format!(
        "{}---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: x\nspec:\n  mtls:\n    mode: STRICTER\n",
        peer_authentication("ns/fine", "{}")
    );
    assert_eq!(
        lines(&text),
        ["bad.yaml: document 2, line 13: spec.mtls.mode: \
          expected UNSET, DISABLE, PERMISSIVE or STRICT, read \"STRICTER\""]
    );
}

#[test]
fn text_that_is_no_yaml_is_named_by_its_line_in_the_file() {
    let text = format!("{}---\nkind: [\n", peer_authentication("ns/fine", "{}"));
    let faults = faults(&text);
    assert_eq!(faults.len(), 1);
    assert_eq!((faults[0].place().document, &*faults[0].place().source), (2, "bad.yaml"));
    assert!(faults[0].place().line >= 7, "{}", faults[0]);
    assert!(faults[0].to_string().contains("expected a YAML document, read "), "{}", faults[0]);
    assert!(!faults[0].to_string().contains("column"), "{}", faults[0]);
}

#[test]
fn what_stands_above_the_first_separator_is_a_document_only_if_it_says_something() {
    let number = |above: &str| faults(&format!("{above}---\nkind: [\n"))[0].place().document;
    for above in ["", "\n", "# a comment\n", "# a comment\n\n  \n# another\n"] {
        assert_eq!(number(above), 1, "{above:?}");
    }
    assert_eq!(number(&peer_authentication("ns/fine", "{}")), 2);
}

#[test]
fn every_fault_of_every_document_and_source_is_collected() {
    let one = peer_authentication("ns/a", "{mtls: {mode: X}, selector: {matchLabels: {app: 1}}}");
    let two = format!("{}---\n: [\n{}", one, authorization("ns/b", "{action: 7, rules: x}"));
    let faults = Resources::parse([("one.yaml", &*one), ("two.yaml", &*two)]).unwrap_err();
    let sources: Vec<_> = faults.iter().map(|fault| &*fault.place().source).collect();
    assert_eq!(sources.iter().filter(|source| **source == "one.yaml").count(), 2, "{faults:#?}");
    assert!(faults.iter().any(|fault| matches!(fault, ParseError::Syntax { .. })));
    assert!(faults.iter().any(|fault| fault.to_string().contains("expected a list, read \"x\"")));
    assert!(faults.iter().any(|fault| fault.to_string().contains("expected a string, read the number 7")));
}

#[test]
fn a_resource_that_stands_twice_is_refused_with_both_places() {
    let text = [peer_authentication("ns/a", "{}"), peer_authentication("ns/a", "{}")].concat();
    assert_eq!(
        lines(&text),
        [
            "bad.yaml: document 2, line 7: PeerAuthentication ns/a is already defined at bad.yaml: document 1, line 2"
        ]
    );
}

/// A slip of the pen must not turn a policy into another one.
#[test]
fn a_field_that_the_api_does_not_have_is_refused() {
    for (text, field) in [
        (peer_authentication("ns/a", "{portLevelMTLS: {}}"), "portLevelMTLS"),
        (peer_authentication("ns/a", "{mtls: {modus: STRICT}}"), "modus"),
        (peer_authentication("ns/a", "{selector: {matchExpressions: []}}"), "matchExpressions"),
        (authorization("ns/a", "{rule: [{}]}"), "rule"),
        (authorization("ns/a", "{rules: [{form: []}]}"), "form"),
        (authorization("ns/a", "{rules: [{from: [{source: {principal: [x]}}]}]}"), "principal"),
        (authorization("ns/a", "{rules: [{to: [{operation: {port: ['1']}}]}]}"), "port"),
        (authorization("ns/a", "{rules: [{from: [{source: {ports: ['1']}}]}]}"), "ports"),
        (authorization("ns/a", "{rules: [{when: [{key: source.ip, value: [x]}]}]}"), "value"),
        (destination_rule("ns/a", "{host: x, trafficPolice: {}}"), "trafficPolice"),
        (workload_entry("ns/a", "{address: 10.0.0.1, adress: x}"), "adress"),
    ] {
        let lines = lines(&text);
        assert!(
            lines.iter().any(|line| line.contains(&format!("read the unknown field {field:?}"))),
            "{lines:?}"
        );
    }
}

/// Istio's validation of policies: nothing may be left empty where "empty" could mean "any" or "none".
#[test]
fn empty_parts_of_a_rule_are_refused() {
    for rule in [
        "null",
        "{from: []}",
        "{from: [{}]}",
        "{from: [{source: {}}]}",
        "{from: [{source: {principals: []}}]}",
        "{from: [{source: {principals: ['']}}]}",
        "{from: [{source: {serviceAccounts: []}}]}",
        "{to: []}",
        "{to: [{operation: null}]}",
        "{to: [{operation: {ports: []}}]}",
        "{to: [{operation: {methods: []}}]}",
        "{when: []}",
        "{when: [{key: source.ip}]}",
        "{when: [{values: [10.0.0.1]}]}",
        "{when: [{key: source.ip, values: []}]}",
    ] {
        assert!(!lines(&authorization("ns/a", &format!("{{rules: [{rule}]}}"))).is_empty(), "{rule}");
    }
}

#[test]
fn values_that_cannot_be_read_are_refused() {
    for (rule, expected) in [
        ("{to: [{operation: {ports: ['0']}}]}", "a port from 1 to 65535"),
        ("{to: [{operation: {ports: ['65536']}}]}", "a port from 1 to 65535"),
        ("{to: [{operation: {ports: ['+1']}}]}", "a port from 1 to 65535"),
        ("{to: [{operation: {ports: [10800]}}]}", "a string, read the number 10800"),
        ("{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}", "an address or a range"),
        ("{from: [{source: {ipBlocks: ['localhost']}}]}", "an address or a range"),
        ("{from: [{source: {serviceAccounts: ['a/*']}}]}", "<namespace>/<service account> without *"),
        ("{from: [{source: {serviceAccounts: ['a/b/c']}}]}", "<namespace>/<service account> without *"),
        ("{from: [{source: {serviceAccounts: ['/b']}}]}", "<namespace>/<service account> without *"),
        ("{from: [{source: {serviceAccounts: ['a/']}}]}", "<namespace>/<service account> without *"),
        ("{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}", "no principals or namespaces"),
    ] {
        let lines = lines(&authorization("ns/a", &format!("{{rules: [{rule}]}}")));
        assert!(lines.iter().any(|line| line.contains(expected)), "{rule}: {lines:?}");
    }
    let ports = "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}, http: {mode: STRICT}}}";
    assert_eq!(lines(&peer_authentication("ns/a", ports)).len(), 2);
}

#[test]
fn what_surrounds_a_spec_is_checked() {
    for (text, expected) in [
        ("just text\n", "a mapping"),
        ("- a\n- b\n", "a mapping"),
        ("kind: Service\n", "a field apiVersion"),
        ("apiVersion: v1\n", "a field kind"),
        ("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n", "a field metadata"),
        (
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {namespace: a}\n",
            "a field name",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, creationTimestamp: soon}\n",
            "a time such as",
        ),
    ] {
        let lines = lines(text);
        assert!(lines.iter().any(|line| line.contains(expected)), "{text}: {lines:?}");
    }
    let duplicate_key = "apiVersion: v1\nkind: A\nkind: B\n";
    assert!(matches!(faults(duplicate_key)[0], ParseError::Syntax { .. }));
}

#[test]
fn empty_documents_lists_and_comments_are_fine() {
    let text = "# a comment\n---\n---\n# another\n--- # third\napiVersion: v1\nkind: List\nitems:\n\
                - apiVersion: security.istio.io/v1\n  kind: PeerAuthentication\n  metadata: {name: a, creationTimestamp: null}\n  \
                spec: {mtls: {mode: STRICT}}\n- apiVersion: v1\n  kind: Service\n  metadata: {name: b}\n";
    let set = Resources::parse([("list.yaml", text)]).unwrap();
    assert_eq!(set.reports().len(), 1);
    let mut pod = pod();
    pod.namespace = "default".to_owned();
    let inbound = Inbound::compile(&set, &settings(), &pod);
    assert_eq!(inbound.mode(THIN).decided_by.to_string(), "PeerAuthentication default/a");
    assert!(Resources::parse([("empty.yaml", ""), ("blank.yaml", "\n\n")]).unwrap().reports().is_empty());
    assert!(Resources::parse([("crlf.yaml", "---\r\napiVersion: v1\r\nkind: A\r\n---\r\n")]).is_ok());
}

/// `---` at the start of a line ends a document in YAML, also within a block of text.
#[test]
fn a_separator_inside_a_block_of_text_separates() {
    let text = "apiVersion: v1\nkind: A\ntext: |\n  x\n---\napiVersion: v1\nkind: B\n";
    assert_eq!(Resources::parse([("a.yaml", text)]).unwrap().reports().len(), 2);
}
