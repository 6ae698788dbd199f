//! Which of the pod's traffic is captured, as flags of `ringmail-init`.
//!
//! Istio's annotations mean here what they mean to Istio: ports that are included inbound by name are captured even if
//! they are excluded as well, and ports that are included outbound are added to the included ranges.

use std::collections::BTreeSet;

use super::values::Chosen;

/// What the annotations say; nothing said is everything captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capture {
    pub(super) include_inbound_ports: Option<Chosen<BTreeSet<u16>>>,
    pub(super) exclude_inbound_ports: BTreeSet<u16>,
    /// Linkerd's, which are left alone in any case.
    pub(super) skip_inbound_ports: BTreeSet<u16>,
    pub(super) skip_sources: Vec<String>,
    pub(super) include_outbound_ports: Chosen<BTreeSet<u16>>,
    pub(super) exclude_outbound_ports: BTreeSet<u16>,
    pub(super) include_outbound_ranges: Option<Chosen<Vec<String>>>,
    pub(super) exclude_outbound_ranges: Vec<String>,
    pub(super) exclude_interfaces: BTreeSet<String>,
}

impl Default for Chosen<BTreeSet<u16>> {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Capture {
    /// The flags that differ from what `ringmail-init` does without any.
    pub(super) fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        let mut flag = |name: &str, value: String| flags.push(format!("--{name}={value}"));
        let mut excluded = self.skip_inbound_ports.clone();
        match &self.include_inbound_ports {
            Some(Chosen::Only(ports)) => flag("inbound-include-ports", joined(ports)),
            Some(Chosen::All) | None => excluded.extend(&self.exclude_inbound_ports),
        }
        if !excluded.is_empty() {
            flag("inbound-exclude-ports", joined(&excluded));
        }
        if !self.skip_sources.is_empty() {
            flag("inbound-exclude-cidrs", self.skip_sources.join(","));
        }
        if !self.exclude_outbound_ports.is_empty() {
            flag("outbound-exclude-ports", joined(&self.exclude_outbound_ports));
        }
        // Added ports mean nothing where all ranges are captured.
        if let Some(Chosen::Only(ranges)) = &self.include_outbound_ranges {
            match &self.include_outbound_ports {
                Chosen::All => {}
                Chosen::Only(ports) => {
                    flag("outbound-include-cidrs", ranges.join(","));
                    if !ports.is_empty() {
                        flag("outbound-add-ports", joined(ports));
                    }
                }
            }
        }
        if !self.exclude_outbound_ranges.is_empty() {
            flag("outbound-exclude-cidrs", self.exclude_outbound_ranges.join(","));
        }
        if !self.exclude_interfaces.is_empty() {
            flag("exclude-interfaces", joined(&self.exclude_interfaces));
        }
        flags
    }
}

fn joined<T: ToString>(values: &BTreeSet<T>) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_annotations_keep_istios_meaning() {
        let ports = |ports: &[u16]| Chosen::Only(ports.iter().copied().collect::<BTreeSet<u16>>());
        let cases: [(Capture, &[&str]); 6] = [
            (Capture::default(), &[]),
            (
                Capture {
                    include_inbound_ports: Some(ports(&[80, 443])),
                    exclude_inbound_ports: BTreeSet::from([443]),
                    ..Capture::default()
                },
                &["--inbound-include-ports=80,443"],
            ),
            (
                Capture { exclude_inbound_ports: BTreeSet::from([443]), ..Capture::default() },
                &["--inbound-exclude-ports=443"],
            ),
            (Capture { include_outbound_ports: ports(&[9000]), ..Capture::default() }, &[]),
            (
                Capture {
                    include_outbound_ports: ports(&[9000]),
                    include_outbound_ranges: Some(Chosen::Only(Vec::new())),
                    ..Capture::default()
                },
                &["--outbound-include-cidrs=", "--outbound-add-ports=9000"],
            ),
            (
                Capture {
                    include_inbound_ports: Some(ports(&[80])),
                    skip_inbound_ports: BTreeSet::from([80]),
                    ..Capture::default()
                },
                &["--inbound-include-ports=80", "--inbound-exclude-ports=80"],
            ),
        ];
        for (capture, flags) in cases {
            assert_eq!(capture.flags(), flags, "{capture:?}");
        }
    }
}
