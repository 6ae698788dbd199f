//! Which ends are faults, of which class, and what to do about each.
//!
//! Whoever is woken up has the line of one connection in front of them: it says what to look at next. The classes are what
//! alerts are about ([docs/alerts.md](../../../docs/alerts.md)): few, and each a series from the start, so that the first fault of a class is seen
//! as a change.

use ringmail_identity::PeerReason;

use super::Reason;

/// What a fault is about, as the label `class` of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultClass {
    /// The own application failed.
    Application,
    /// A policy, or a change of policy or roots, does not admit the connection.
    Authorization,
    /// A bug of the proxy.
    Bug,
    /// The connection did not come by redirection, or would loop.
    Capture,
    /// The destination could not be dialled.
    Dial,
    /// Open at the end of a drain.
    Drain,
    /// The handshake failed, or the peer's certificate was refused.
    Handshake,
    /// A limit was reached.
    Limit,
    /// The proxy cannot serve: no certificate, no policies, or an application behind the fence.
    NotReady,
    /// Plaintext where mutual TLS is required.
    Plaintext,
    /// Discovery or the settings name no way to the destination.
    Route,
    /// An established stream failed.
    Stream,
}

impl FaultClass {
    /// Every class, in alphabetical order.
    pub const ALL: [Self; 12] = [
        Self::Application,
        Self::Authorization,
        Self::Bug,
        Self::Capture,
        Self::Dial,
        Self::Drain,
        Self::Handshake,
        Self::Limit,
        Self::NotReady,
        Self::Plaintext,
        Self::Route,
        Self::Stream,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Authorization => "authorization",
            Self::Bug => "bug",
            Self::Capture => "capture",
            Self::Dial => "dial",
            Self::Drain => "drain",
            Self::Handshake => "handshake",
            Self::Limit => "limit",
            Self::NotReady => "not_ready",
            Self::Plaintext => "plaintext",
            Self::Route => "route",
            Self::Stream => "stream",
        }
    }
}

impl Reason {
    /// What the fault is about; nothing for an end in order.
    pub fn fault_class(self) -> Option<FaultClass> {
        Some(match self {
            Self::Complete => return None,
            Self::Aborted => FaultClass::Bug,
            Self::ApplicationReset | Self::HalfCloseTimeout => FaultClass::Application,
            Self::AuthorizationChanged
            | Self::DeniedByPeer
            | Self::ModeChanged
            | Self::PolicyDenied
            | Self::RootRemoved => FaultClass::Authorization,
            Self::BlackHoled | Self::PeerFailed | Self::RemoteReset | Self::StreamCut | Self::TlsFailed => {
                FaultClass::Stream
            }
            Self::Certificate(_)
            | Self::HandshakeEof
            | Self::HandshakeFailed
            | Self::HandshakeRefusedByPeer
            | Self::HandshakeTimeout
            | Self::IdentityMismatch
            | Self::NoClientCertificate
            | Self::TlsVersionRefused => FaultClass::Handshake,
            Self::DestinationRuleUnsupported | Self::OutsideRefused | Self::UnknownDestination => {
                FaultClass::Route
            }
            Self::DialFailed
            | Self::DialRefused
            | Self::DialTimeout
            | Self::DialUnreachable
            | Self::PeerRefused => FaultClass::Dial,
            Self::Drained => FaultClass::Drain,
            Self::Fenced | Self::NoCredentials | Self::NoPolicy => FaultClass::NotReady,
            Self::ForeignDestination | Self::NoOriginalDestination | Self::OwnAddress => FaultClass::Capture,
            Self::LimitConnectionsPerSource => FaultClass::Limit,
            Self::PlaintextRefused => FaultClass::Plaintext,
        })
    }

    /// Whether it is anything but an end in order.
    pub fn is_fault(self) -> bool {
        self.fault_class().is_some()
    }

    /// What to do about it.
    #[rustfmt::skip]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Aborted => "report it with the log of this proxy: it is a bug",
            Self::ApplicationReset => "look at this pod's application: it reset the connection or ended",
            Self::AuthorizationChanged => "nothing, if the policy in decided_by is meant so; else mend it",
            Self::BlackHoled => "look at the node and the network of the peer: nothing that was sent has arrived",
            Self::Certificate(reason) => of_certificate(reason),
            Self::Complete => "nothing: it ended in order",
            Self::DeniedByPeer => "admit this workload's identity in the AuthorizationPolicy of the destination; its own log names the policy",
            Self::DestinationRuleUnsupported => "give the DestinationRule in decided_by the mode ISTIO_MUTUAL or DISABLE",
            Self::DialFailed => "look at the error, and at the destination's node and network",
            Self::DialRefused => "look whether the destination runs and listens on that port",
            Self::DialTimeout => "look whether the destination's node is up and whether a NetworkPolicy or firewall drops the way there",
            Self::DialUnreachable => "look at the routes and the network of this node: it knows no way to the destination",
            Self::Drained => "nothing, if the pod was to end; give drain_timeout and the pod's grace more time if its connections need it",
            Self::Fenced => "restart the application of this pod (docs/fence.md): others went on without it",
            Self::ForeignDestination => "look who sends there: either the rules of capture were changed by hand, or somebody takes this pod for a relay",
            Self::HalfCloseTimeout => "look why the application never ends the other direction, or raise half_close_timeout",
            Self::HandshakeEof => "look at the log of the peer's sidecar at this time; without a sidecar, something else is there that ended the connection",
            Self::HandshakeFailed => "look at the error and at the log of the peer's sidecar at this time",
            Self::HandshakeRefusedByPeer => "look at the log of the peer's sidecar: it has the reason why it refuses this certificate",
            Self::HandshakeTimeout => "look whether the peer's sidecar has a core to itself and the network loses packets; from many sources at once it is an attack",
            Self::IdentityMismatch => "look which pod has the address now; if it stays, discovery names the wrong service account",
            Self::LimitConnectionsPerSource => "look at the source: raise max_connections_per_source if it needs as many, end it if it does not",
            Self::ModeChanged => "give the source a sidecar, or the port the mode PERMISSIVE",
            Self::NoClientCertificate => "give the client a sidecar, or the port the mode PERMISSIVE: it speaks TLS of its own",
            Self::NoCredentials => "look at /certs on this pod's port 15000 and at the CA: no certificate was issued yet",
            Self::NoOriginalDestination => "dial the application's port, not the proxy's; if nobody did, ringmail-init has not run or connection tracking is full",
            Self::NoPolicy => "look at /config_dump on this pod's port 15000 and at ringmail-control: no complete set of policies has come",
            Self::OutsideRefused => "add a WorkloadEntry for the destination, or set outbound_outside to allow",
            Self::OwnAddress => "dial the application's port, not the proxy's",
            Self::PeerFailed => "look at the application behind the peer: it reset the connection or ended",
            Self::PeerRefused => "look whether the application behind the peer runs and listens on that port",
            Self::PlaintextRefused => "give the source a sidecar, or the port the mode PERMISSIVE until it has one",
            Self::PolicyDenied => "admit the source's identity in the AuthorizationPolicy in decided_by, if it is meant to come in",
            Self::RemoteReset => "look at the remote end: it reset the connection or ended",
            Self::RootRemoved => "nothing, if the root was to go; restart the peer's sidecar if it should have a certificate of the new root",
            Self::StreamCut => "look at the peer's pod and node: its sidecar died, or somebody cut the connection",
            Self::TlsFailed => "look for whoever changes bytes between the pods; report it if nobody does",
            Self::TlsVersionRefused => "update the client, or give the port the mode PERMISSIVE: it speaks an old TLS of its own",
            Self::UnknownDestination => "look whether the pod or Service still exists; if it does, look at ringmail-control and mesh_ranges",
        }
    }
}

/// Whose certificate it is stands in the line; what a certificate may be is the CA's or the mounted files' doing.
#[rustfmt::skip]
fn of_certificate(reason: PeerReason) -> &'static str {
    match reason {
        PeerReason::BadSignature | PeerReason::RootOutsideValidity | PeerReason::UnknownIssuer => "compare the roots of both sidecars (ringmail certs): one has an old bundle, or the peer is of another mesh",
        PeerReason::Expired | PeerReason::NotYetValid => "look at the peer's renewal (ringmail certs) and at the clocks of both nodes",
        PeerReason::ForeignTrustDomain => "look at trust_domain of both sidecars and of the CA",
        PeerReason::NoCertificate => "give the peer a sidecar, or the port the mode PERMISSIVE: it speaks TLS of its own",
        PeerReason::CaCertificate
        | PeerReason::CertificateTooLarge
        | PeerReason::ChainTooLong
        | PeerReason::ExtendedKeyUsageMissing
        | PeerReason::IssuerNotAuthority
        | PeerReason::KeyAlgorithm
        | PeerReason::KeyUsageMissing
        | PeerReason::KeyUsageNotCritical
        | PeerReason::KeyUsageSigns
        | PeerReason::Malformed
        | PeerReason::NameConstraint
        | PeerReason::NoDigitalSignature
        | PeerReason::NoUriSan
        | PeerReason::OtherSan
        | PeerReason::PathRefused
        | PeerReason::PathTooLong
        | PeerReason::SeveralUriSans
        | PeerReason::SignatureAlgorithm
        | PeerReason::UnsupportedCriticalExtension
        | PeerReason::WrongExtendedKeyUsage => "have the peer's issuer make certificates that are X.509-SVIDs; ringmail-ca's are, so ask who issued this one",
        PeerReason::IdControlByte
        | PeerReason::IdDotSegment
        | PeerReason::IdEmptySegment
        | PeerReason::IdEmptyTrustDomain
        | PeerReason::IdForbiddenByte
        | PeerReason::IdFragment
        | PeerReason::IdNoPath
        | PeerReason::IdNotAscii
        | PeerReason::IdNotSpiffe
        | PeerReason::IdPercentEncoding
        | PeerReason::IdPort
        | PeerReason::IdQuery
        | PeerReason::IdTooLong
        | PeerReason::IdTrailingSlash
        | PeerReason::IdTrustDomainTooLong
        | PeerReason::IdUpperCase
        | PeerReason::IdUserInfo
        | PeerReason::IdWildcard => "have the peer's issuer name it by a SPIFFE ID as the standard writes it; ringmail-ca does, so ask who issued this certificate",
    }
}
