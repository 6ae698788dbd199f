//! Which of the pod's traffic is captured, as flags of `ringmail-init`: written into a pod, and read back from one.
//!
//! Istio's annotations mean here what they mean to Istio: ports that are included inbound by name are captured even if
//! they are excluded as well, and ports that are included outbound are added to the included ranges.

use std::collections::BTreeSet;

use ringmail_policy::LeftAlone;

use super::values::{self, Chosen, MAX_PORTS};

const INBOUND_INCLUDE: &str = "inbound-include-ports";
const INBOUND_EXCLUDE: &str = "inbound-exclude-ports";

/// How many ports of one flag are read: as many as both meshes' annotations come to together.
const MAX_READ: usize = 2 * MAX_PORTS;

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
    /// The flags that differ from what `ringmail-init` does without any. [`left_alone`] reads them.
    pub(super) fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        let mut flag = |name: &str, value: String| flags.push(format!("--{name}={value}"));
        let mut excluded = self.skip_inbound_ports.clone();
        match &self.include_inbound_ports {
            Some(Chosen::Only(ports)) => flag(INBOUND_INCLUDE, joined(ports)),
            Some(Chosen::All) | None => excluded.extend(&self.exclude_inbound_ports),
        }
        if !excluded.is_empty() {
            flag(INBOUND_EXCLUDE, joined(&excluded));
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

/// The ports that a `ringmail-init` with these flags leaves alone inbound, beside the sidecar's own; what it is told
/// of sources and interfaces does not count. None where a flag cannot be read: whom others believe to capture a port is
/// sent nothing in plaintext there.
pub fn left_alone(flags: &[String]) -> LeftAlone {
    let value = |name: &str| {
        let of = |flag: &'_ String| {
            Some(flag.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=')?.trim().to_owned())
        };
        // The last one counts, as it does there.
        flags.iter().rev().find_map(of)
    };
    let ports = |text: &str| values::any_ports(text).filter(|ports| ports.len() <= MAX_READ);
    let included = value(INBOUND_INCLUDE).filter(|text| text != "*").map(|text| ports(&text));
    let excluded = ports(&value(INBOUND_EXCLUDE).unwrap_or_default());
    match (included, excluded) {
        (None, Some(excluded)) => LeftAlone::by_capture(None, &excluded),
        (Some(Some(included)), Some(excluded)) => LeftAlone::by_capture(Some(&included), &excluded),
        (Some(None), _) | (_, None) => LeftAlone::default(),
    }
}

fn joined<T: ToString>(values: &BTreeSet<T>) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use ringmail_init::config::{Parsed, Settings};

    use super::*;

    fn flags(flags: &[&str]) -> Vec<String> {
        flags.iter().map(|flag| (*flag).to_owned()).collect()
    }

    fn ports(ports: &[u16]) -> BTreeSet<u16> {
        ports.iter().copied().collect()
    }

    /// The same flags, as the container reads them.
    fn init(flags: Vec<String>) -> Box<Settings> {
        let arguments = ["ringmail-init".to_owned()].into_iter().chain(flags).map(Into::into);
        match ringmail_init::config::parse(arguments, []) {
            Ok(Parsed::Settings(settings)) => settings,
            other @ (Ok(Parsed::Help(_)) | Err(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read_back_whole() {
        let all = |first: u16| (first..).step_by(2).take(MAX_PORTS).collect::<BTreeSet<u16>>();
        for (included, excluded, skipped) in [
            (None, ports(&[]), ports(&[])),
            (None, ports(&[80]), ports(&[443])),
            (None, all(1), all(4001)),
            (Some(ports(&[])), ports(&[]), ports(&[])),
            (Some(ports(&[47100, 47500])), ports(&[80]), ports(&[47500])),
            (Some(all(1)), ports(&[]), all(1)),
        ] {
            let capture = Capture {
                include_inbound_ports: included.clone().map(Chosen::Only),
                exclude_inbound_ports: excluded.clone(),
                skip_inbound_ports: skipped.clone(),
                skip_sources: vec!["10.0.0.0/8".to_owned()],
                exclude_outbound_ports: ports(&[9]),
                ..Capture::default()
            };
            // With a list to include, what Istio's exclude means nothing.
            let left: BTreeSet<u16> = match &included {
                Some(_) => skipped,
                None => skipped.union(&excluded).copied().collect(),
            };
            let read = left_alone(&capture.flags());
            assert_eq!(read, LeftAlone::by_capture(included.as_ref(), &left), "{capture:?}");
            let init = init(capture.flags());
            for port in 1..=u16::MAX {
                let takes =
                    init.inbound_include_ports.contains(port) && !init.inbound_exclude_ports.contains(&port);
                assert_ne!(read.contains(port), takes, "{port} {capture:?}");
            }
        }
    }

    #[test]
    fn a_flag_of_any_other_kind_leaves_nothing_alone() {
        let too_many: Vec<_> = (1..=MAX_READ + 1).map(|port| port.to_string()).collect();
        let too_many = format!("--inbound-exclude-ports={}", too_many.join(","));
        for other in [
            &[][..],
            &["--inbound-exclude-ports"],
            &["--inbound-exclude-ports", "80"],
            &["--inbound-exclude-ports=80-90"],
            &["--inbound-exclude-ports=0"],
            &["--inbound-exclude-ports=*"],
            &["--inbound-exclude-ports=80", "--inbound-include-ports=x"],
            &["--inbound-exclude-cidrs=10.0.0.0/8"],
            &["--outbound-exclude-ports=80"],
            &["inbound-exclude-ports=80"],
            &["--inbound-exclude-ports=80", "--inbound-exclude-ports="],
            &["--inbound-include-ports=*"],
            &[&too_many],
        ] {
            assert_eq!(left_alone(&flags(other)), LeftAlone::default(), "{other:?}");
        }
    }

    #[test]
    fn istios_annotations_keep_istios_meaning() {
        let ports = |list: &[u16]| Chosen::Only(ports(list));
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
