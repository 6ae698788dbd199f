//! Where the next keys come from when a key is updated: the last step of TLS 1.3's key schedule (RFC 8446
//! section 7.2).
//!
//! rustls would do it too, but only as long as all it knows of the handshake is kept, two certificates among it:
//! as much memory as everything else that an idle connection needs.

use std::cell::RefCell;

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Algorithm, CHACHA20_POLY1305, NONCE_LEN},
    hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk},
};
use rustls::{CipherSuite, KeyLog};
use zeroize::{Zeroize, Zeroizing};

use super::{
    content::RecordError,
    key::{Key, MAX_KEY_LEN},
};

/// The longest traffic secret: that of the suite with SHA-384.
const MAX_SECRET_LEN: usize = 48;

/// What rustls calls the secrets that the first keys of data are made from.
const CLIENT_SECRET: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_SECRET: &str = "SERVER_TRAFFIC_SECRET_0";

/// One direction's traffic secret.
#[derive(Clone)]
struct Secret {
    bytes: Zeroizing<[u8; MAX_SECRET_LEN]>,
    len: usize,
}

impl Default for Secret {
    fn default() -> Self {
        Self { bytes: Zeroizing::new([0; MAX_SECRET_LEN]), len: 0 }
    }
}

impl Secret {
    fn new(secret: &[u8]) -> Self {
        let mut made = Self { len: secret.len().min(MAX_SECRET_LEN), ..Self::default() };
        made.bytes[..made.len].copy_from_slice(&secret[..made.len]);
        made
    }
}

/// The secrets of both directions, as a handshake agreed on them.
#[derive(Clone, Default)]
pub(in crate::tls) struct TrafficSecrets {
    client: Secret,
    server: Secret,
}

thread_local! {
    static AGREED: RefCell<TrafficSecrets> = RefCell::default();
}

/// Takes the traffic secrets out of a handshake at the one place where rustls shows them. Like the verdict on a
/// peer's certificate they lie in a slot of the thread only until the step that made them returns.
#[derive(Debug)]
pub(in crate::tls) struct TakeSecrets;

impl KeyLog for TakeSecrets {
    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT_SECRET | SERVER_SECRET)
    }

    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        AGREED.with_borrow_mut(|agreed| match label {
            CLIENT_SECRET => agreed.client = Secret::new(secret),
            SERVER_SECRET => agreed.server = Secret::new(secret),
            _ => {}
        });
    }
}

/// The secrets that the step of a handshake that just returned agreed on, if it did.
pub(in crate::tls) fn take_secrets() -> Option<TrafficSecrets> {
    let agreed = AGREED.take();
    (agreed.client.len > 0 && agreed.server.len > 0).then_some(agreed)
}

/// Which side of the handshake this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tls) enum Side {
    /// Whoever dialled.
    Client,
    /// Whoever was dialled.
    Server,
}

/// The traffic secrets of both directions, each as of its last key update.
pub(in crate::tls) struct Schedule {
    suite: Suite,
    side: Side,
    sealing: Secret,
    opening: Secret,
}

#[derive(Clone, Copy, Debug)]
enum Suite {
    Aes128,
    Aes256,
    ChaCha20,
}

impl Schedule {
    /// From what the handshake agreed on.
    pub(in crate::tls) fn new(
        suite: Option<CipherSuite>,
        side: Side,
        secrets: TrafficSecrets,
    ) -> Result<Self, RecordError> {
        let suite = match suite {
            Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => Suite::Aes128,
            Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => Suite::Aes256,
            Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => Suite::ChaCha20,
            Some(_) | None => {
                return Err(RecordError::Key("the cipher suite is none of the three that are offered"));
            }
        };
        let TrafficSecrets { client, server } = secrets;
        let (sealing, opening) = match side {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        Ok(Self { suite, side, sealing, opening })
    }

    /// The next key to seal with.
    pub(super) fn next_sealing(&mut self) -> Result<Key, RecordError> {
        self.suite.next_key(&mut self.sealing)
    }

    /// The next key to open with.
    pub(super) fn next_opening(&mut self) -> Result<Key, RecordError> {
        self.suite.next_key(&mut self.opening)
    }

    /// Tickets come from servers alone.
    pub(super) fn takes_tickets(&self) -> bool {
        self.side == Side::Client
    }
}

impl Suite {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128 => &AES_128_GCM,
            Self::Aes256 => &AES_256_GCM,
            Self::ChaCha20 => &CHACHA20_POLY1305,
        }
    }

    /// Replaces the secret by its successor, and makes that one's key.
    fn next_key(self, secret: &mut Secret) -> Result<Key, RecordError> {
        let mut next = Secret { len: secret.len, ..Secret::default() };
        self.expand(secret, b"traffic upd", &mut next.bytes[..secret.len])?;
        *secret = next;
        let algorithm = self.algorithm();
        let (mut key, mut iv) = ([0; MAX_KEY_LEN], [0; NONCE_LEN]);
        let key_len = algorithm.key_len();
        self.expand(secret, b"key", &mut key[..key_len])?;
        self.expand(secret, b"iv", &mut iv)?;
        let made = Key::of(algorithm, &key[..key_len], &iv, 0);
        key.zeroize();
        iv.zeroize();
        made
    }

    /// `HKDF-Expand-Label` of RFC 8446 section 7.1, without a context.
    fn expand(self, secret: &Secret, label: &[u8], out: &mut [u8]) -> Result<(), RecordError> {
        const PREFIX: &[u8] = b"tls13 ";
        let failed = |_| RecordError::Key("the next secret could not be derived");
        let hash = match self {
            Self::Aes128 | Self::ChaCha20 => HKDF_SHA256,
            Self::Aes256 => HKDF_SHA384,
        };
        let length = (out.len() as u16).to_be_bytes();
        let label_len = [(PREFIX.len() + label.len()) as u8];
        let info = [&length[..], &label_len, PREFIX, label, &[0]];
        let secret = Prk::new_less_safe(hash, &secret.bytes[..secret.len]);
        secret.expand(&info, Length(out.len())).and_then(|okm| okm.fill(out)).map_err(failed)
    }
}

/// Bytes to be derived.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedule")
            .field("suite", &self.suite)
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(label: &str) {
        TakeSecrets.log(label, &[], &[7; 32]);
    }

    #[test]
    fn nothing_but_the_two_secrets_of_data_is_taken_and_only_both_together() {
        for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "EXPORTER_SECRET"]
        {
            assert!(!TakeSecrets.will_log(label), "{label}");
            shown(label);
        }
        assert!(take_secrets().is_none());
        for label in [CLIENT_SECRET, SERVER_SECRET] {
            assert!(TakeSecrets.will_log(label), "{label}");
            shown(label);
            assert!(take_secrets().is_none(), "{label} alone");
        }
        shown(CLIENT_SECRET);
        shown(SERVER_SECRET);
        assert!(take_secrets().is_some());
        assert!(take_secrets().is_none(), "what was taken is not there any more");
    }

    #[test]
    fn what_is_shown_of_a_schedule_is_no_secret() {
        let suite = Some(CipherSuite::TLS13_AES_128_GCM_SHA256);
        let schedule = Schedule::new(suite, Side::Server, TrafficSecrets::default()).unwrap();
        assert_eq!(format!("{schedule:?}"), "Schedule { suite: Aes128, side: Server, .. }");
    }
}
