//! Settings that are one word out of a few.

/// A word out of a closed list.
pub(super) trait Choice: Copy + 'static {
    /// Every choice, in the order of the documentation.
    const ALL: &'static [Self];

    /// The word.
    fn as_str(self) -> &'static str;

    /// The choice that `word` names.
    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|choice| choice.as_str() == word)
    }
}

/// How a closed connection is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object per line.
    Json,
    /// Nothing is written.
    Off,
    /// `key=value` pairs.
    Text,
}

/// Where policies and workloads come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoverySource {
    /// A server that speaks Istio's workload discovery, which is asked for what is dialled.
    Control,
    /// A directory of YAML files.
    Files,
}

/// Where the proxy's certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// A CA that speaks Istio's CSR protocol.
    Ca,
    /// Files that somebody else renews.
    Files,
}

/// A key exchange group of TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyExchange {
    /// NIST's curve.
    P256,
    /// The curve that most peers prefer.
    X25519,
    /// The same beside a lattice: recorded traffic stays closed to a later quantum computer.
    X25519MlKem768,
}

/// How the proxy's own log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// What happens to a connection whose destination is outside the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundOutside {
    /// It is passed through as it is, and counted with its reason.
    Passthrough,
    /// It is refused.
    Refuse,
}

/// Who makes and opens the records of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordLayer {
    /// The proxy's own record layer, over the keys of rustls's handshake.
    Own,
    /// rustls's buffered stream: the reference.
    Rustls,
}

impl Choice for AccessLogFormat {
    const ALL: &'static [Self] = &[Self::Text, Self::Json, Self::Off];

    fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Off => "off",
            Self::Text => "text",
        }
    }
}

impl Choice for DiscoverySource {
    const ALL: &'static [Self] = &[Self::Files, Self::Control];

    fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Files => "files",
        }
    }
}

impl Choice for IdentitySource {
    const ALL: &'static [Self] = &[Self::Ca, Self::Files];

    fn as_str(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Files => "files",
        }
    }
}

impl Choice for KeyExchange {
    const ALL: &'static [Self] = &[Self::X25519MlKem768, Self::X25519, Self::P256];

    fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::X25519 => "X25519",
            Self::X25519MlKem768 => "X25519MLKEM768",
        }
    }
}

impl Choice for LogFormat {
    const ALL: &'static [Self] = &[Self::Text, Self::Json];

    fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
        }
    }
}

impl Choice for OutboundOutside {
    const ALL: &'static [Self] = &[Self::Passthrough, Self::Refuse];

    fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Refuse => "refuse",
        }
    }
}

impl Choice for RecordLayer {
    const ALL: &'static [Self] = &[Self::Own, Self::Rustls];

    fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Rustls => "rustls",
        }
    }
}
