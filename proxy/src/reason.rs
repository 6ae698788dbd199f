//! Why a connection ended, as one closed list.
//!
//! The same word is the `reason` field of the access log, the `reason` label of the metrics and the
//! value on the admin's `/connections`, so an operator who greps for one finds it in all three. There
//! is no catch-all: a new way to end must be named here, documented, and then handled everywhere.

mod fault;

use ringmail_identity::PeerReason;

pub use fault::FaultClass;

/// Why a connection ended or was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The task ended without giving a reason: a bug, caught and counted.
    Aborted,
    /// The own application's leg failed: reset, broken pipe, timed out.
    ApplicationReset,
    /// A policy change denied a connection that was established.
    AuthorizationChanged,
    /// Sent data stayed unacknowledged between the sidecars for the black-hole deadline.
    BlackHoled,
    /// The peer's certificate was refused, and this is why.
    Certificate(PeerReason),
    /// Both directions ended in order.
    Complete,
    /// The dial failed for another reason than those with a name of their own.
    DialFailed,
    /// Policy on the far side does not admit this side.
    DeniedByPeer,
    /// A DestinationRule asks for what is not supported, so nothing was sent.
    DestinationRuleUnsupported,
    /// The destination refused the dial.
    DialRefused,
    /// The destination did not answer the dial within the connect deadline.
    DialTimeout,
    /// The destination's network said that it cannot be reached.
    DialUnreachable,
    /// The drain deadline passed with the connection still open.
    Drained,
    /// The application was cut off for too long and has not restarted since: nobody may reach it.
    Fenced,
    /// The original destination is not an address of this pod: this sidecar is no relay.
    ForeignDestination,
    /// One direction ended and the other one stayed silent for the half-close deadline.
    HalfCloseTimeout,
    /// The handshake failed by a fault of the TLS protocol that has no name of its own here.
    HandshakeFailed,
    /// The peer sent an alert during the handshake: it refuses this side.
    HandshakeRefusedByPeer,
    /// The peer left before the handshake was complete.
    HandshakeEof,
    /// The handshake was not complete within its deadline.
    HandshakeTimeout,
    /// The destination's certificate is valid but names another identity than discovery said.
    IdentityMismatch,
    /// The source has as many connections as one source may have.
    LimitConnectionsPerSource,
    /// The mode of the port changed and no longer admits this plaintext connection.
    ModeChanged,
    /// The peer presented no certificate.
    NoClientCertificate,
    /// No certificate is held yet: the connection cannot be secured.
    NoCredentials,
    /// The kernel knows no original destination: the connection was not captured.
    NoOriginalDestination,
    /// The first complete set of policies has not arrived yet.
    NoPolicy,
    /// The destination is outside the mesh, and the settings refuse that.
    OutsideRefused,
    /// The original destination is one of the proxy's own ports: dialling it would loop.
    OwnAddress,
    /// The far sidecar reported that its application failed.
    PeerFailed,
    /// The far sidecar reported that its application refused the connection: nobody listens there.
    PeerRefused,
    /// Plaintext arrived where mutual TLS is required.
    PlaintextRefused,
    /// Policy denied the connection before the application was dialled.
    PolicyDenied,
    /// The remote end of a leg without TLS failed: reset, broken pipe, timed out.
    RemoteReset,
    /// The root that vouched for the peer left the trust bundle.
    RootRemoved,
    /// The stream between the sidecars was cut without an alert: the far sidecar died.
    StreamCut,
    /// The established TLS stream carried something that is not a valid record.
    TlsFailed,
    /// The peer offered no TLS version that is accepted (1.3 only).
    TlsVersionRefused,
    /// The address is inside the cluster's ranges but discovery did not know it in time.
    UnknownDestination,
}

/// The side a reason is about, for people who look for whom to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The application of this pod.
    Application,
    /// This proxy, its settings or its policies.
    Local,
    /// The other end: another sidecar or a host outside the mesh.
    Peer,
}

impl Side {
    /// The word in the access log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Local => "local",
            Self::Peer => "peer",
        }
    }
}

impl Reason {
    /// Every reason without its own payload, in alphabetical order; certificate reasons come on top
    /// of these from [`PeerReason::ALL`].
    pub const PLAIN: &'static [Self] = &[
        Self::Aborted,
        Self::ApplicationReset,
        Self::AuthorizationChanged,
        Self::BlackHoled,
        Self::Complete,
        Self::DeniedByPeer,
        Self::DestinationRuleUnsupported,
        Self::DialFailed,
        Self::DialRefused,
        Self::DialTimeout,
        Self::DialUnreachable,
        Self::Drained,
        Self::Fenced,
        Self::ForeignDestination,
        Self::HalfCloseTimeout,
        Self::HandshakeEof,
        Self::HandshakeFailed,
        Self::HandshakeRefusedByPeer,
        Self::HandshakeTimeout,
        Self::IdentityMismatch,
        Self::LimitConnectionsPerSource,
        Self::ModeChanged,
        Self::NoClientCertificate,
        Self::NoCredentials,
        Self::NoOriginalDestination,
        Self::NoPolicy,
        Self::OutsideRefused,
        Self::OwnAddress,
        Self::PeerFailed,
        Self::PeerRefused,
        Self::PlaintextRefused,
        Self::PolicyDenied,
        Self::RemoteReset,
        Self::RootRemoved,
        Self::StreamCut,
        Self::TlsFailed,
        Self::TlsVersionRefused,
        Self::UnknownDestination,
    ];

    /// The word in the access log and in metrics.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// What the reason means, for the reference page.
    pub fn doc(self) -> &'static str {
        self.row().1
    }

    /// Whom the reason is about.
    pub fn side(self) -> Side {
        self.row().2
    }

    /// The `response_flags` value of Istio's metrics.
    pub fn response_flags(self) -> &'static str {
        self.row().3
    }

    #[rustfmt::skip]
    fn row(self) -> (&'static str, &'static str, Side, &'static str) {
        use Side::{Application, Local, Peer};
        match self {
            Self::Aborted => ("aborted", "the task ended without giving a reason (a bug: report it)", Local, "UC"),
            Self::ApplicationReset => ("application_reset", "this pod's application reset the connection or its leg failed", Application, "UC"),
            Self::AuthorizationChanged => ("authorization_changed", "a policy change denied the established connection", Local, "DENY"),
            Self::BlackHoled => ("black_holed", "sent data stayed unacknowledged for the black-hole deadline", Peer, "UC"),
            Self::Certificate(reason) => (reason.as_str(), reason.doc(), Peer, "TLS_FAILURE"),
            Self::Complete => ("complete", "both directions ended in order", Application, "-"),
            Self::DeniedByPeer => ("denied_by_peer", "policy on the far side does not admit this workload", Peer, "DENY"),
            Self::DestinationRuleUnsupported => ("destination_rule_unsupported", "a DestinationRule asks for a TLS mode that is not supported; nothing was sent", Local, "NR"),
            Self::DialFailed => ("dial_failed", "the dial failed; the error says how", Peer, "CONNECT"),
            Self::DialRefused => ("dial_refused", "the destination refused the dial: nothing listens there", Peer, "CONNECT"),
            Self::DialTimeout => ("dial_timeout", "the destination did not answer within the connect deadline", Peer, "CONNECT"),
            Self::DialUnreachable => ("dial_unreachable", "the network cannot reach the destination", Peer, "CONNECT"),
            Self::Drained => ("drained", "still open at the drain deadline", Local, "UC"),
            Self::Fenced => ("fenced", "the application was cut off for too long and has not restarted since (docs/fence.md)", Local, "UH"),
            Self::ForeignDestination => ("foreign_destination", "the original destination is not an address of this pod: a sidecar is no relay", Peer, "NR"),
            Self::HalfCloseTimeout => ("half_close_timeout", "half closed and silent for the half-close deadline", Application, "UC"),
            Self::HandshakeEof => ("handshake_eof", "the peer left before the handshake was complete", Peer, "TLS_FAILURE"),
            Self::HandshakeFailed => ("handshake_failed", "a fault of the TLS protocol during the handshake; the error says which", Peer, "TLS_FAILURE"),
            Self::HandshakeRefusedByPeer => ("handshake_refused_by_peer", "the peer refused this side with an alert during the handshake", Peer, "TLS_FAILURE"),
            Self::HandshakeTimeout => ("handshake_timeout", "the handshake was not complete within its deadline", Peer, "TLS_FAILURE"),
            Self::IdentityMismatch => ("identity_mismatch", "the peer's identity is valid but not the one discovery named", Peer, "IDENTITY_ERROR"),
            Self::LimitConnectionsPerSource => ("limit_connections_per_source", "the source holds as many connections as one source may", Peer, "UO"),
            Self::ModeChanged => ("mode_changed", "the port no longer admits this plaintext connection", Local, "DENY"),
            Self::NoClientCertificate => ("no_client_certificate", "the peer presented no certificate", Peer, "TLS_FAILURE"),
            Self::NoCredentials => ("no_credentials", "this proxy holds no certificate yet", Local, "IDENTITY_ERROR"),
            Self::NoOriginalDestination => ("no_original_destination", "the connection was not captured: somebody dialled the proxy's port directly", Peer, "NR"),
            Self::NoPolicy => ("no_policy", "the first complete set of policies has not arrived yet", Local, "DENY"),
            Self::OutsideRefused => ("outside_refused", "the destination is outside the mesh and the settings refuse that", Local, "NR"),
            Self::OwnAddress => ("own_address", "the destination is the proxy's own port: dialling it would loop", Peer, "NR"),
            Self::PeerFailed => ("peer_failed", "the far sidecar reported that its application failed", Peer, "UC"),
            Self::PeerRefused => ("peer_refused", "the far sidecar reported that its application refused the connection: nothing listens there", Peer, "CONNECT"),
            Self::PlaintextRefused => ("plaintext_refused", "plaintext where mutual TLS is required", Peer, "DENY"),
            Self::PolicyDenied => ("policy_denied", "policy denied the connection; the application never saw it", Local, "DENY"),
            Self::RemoteReset => ("remote_reset", "the remote end of a leg without TLS reset the connection", Peer, "UC"),
            Self::RootRemoved => ("root_removed", "the root that vouched for the peer left the trust bundle", Local, "DENY"),
            Self::StreamCut => ("stream_cut", "the stream between the sidecars was cut without an alert: the far sidecar died", Peer, "UC"),
            Self::TlsFailed => ("tls_failed", "the established stream carried an invalid record", Peer, "TLS_FAILURE"),
            Self::TlsVersionRefused => ("tls_version_refused", "the peer offers no TLS 1.3", Peer, "TLS_FAILURE"),
            Self::UnknownDestination => ("unknown_destination", "an address inside the cluster's ranges that discovery does not know", Local, "NR"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own_and_a_text() {
        let certificate = PeerReason::ALL.iter().map(|reason| Reason::Certificate(*reason));
        let all: Vec<Reason> = Reason::PLAIN.iter().copied().chain(certificate).collect();
        let words: BTreeSet<&str> = all.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), all.len(), "two reasons share a word");
        assert!(all.iter().all(|reason| !reason.doc().is_empty() && !reason.advice().is_empty()));
        assert!(words.iter().all(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
    }
}
