//! PEM (RFC 7468) in and out.
//!
//! Reading is strict about what else a file holds: a private key among trusted roots is a leak that
//! nobody should learn of years later. Writing keeps no stray copy of a key's text.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject, SectionKind},
};
use zeroize::Zeroizing;

/// Base64 characters on a line, as RFC 7468 (section 2) demands of a writer.
const LINE_LEN: usize = 64;

/// No label in use is longer. Where the lines of a key were folded into one, the key is read as a part of the label.
const MAX_LABEL_LEN: usize = 24;

/// Why PEM could not be read. Blocks count from 1; blocks of a kind unknown to TLS do not count.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// A block is broken: no end marker, or bytes that are not base64.
    #[error("pem block {block}: {fault}")]
    Malformed {
        /// Which block.
        block: usize,
        /// What is wrong with it, as [`pem_fault`] says it.
        fault: String,
    },
    /// There is no certificate.
    #[error("no certificate, expected at least one pem block `CERTIFICATE`")]
    NoCertificate,
    /// There is no private key, or it is encrypted.
    #[error(
        "no private key, expected an unencrypted pem block `PRIVATE KEY`, `EC PRIVATE KEY` or `RSA PRIVATE KEY`"
    )]
    NoKey,
    /// More than one private key.
    #[error("pem block {block} is a second private key, expected one")]
    SecondKey {
        /// Which block.
        block: usize,
    },
    /// Something else stands where only certificates belong.
    #[error("pem block {block} is a {kind:?}, expected certificates alone")]
    UnexpectedBlock {
        /// Which block.
        block: usize,
        /// What it is.
        kind: SectionKind,
    },
}

/// What is wrong with a PEM text, in words that show nothing of what should stand between its markers.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others quote nothing, or a character that is none of base64's"
)]
pub fn pem_fault(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } if end_marker.len() <= MAX_LABEL_LEN => {
            format!("block {:?} does not end", String::from_utf8_lossy(end_marker))
        }
        pem::Error::MissingSectionEnd { .. } => {
            "a block does not end, expected its begin, its content and its end on lines of their own"
                .to_owned()
        }
        pem::Error::IllegalSectionStart { .. } => {
            "the line that begins it does not end with five dashes".to_owned()
        }
        other => other.to_string(),
    }
}

/// Reads a file of certificates, at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut certificates = Vec::new();
    for (block, section) in (1..).zip(<(SectionKind, Vec<u8>)>::pem_slice_iter(pem)) {
        let (kind, der) = section.map_err(|error| PemError::Malformed { block, fault: pem_fault(&error) })?;
        if kind != SectionKind::Certificate {
            return Err(PemError::UnexpectedBlock { block, kind });
        }
        certificates.push(CertificateDer::from(der));
    }
    if certificates.is_empty() { Err(PemError::NoCertificate) } else { Ok(certificates) }
}

/// Reads the one private key of a file, which may hold certificates or curve parameters beside it.
pub(crate) fn private_key(pem: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, PemError> {
    let mut key = None;
    for (block, section) in (1..).zip(<(SectionKind, Vec<u8>)>::pem_slice_iter(pem)) {
        let (kind, der) = section.map_err(|error| PemError::Malformed { block, fault: pem_fault(&error) })?;
        if let Some(found) = PrivateKeyDer::from_pem(kind, der).map(Zeroizing::new)
            && key.replace(found).is_some()
        {
            return Err(PemError::SecondKey { block });
        }
    }
    key.ok_or(PemError::NoKey)
}

/// Appends one block.
pub(crate) fn write(text: &mut String, label: &str, der: &[u8]) {
    let mut line = Zeroizing::new([0u8; LINE_LEN]);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for chunk in der.chunks(LINE_LEN / 4 * 3) {
        // The buffer fits a chunk's encoding exactly, and base64 is ASCII: neither can fail.
        let len = STANDARD.encode_slice(chunk, line.as_mut_slice()).unwrap_or_default();
        text.extend(line[..len].iter().copied().map(char::from));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
}

/// Bytes that [`write`] appends for `der_len` bytes under `label`, so that a key's text is never
/// moved by a growing buffer, which would leave a copy behind.
pub(crate) fn written_len(label: &str, der_len: usize) -> usize {
    let base64 = der_len.div_ceil(3) * 4;
    2 * label.len() + "-----BEGIN -----\n-----END -----\n".len() + base64 + base64.div_ceil(LINE_LEN)
}
