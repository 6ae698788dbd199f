//! Whether a peer speaks TLS at all, by how it begins: what a garbled record is called depends on it.

use super::record::starts_a_record;

/// The type of a record and the major part of its version.
const DECIDING_BYTES: usize = 2;

/// The first bytes that a peer has sent.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    bytes: [u8; DECIDING_BYTES],
    heard: usize,
}

impl Beginning {
    /// Takes what came next.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(DECIDING_BYTES - self.heard);
        self.bytes[self.heard..self.heard + taken].copy_from_slice(&bytes[..taken]);
        self.heard += taken;
    }

    /// Whether it was the start of a record of TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.heard == DECIDING_BYTES && starts_a_record(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_bytes_tell_tls_however_they_come() {
        let rows: &[(&[&[u8]], bool)] = &[
            (&[], false),
            (&[&[22]], false),
            (&[&[22, 3, 1, 0, 200, 1]], true),
            (&[&[22], &[], &[3, 1]], true),
            (&[&[21, 3, 3, 0, 2, 2, 40]], true),
            (&[&[22, 0, 0, 0]], false),
            (&[&[22], &[0], &[3, 3]], false),
            (&[b"SSH-2.0-OpenSSH"], false),
            (&[&[0x80, 0x2e, 1, 3, 1]], false),
        ];
        for (parts, expected) in rows {
            let mut beginning = Beginning::default();
            parts.iter().for_each(|part| beginning.hear(part));
            assert_eq!(beginning.is_tls(), *expected, "{parts:?}");
        }
    }
}
