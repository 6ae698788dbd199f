//! Which of a pod's connections its sidecar takes, from the arguments of its `ringmail-init`.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};

use ringmail_init::config::{Parsed, Settings, parse};

/// What is captured, and the arguments that say so.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    settings: Box<Settings>,
    arguments: Vec<String>,
}

impl Capture {
    /// Nothing for arguments that `ringmail-init` itself would refuse: such a pod does not start.
    pub(crate) fn read(arguments: &[String]) -> Option<Self> {
        let program = [OsString::from("ringmail-init")];
        let all = program.into_iter().chain(arguments.iter().map(OsString::from));
        match parse(all, []) {
            Ok(Parsed::Settings(settings)) => Some(Self { settings, arguments: arguments.to_vec() }),
            Ok(Parsed::Help(_)) | Err(_) => None,
        }
    }

    /// Whether a connection from `source` to the pod's `port` goes through the sidecar.
    pub(crate) fn takes_inbound(&self, source: Option<IpAddr>, port: u16) -> bool {
        let settings = &self.settings;
        settings.inbound_include_ports.contains(port)
            && !settings.inbound_untouched_ports().contains(&port)
            && !source.is_some_and(|source| {
                settings.inbound_exclude_cidrs.iter().any(|range| range.contains(&source))
            })
    }

    /// Whether a connection of the pod's applications goes through the sidecar.
    pub(crate) fn takes_outbound(&self, to: SocketAddr) -> bool {
        let settings = &self.settings;
        let is_excluded = settings.outbound_exclude_ports.contains(&to.port())
            || settings.outbound_exclude_cidrs.iter().any(|range| range.contains(&to.ip()));
        let is_included = settings.outbound_include_ports.contains(to.port())
            && settings.outbound_include_cidrs.contains(to.ip());
        !is_excluded && (is_included || settings.outbound_add_ports.contains(&to.port()))
    }

    /// The flags that leave something out, as the manifest has them; none where all is captured.
    pub(crate) fn exclusions(&self) -> Vec<String> {
        [Direction::In, Direction::Out].into_iter().flat_map(|way| self.exclusions_of(way)).collect()
    }

    /// Those of connections in one direction.
    pub(crate) fn exclusions_of(&self, way: Direction) -> Vec<String> {
        let is_of = |argument: &&String| match way {
            Direction::In => argument.starts_with("--inbound-in") || argument.starts_with("--inbound-ex"),
            Direction::Out => ["--outbound-in", "--outbound-ex", "--outbound-add-", "--exclude-"]
                .iter()
                .any(|prefix| argument.starts_with(prefix)),
        };
        self.arguments.iter().filter(is_of).cloned().collect()
    }
}

/// The direction of a connection, seen from the pod.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    In,
    /// Also what leaves out connections in both directions.
    Out,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(arguments: &[&str]) -> Capture {
        Capture::read(&arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn without_arguments_all_but_the_sidecars_own_ports_is_captured() {
        let all = capture(&[]);
        assert!(all.takes_inbound(None, 47500) && all.takes_outbound("192.0.2.1:80".parse().unwrap()));
        for own in [4191, 15020, 15021, 15006] {
            assert!(!all.takes_inbound(None, own), "{own}");
        }
        assert!(all.exclusions().is_empty());
    }

    #[test]
    fn what_is_excluded_by_port_range_or_source_is_not_captured() {
        let some = capture(&[
            "--inbound-exclude-ports=8080",
            "--inbound-exclude-cidrs=10.1.0.0/16",
            "--outbound-include-cidrs=10.0.0.0/8",
            "--outbound-exclude-ports=3306",
            "--outbound-add-ports=9000",
            "--skip-verify",
        ]);
        assert!(!some.takes_inbound(None, 8080) && some.takes_inbound(None, 80));
        assert!(!some.takes_inbound(Some("10.1.2.3".parse().unwrap()), 80));
        for (to, expected) in [
            ("10.0.0.1:80", true),
            ("10.0.0.1:3306", false),
            ("192.0.2.1:80", false),
            ("192.0.2.1:9000", true),
        ] {
            assert_eq!(some.takes_outbound(to.parse().unwrap()), expected, "{to}");
        }
        assert_eq!(some.exclusions().len(), 5);
        assert_eq!(some.exclusions_of(Direction::In).len(), 2);
    }

    #[test]
    fn arguments_that_cannot_be_read_are_no_capture() {
        assert!(Capture::read(&["--inbound-exclude-ports=many".to_owned()]).is_none());
    }
}
