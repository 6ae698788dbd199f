//! How a connection ends.

use std::io;

use rustls::Error;

macro_rules! ends {
    ($($(#[doc = $doc:literal])+ $variant:ident = $label:literal,)*) => {
        /// How a connection ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ConnectionEnd { $($(#[doc = $doc])+ $variant,)* }

        impl ConnectionEnd {
            /// Every end, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What it means, for the reference page.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)* }
            }

            /// The label of the metric.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

ends! {
    /// The client closed it, or this process is ending.
    Closed = "closed",
    /// Too many connections in total.
    LimitTotal = "limit_total",
    /// Too many connections from one source.
    LimitSource = "limit_source",
    /// No complete handshake within the deadline.
    HandshakeTimeout = "handshake_timeout",
    /// The first bytes are not TLS.
    NotTls = "not_tls",
    /// A TLS client with no common version or parameters.
    TlsIncompatible = "tls_incompatible",
    /// The handshake failed or was cut otherwise.
    HandshakeFailed = "handshake_failed",
    /// No request in progress for the idle time.
    Idle = "idle",
    /// The client broke HTTP/2, or flooded it.
    Http = "http",
}

/// What a failed handshake was.
pub(super) fn of_handshake(error: &io::Error) -> ConnectionEnd {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(_)) => ConnectionEnd::NotTls,
        Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => ConnectionEnd::TlsIncompatible,
        Some(_) | None => ConnectionEnd::HandshakeFailed,
    }
}

/// What ended a session of HTTP.
pub(super) fn of_http(result: hyper::Result<()>) -> (ConnectionEnd, String) {
    let Err(error) = result else { return (ConnectionEnd::Closed, String::new()) };
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    (ConnectionEnd::Http, format!("{error}{cause}"))
}
