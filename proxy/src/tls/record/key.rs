//! One direction's key with its sequence number: one record sealed or opened where it lies.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

use super::content::{APPLICATION_DATA, LEGACY_VERSION, RecordError};
use crate::slab::{GAP_AFTER, GAP_BEFORE};

/// Bytes of the tag, the same for every suite.
pub(super) const TAG_LEN: usize = 16;

/// The longest key: that of AES-256 and of ChaCha20.
pub(super) const MAX_KEY_LEN: usize = 32;

/// Records after which a connection is one that talks. Most that a pool opens in advance say a word and fall silent:
/// what is made for each of their few records lies nowhere between what lasts.
const FEW: u64 = 4;

/// A key, its nonce base and how many records it has seen.
pub(super) struct Key {
    algorithm: &'static Algorithm,
    bytes: Zeroizing<[u8; MAX_KEY_LEN]>,
    /// Made when it is needed and given back by [`Key::rest`]: it is as large as all else an idle connection
    /// holds for TLS, and made in less than a microsecond.
    aead: Option<LessSafeKey>,
    iv: Zeroizing<[u8; NONCE_LEN]>,
    sequence: u64,
}

impl Key {
    /// From what rustls hands out. `sequence` is the number of the next record.
    pub(super) fn new(secrets: &ConnectionTrafficSecrets, sequence: u64) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Key("the cipher suite is none of the three that are offered")),
        };
        Self::of(algorithm, key.as_ref(), iv.as_ref(), sequence)
    }

    /// From a key and a nonce base for `algorithm`.
    pub(super) fn of(
        algorithm: &'static Algorithm,
        key: &[u8],
        iv: &[u8],
        sequence: u64,
    ) -> Result<Self, RecordError> {
        let wrong = RecordError::Key("a traffic key of a wrong length");
        let iv = iv.try_into().map_err(|_| RecordError::Key("a nonce of a wrong length"))?;
        let mut bytes = Zeroizing::new([0; MAX_KEY_LEN]);
        let (true, Some(room)) = (key.len() == algorithm.key_len(), bytes.get_mut(..key.len())) else {
            return Err(wrong);
        };
        room.copy_from_slice(key);
        Ok(Self { algorithm, bytes, aead: None, iv: Zeroizing::new(iv), sequence })
    }

    /// Gives back what can be made again.
    pub(super) fn rest(&mut self) {
        self.aead = None;
    }

    fn aead(&mut self) -> Result<&LessSafeKey, RecordError> {
        if self.aead.is_none() {
            let key = UnboundKey::new(self.algorithm, &self.bytes[..self.algorithm.key_len()]);
            let key = key.map_err(|_| RecordError::Key("a traffic key of a wrong length"))?;
            self.aead = Some(LessSafeKey::new(key));
        }
        self.aead.as_ref().ok_or(RecordError::Key("no key was made"))
    }

    /// How many records it has sealed or opened.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Seals `record`: header and content type are written around its plaintext, and the tag behind.
    pub(super) fn seal(&mut self, content_type: u8, record: &mut [u8]) -> Result<(), RecordError> {
        let too_long = RecordError::Overflow(record.len());
        let sealed = record.len() - GAP_BEFORE;
        let Ok(length) = u16::try_from(sealed) else { return Err(too_long) };
        let (header, rest) = record.split_at_mut(GAP_BEFORE);
        header.copy_from_slice(&header_of(length));
        let (content, tag) = rest.split_at_mut(sealed - TAG_LEN);
        if let Some(inner) = content.last_mut() {
            *inner = content_type;
        }
        let nonce = self.next_nonce()?;
        let made = self
            .aead()?
            .seal_in_place_separate_tag(nonce, Aad::from(&*header), content)
            .map_err(|_| too_long)?;
        tag.copy_from_slice(made.as_ref());
        self.rest_after_few();
        Ok(())
    }

    /// Opens the sealed part of a record, and tells how much of it is inner plaintext: content, its type, padding.
    pub(super) fn open(&mut self, sealed: &mut [u8]) -> Result<usize, RecordError> {
        let Ok(length) = u16::try_from(sealed.len()) else { return Err(RecordError::Overflow(sealed.len())) };
        let nonce = self.next_nonce()?;
        // The header as it must be, whatever was sent: only that is what its sender authenticated.
        let opened = self.aead()?.open_in_place(nonce, Aad::from(header_of(length)), sealed);
        let opened = opened.map(|plaintext| plaintext.len()).map_err(|_| RecordError::BadMac);
        self.rest_after_few();
        opened
    }

    fn rest_after_few(&mut self) {
        if self.sequence <= FEW {
            self.rest();
        }
    }

    fn next_nonce(&mut self) -> Result<Nonce, RecordError> {
        let mut nonce = *self.iv;
        for (byte, counter) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= counter;
        }
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::Key("no sequence number is left"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("at_rest", &self.aead.is_none())
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Bytes that sealing adds to a plaintext.
pub(super) const OVERHEAD: usize = GAP_BEFORE + GAP_AFTER;

fn header_of(length: u16) -> [u8; GAP_BEFORE] {
    let [high, low] = length.to_be_bytes();
    [APPLICATION_DATA, LEGACY_VERSION[0], LEGACY_VERSION[1], high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::of(&AES_128_GCM, &[7; 16], &[9; NONCE_LEN], 0).unwrap()
    }

    fn seal(key: &mut Key) {
        key.seal(APPLICATION_DATA, &mut [0; 100]).unwrap();
    }

    #[test]
    fn what_is_made_for_records_is_given_back_while_they_are_few_and_at_rest() {
        let mut key = key();
        for number in 1..=FEW {
            seal(&mut key);
            assert!(key.aead.is_none(), "after record {number}");
        }
        seal(&mut key);
        assert!(key.aead.is_some(), "a connection that talks");
        key.rest();
        assert!(key.aead.is_none(), "one that has fallen silent");
    }

    #[test]
    fn less_than_a_tag_does_not_authenticate() {
        for length in 0..TAG_LEN {
            assert_eq!(key().open(&mut vec![0; length]), Err(RecordError::BadMac), "{length} bytes");
        }
    }

    #[test]
    fn what_is_shown_of_a_key_is_how_often_it_was_used() {
        let mut key = key();
        seal(&mut key);
        assert_eq!(format!("{key:?}"), "Key { at_rest: true, sequence: 1, .. }");
    }
}
