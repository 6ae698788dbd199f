//! What outlives a crash of the data plane: the last credentials, as bytes that the parent process
//! keeps in its memory without looking into them. See [`parent`](crate::parent).

use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::source::Issued;

/// The layout's first byte. A parent and its data plane are one binary, so another value is a fault.
const VERSION: u8 = 1;

/// What a source handed out, and when.
pub(crate) struct Kept {
    pub(crate) issued: Issued,
    pub(crate) received_at: SystemTime,
}

/// The bytes are not those of [`Kept::to_bytes`].
#[derive(Debug, thiserror::Error)]
#[error("kept credentials: {len} bytes that are not of layout {VERSION}")]
pub(crate) struct KeptError {
    len: usize,
}

impl Kept {
    pub(crate) fn new(issued: &Issued, received_at: SystemTime) -> Self {
        let issued =
            Issued { chain: issued.chain.clone(), key: issued.key.clone(), roots: issued.roots.clone() };
        Self { issued, received_at }
    }

    /// One version byte, the time in milliseconds, and three parts, each behind its length.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let parts = [&self.issued.chain[..], &self.issued.key[..], &self.issued.roots[..]];
        let len = 1 + 8 + parts.iter().map(|part| 4 + part.len()).sum::<usize>();
        // All room at once: a buffer that grows leaves a copy of the key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        bytes.push(VERSION);
        let received_at = self.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        bytes.extend_from_slice(&u64::try_from(received_at.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        for part in parts {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// Reads [`to_bytes`](Self::to_bytes) back.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, KeptError> {
        Self::read(bytes).ok_or(KeptError { len: bytes.len() })
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (millis, rest) = rest.split_first_chunk::<8>()?;
        let (chain, rest) = part(rest)?;
        let (key, rest) = part(rest)?;
        let (roots, rest) = part(rest)?;
        let received_at =
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(u64::from_be_bytes(*millis)))?;
        let issued =
            Issued { chain: chain.to_vec(), key: Zeroizing::new(key.to_vec()), roots: roots.to_vec() };
        (*version == VERSION && rest.is_empty()).then_some(Self { issued, received_at })
    }
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let issued = Issued {
            chain: b"chain".to_vec(),
            key: Zeroizing::new(b"the key".to_vec()),
            roots: b"roots".to_vec(),
        };
        Kept { issued, received_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567) }
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let read = Kept::from_bytes(&kept().to_bytes()).unwrap();
        assert_eq!(read.issued.chain, b"chain");
        assert_eq!(read.issued.key.as_slice(), b"the key");
        assert_eq!(read.issued.roots, b"roots");
        assert_eq!(read.received_at, kept().received_at);
    }

    #[test]
    fn bytes_that_are_cut_longer_or_of_another_layout_are_refused() {
        let bytes = kept().to_bytes();
        for len in 0..bytes.len() {
            assert!(Kept::from_bytes(&bytes[..len]).is_err(), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Kept::from_bytes(&longer).is_err());
        let mut other = bytes.to_vec();
        other[0] = VERSION + 1;
        assert!(Kept::from_bytes(&other).is_err());
    }
}
