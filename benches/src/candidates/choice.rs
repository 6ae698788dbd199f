//! What was agreed on in handshakes, seen on the wire: two rates of connections compare only where the arithmetic is
//! the same.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use ringmail_lab::pcap::{Conversation, ServerChoice, judge};

use super::Wire;

/// A key exchange of TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exchange {
    /// Curve25519 alone.
    X25519,
    /// Curve25519 and ML-KEM-768 together.
    X25519MlKem768,
}

impl Exchange {
    /// Both.
    pub const ALL: [Self; 2] = [Self::X25519, Self::X25519MlKem768];

    /// As the registry of TLS writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X25519 => "X25519",
            Self::X25519MlKem768 => "X25519MLKEM768",
        }
    }

    /// As the registry of TLS numbers it.
    pub fn number(self) -> u16 {
        match self {
            Self::X25519 => 0x001d,
            Self::X25519MlKem768 => 0x11ec,
        }
    }
}

/// What the two proxies of a candidate agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsChoice {
    /// In the handshake of the last connection.
    pub last: ServerChoice,
    /// Whether any connection resumed an earlier session.
    pub resumes: bool,
    /// How many handshakes were seen.
    pub handshakes: usize,
}

impl fmt::Display for TlsChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last.suite {
            0x1301 => f.write_str("TLS_AES_128_GCM_SHA256")?,
            0x1302 => f.write_str("TLS_AES_256_GCM_SHA384")?,
            0x1303 => f.write_str("TLS_CHACHA20_POLY1305_SHA256")?,
            other => write!(f, "suite {other:#06x}")?,
        }
        let known = Exchange::ALL.iter().find(|known| Some(known.number()) == self.last.group);
        match (known, self.last.group) {
            (Some(known), _) => write!(f, ", {}", known.name())?,
            (None, Some(0x0017)) => f.write_str(", P-256")?,
            (None, Some(other)) => write!(f, ", group {other:#06x}")?,
            (None, None) => f.write_str(", no key exchange")?,
        }
        f.write_str(if self.resumes { ", resumes sessions" } else { ", full handshakes" })
    }
}

/// Judges what passed between the pods; an error says what was expected and what was seen.
pub(super) fn check(conversations: &[Conversation], wire: Wire) -> Result<Option<TlsChoice>> {
    ensure!(!conversations.is_empty(), "nothing passed between the pods");
    match wire {
        Wire::Plain => {
            let tls = conversations.iter().find(|one| ServerChoice::read(&one.to_client.bytes).is_some());
            if let Some(tls) = tls {
                bail!("{tls} is TLS: expected plaintext");
            }
            Ok(None)
        }
        Wire::Tls13 => {
            let judgement = judge(conversations);
            if let Some(offender) = judgement.offenders.first() {
                bail!("expected TLS 1.3 between the pods: {offender}");
            }
            ensure!(judgement.is_tls13_only(), "no protected record passed between the pods");
            let choices: Vec<_> =
                conversations.iter().filter_map(|one| ServerChoice::read(&one.to_client.bytes)).collect();
            let last = *choices.last().context("no hello of a server was seen")?;
            let resumes = choices.iter().any(|choice| choice.resumed);
            Ok(Some(TlsChoice { last, resumes, handshakes: choices.len() }))
        }
    }
}

/// Whether connections are made with this key exchange and full handshakes.
pub(super) fn is_full(choice: &TlsChoice, exchange: Exchange) -> Result<()> {
    let (name, number) = (exchange.name(), exchange.number());
    ensure!(
        choice.last.group == Some(number) && !choice.resumes,
        "expected full handshakes by {name}: {choice}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use ringmail_lab::pcap::Stream;

    use super::*;

    #[test]
    fn a_choice_is_told_by_the_names_of_the_registry() {
        let last = ServerChoice { suite: 0x1301, group: Some(0x11ec), resumed: false };
        let mut choice = TlsChoice { last, resumes: false, handshakes: 3 };
        assert_eq!(choice.to_string(), "TLS_AES_128_GCM_SHA256, X25519MLKEM768, full handshakes");
        assert!(is_full(&choice, Exchange::X25519MlKem768).is_ok());
        let error = is_full(&choice, Exchange::X25519).unwrap_err().to_string();
        assert!(error.starts_with("expected full handshakes by X25519: TLS_AES"), "{error}");
        choice.resumes = true;
        assert!(is_full(&choice, Exchange::X25519MlKem768).is_err());
    }

    /// A connection on which both sides send these bytes.
    fn conversation(to_server: &[u8], to_client: &[u8]) -> Conversation {
        let stream = |bytes: &[u8]| Stream { bytes: bytes.to_vec(), mid_stream: false, incomplete: false };
        Conversation {
            client: ([10, 77, 0, 1], 40_000).into(),
            server: ([10, 77, 0, 2], 7201).into(),
            to_server: stream(to_server),
            to_client: stream(to_client),
            reset: false,
        }
    }

    /// A server hello that takes X25519, in one record.
    const SERVER_HELLO: [u8; 58] = [
        0x16, 3, 3, 0, 53, 2, 0, 0, 49, 3, 3, // record, message, version
        7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0,
        0x13, 0x01, 0, // session, suite, compression
        0, 9, 0, 51, 0, 5, 0, 29, 0, 1, 9, // key share
    ];

    #[test]
    fn plaintext_is_no_tls_and_tls_is_no_plaintext() {
        let plain = [conversation(&[0], &[0])];
        assert_eq!(check(&plain, Wire::Plain).unwrap(), None);
        let error = check(&plain, Wire::Tls13).unwrap_err().to_string();
        assert!(error.starts_with("expected TLS 1.3 between the pods: 10.77.0.1:40000"), "{error}");
        let tls = [conversation(&[0x16], &SERVER_HELLO)];
        let error = check(&tls, Wire::Plain).unwrap_err().to_string();
        assert!(error.ends_with("is TLS: expected plaintext"), "{error}");
    }

    #[test]
    fn silence_between_the_pods_is_no_proof() {
        assert!(check(&[], Wire::Tls13).is_err());
        assert!(check(&[], Wire::Plain).is_err());
    }
}
