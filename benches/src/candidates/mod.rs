//! The candidates: what each is, what it needs, how its two proxies are started between the same two pods, and how it
//! is made sure, before anything is measured, that it does on the wire what its name says.

pub(crate) mod certificates;
mod choice;
pub mod envoy;
mod haproxy;
mod held;
pub mod linkerd;
mod place;
mod programs;
mod ringmail;
mod start;
mod ztunnel;

use anyhow::{Context, Result};

pub use choice::{Exchange, TlsChoice};
pub use held::Held;
pub use place::{AUTHORITY, CLIENT, Place, SERVER};
pub use programs::{Programs, open_folder};

/// What carries the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Candidate {
    /// Nothing between the load's two ends: no proxy, no captured connection.
    Plain,
    /// Two relays without TLS that copy.
    RelayCopy,
    /// Two relays without TLS that splice.
    RelaySplice,
    /// HAProxy without TLS.
    HaproxyPlain,
    /// HAProxy with mutual TLS, every handshake a full one.
    Haproxy,
    /// HAProxy with mutual TLS and its own defaults for key exchange and resumption.
    HaproxyDefault,
    /// Envoy as Istio sets it up, every handshake a full one.
    Envoy,
    /// Envoy as Istio sets it up, with its own defaults for key exchange and resumption.
    EnvoyDefault,
    /// Istio's ztunnel, one for each pod.
    Ztunnel,
    /// Linkerd's proxy, with a stand-in of its control plane.
    Linkerd,
    /// The Ringmail that is measured.
    Ringmail,
    /// Another build of Ringmail's proxy, to tell what a change has done.
    RingmailBaseline,
}

impl Candidate {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 12] = [
        Self::Plain,
        Self::RelayCopy,
        Self::RelaySplice,
        Self::HaproxyPlain,
        Self::Haproxy,
        Self::HaproxyDefault,
        Self::Envoy,
        Self::EnvoyDefault,
        Self::Ztunnel,
        Self::Linkerd,
        Self::Ringmail,
        Self::RingmailBaseline,
    ];

    /// What it is called, in arguments and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::RelayCopy => "relay-copy",
            Self::RelaySplice => "relay-splice",
            Self::HaproxyPlain => "haproxy-plain",
            Self::Haproxy => "haproxy",
            Self::HaproxyDefault => "haproxy-default",
            Self::Envoy => "envoy",
            Self::EnvoyDefault => "envoy-default",
            Self::Ztunnel => "ztunnel",
            Self::Linkerd => "linkerd2-proxy",
            Self::Ringmail => "ringmail",
            Self::RingmailBaseline => "ringmail-baseline",
        }
    }

    /// The candidate of this name; an error names all.
    pub fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|candidate| candidate.name() == name).with_context(|| {
            let all: Vec<_> = Self::ALL.iter().map(|candidate| candidate.name()).collect();
            format!("no candidate {name:?}: expected one of {}", all.join(", "))
        })
    }

    /// What must be seen between the two pods.
    pub fn wire(self) -> Wire {
        match self {
            Self::Plain | Self::RelayCopy | Self::RelaySplice | Self::HaproxyPlain => Wire::Plain,
            Self::Haproxy
            | Self::HaproxyDefault
            | Self::Envoy
            | Self::EnvoyDefault
            | Self::Ztunnel
            | Self::Linkerd
            | Self::Ringmail
            | Self::RingmailBaseline => Wire::Tls13,
        }
    }

    /// Whether it differs from another candidate in new connections alone, and so takes part in those alone.
    pub fn is_for_connections_alone(self) -> bool {
        matches!(self, Self::HaproxyDefault | Self::EnvoyDefault)
    }

    /// Whether it has proxies whose memory and system calls say something: the relay, with its two threads for each
    /// connection, is a floor for bytes alone.
    pub fn is_a_proxy(self) -> bool {
        !matches!(self, Self::Plain | Self::RelayCopy | Self::RelaySplice) && !self.is_for_connections_alone()
    }
}

/// What is seen between the two pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// The load's own bytes.
    Plain,
    /// TLS 1.3 from the first byte to the last.
    Tls13,
}

/// How a candidate is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Which.
    pub candidate: Candidate,
    /// The one key exchange it is to use; none leaves what it prefers by itself. Candidates that cannot be told, and do
    /// not use it, fail their check.
    pub exchange: Option<Exchange>,
    /// Worker threads of each proxy.
    pub workers: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_is_found_by_its_name_and_a_wrong_one_names_all() {
        for candidate in Candidate::ALL {
            assert_eq!(Candidate::named(candidate.name()).unwrap(), candidate);
        }
        let error = Candidate::named("nginx").unwrap_err().to_string();
        assert!(
            error.contains("nginx") && error.contains("relay-splice") && error.contains("ztunnel"),
            "{error}"
        );
    }
}
