//! Who carries the bytes of a ring and its clients.

use std::path::PathBuf;

use clap::ValueEnum;

use super::Options;

/// A candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Wrapping {
    /// Nobody: Ignite as it is, in plaintext.
    Plain,
    /// Ignite's own TLS, in each JVM.
    IgniteTls,
    /// Two relays without TLS in each pod: the floor of what sidecars can cost.
    RelayCopy,
    /// A Ringmail sidecar in each pod.
    Ringmail,
    /// An Envoy sidecar in each pod.
    Envoy,
}

impl Wrapping {
    /// Every candidate.
    pub const ALL: [Self; 5] = [Self::Plain, Self::IgniteTls, Self::RelayCopy, Self::Ringmail, Self::Envoy];

    /// Its name in the results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::IgniteTls => "ignite-tls",
            Self::RelayCopy => "relay-copy",
            Self::Ringmail => "ringmail",
            Self::Envoy => "envoy",
        }
    }

    /// Whether what passes between the pods must be TLS and nothing else.
    pub(super) fn encrypts(self) -> bool {
        match self {
            Self::Plain | Self::RelayCopy => false,
            Self::IgniteTls | Self::Ringmail | Self::Envoy => true,
        }
    }

    /// Whether processes beside the application carry its bytes.
    pub(super) fn has_sidecars(self) -> bool {
        match self {
            Self::Plain | Self::IgniteTls => false,
            Self::RelayCopy | Self::Ringmail | Self::Envoy => true,
        }
    }

    /// The program that carries the bytes, if one does, it is none of this program's, and it is named.
    pub(super) fn program(self, options: &Options) -> Option<PathBuf> {
        match self {
            Self::Plain | Self::IgniteTls | Self::RelayCopy => None,
            Self::Ringmail => Some(options.binaries.join("ringmail-proxy")),
            Self::Envoy => options.envoy.clone(),
        }
    }

    /// Why it cannot be measured with these options, if it cannot.
    pub(super) fn missing(self, options: &Options) -> Option<String> {
        let needed = match self {
            Self::Plain | Self::IgniteTls => return None,
            Self::RelayCopy => Some(options.binaries.join("ringmail-init")),
            Self::Ringmail | Self::Envoy => self.program(options),
        };
        match needed {
            None => Some(format!("no {name}: name one with --{name}", name = self.as_str())),
            Some(program) if program.exists() => None,
            Some(program) => Some(format!("{} is not there", program.display())),
        }
    }
}
