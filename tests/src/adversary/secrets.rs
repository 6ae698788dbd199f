//! The keys of a connection, in hands that seal whatever they like with them (RFC 8446 sections 5.2 and 7).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk},
};
use rustls::KeyLog;

const KEY_LEN: usize = 16;
const IV_LEN: usize = 12;
const SECRET_LEN: usize = 32;
const TAG_LEN: usize = 16;

/// What rustls tells whoever logs keys, by label.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashMap<String, Vec<u8>>>);

impl KeyLog for Told {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(label.to_owned(), secret.to_vec());
    }
}

impl Told {
    /// One direction's keys of one epoch: `CLIENT_HANDSHAKE_TRAFFIC_SECRET`, `SERVER_TRAFFIC_SECRET_0` and so on.
    ///
    /// # Errors
    /// If the handshake has not come so far.
    pub fn half(&self, label: &str) -> Result<Half> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Half::new(told.get(label).with_context(|| format!("no {label} yet"))?.clone())
    }
}

/// One direction of a connection under TLS_AES_128_GCM_SHA256.
pub struct Half {
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: [u8; IV_LEN],
    number: u64,
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const LEN: usize>(secret: &[u8], label: &str) -> Result<[u8; LEN]> {
    let label = format!("tls13 {label}");
    let info = [&[0, u8::try_from(LEN)?, u8::try_from(label.len())?], label.as_bytes(), &[0]].concat();
    let mut made = [0; LEN];
    Prk::new_less_safe(HKDF_SHA256, secret)
        .expand(&[&info], Length(LEN))
        .and_then(|made_from| made_from.fill(&mut made))
        .map_err(|_unspecified| anyhow!("{label} of a secret of {} bytes", secret.len()))?;
    Ok(made)
}

impl Half {
    fn new(secret: Vec<u8>) -> Result<Self> {
        let key: [u8; KEY_LEN] = expand(&secret, "key")?;
        let key = UnboundKey::new(&AES_128_GCM, &key).map_err(|_unspecified| anyhow!("a key"))?;
        let iv = expand(&secret, "iv")?;
        Ok(Self { secret, key: LessSafeKey::new(key), iv, number: 0 })
    }

    /// The next key of the same direction, as after a key update.
    ///
    /// # Errors
    /// Only where the library fails.
    pub fn updated(&self) -> Result<Self> {
        let next: [u8; SECRET_LEN] = expand(&self.secret, "traffic upd")?;
        Self::new(next.to_vec())
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, counted) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= counted;
        }
        self.number += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// A record of this type with this content and `padding` zeros.
    ///
    /// # Errors
    /// Only where the library fails.
    pub fn seal(&mut self, kind: u8, content: &[u8], padding: usize) -> Result<Vec<u8>> {
        let mut inner = [content, &[kind], &vec![0; padding]].concat();
        let length = u16::try_from(inner.len() + TAG_LEN)?.to_be_bytes();
        let header = [super::DATA, 3, 3, length[0], length[1]];
        let nonce = self.nonce();
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(header), &mut inner)
            .map_err(|_unspecified| anyhow!("seal"))?;
        Ok([&header[..], &inner].concat())
    }

    /// What is in a record, header and all: its type and content.
    ///
    /// # Errors
    /// If it was not sealed by the peer's half of this.
    pub fn open(&mut self, record: &[u8]) -> Result<(u8, Vec<u8>)> {
        let (header, sealed) = record.split_at_checked(5).context("a record without a header")?;
        let mut sealed = sealed.to_vec();
        let nonce = self.nonce();
        let inner = self
            .key
            .open_in_place(nonce, Aad::from(header), &mut sealed)
            .map_err(|_unspecified| anyhow!("a record that does not open"))?;
        let last = inner.iter().rposition(|byte| *byte != 0).context("nothing but padding")?;
        Ok((inner[last], inner[..last].to_vec()))
    }
}
