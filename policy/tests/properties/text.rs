//! Text that nobody meant: reading it ends, and ends in a set or in faults.

use proptest::prelude::*;
use ringmail_policy::Resources;

const VALID: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: p
  namespace: ns
spec:
  selector: {matchLabels: {app: db}}
  rules:
  - from:
    - source:
        principals: [\"td/ns/a/sa/b\", '*']
        notIpBlocks: [10.0.0.0/8]
    to:
    - operation: {ports: ['10800']}
    when: [{key: source.ip, values: [10.0.0.1]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: ns}
spec: {host: a, trafficPolicy: {tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 1}}]}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w, namespace: ns}
spec: {address: 10.0.0.1, labels: {app: db}}
";

fn ends(text: &str) -> Result<(), TestCaseError> {
    if let Err(faults) = Resources::parse([("any.yaml", text)]) {
        prop_assert!(!faults.is_empty());
        let lines = text.lines().count();
        for fault in faults {
            prop_assert!(fault.to_string().starts_with("any.yaml: document "));
            prop_assert!((1..=lines + 1).contains(&fault.place().line), "{fault} of {lines} lines");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_ends_in_a_set_or_in_faults(text in "\\PC{0,200}") {
        ends(&text)?;
    }

    #[test]
    fn text_of_yaml_signs_ends_in_a_set_or_in_faults(text in "[-:\\[\\]{}&*!|>'\"#%,? \nab0]{0,120}") {
        ends(&text)?;
    }

    #[test]
    fn damaged_resources_end_in_a_set_or_in_faults(
        at in 0..VALID.len(),
        cut in 0..40_usize,
        put in "[-:\\[\\]{}&* \nab0]{0,6}",
    ) {
        let end = (at + cut).min(VALID.len());
        ends(&format!("{}{put}{}", &VALID[..at], &VALID[end..]))?;
    }
}

#[test]
fn the_undamaged_resources_are_read() {
    assert!(Resources::parse([("any.yaml", VALID)]).is_ok());
}
