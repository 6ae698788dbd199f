//! The first message of either side of a TLS 1.3 handshake (RFC 8446, 4.1): read as far as it takes to know the version.

/// The extension that carries the versions (RFC 8446, 4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;

/// TLS 1.3 on the wire.
const TLS13: [u8; 2] = [3, 4];

/// The header of a handshake message: its type and its length.
const HEADER: usize = 4;

/// Who says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    Client,
    Server,
}

impl Hello {
    pub(super) fn message_type(self) -> u8 {
        match self {
            Self::Client => 1,
            Self::Server => 2,
        }
    }

    /// Whether the message is a whole hello of this side that offers or chooses TLS 1.3; none while it needs more bytes.
    pub(super) fn is_tls13(self, message: &[u8]) -> Option<bool> {
        let header = message.get(..HEADER)?;
        if header[0] != self.message_type() {
            return Some(false);
        }
        let length = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
        let body = message.get(HEADER..HEADER + length)?;
        Some(self.offers_tls13(body).unwrap_or(false))
    }

    /// None when the body ends before its fields do.
    fn offers_tls13(self, body: &[u8]) -> Option<bool> {
        let mut rest = Fields(body);
        rest.take(2 + 32)?; // legacy version and random
        rest.vector8()?; // session id
        match self {
            Self::Client => {
                rest.vector16()?; // cipher suites
                rest.vector8()?; // compression methods
            }
            Self::Server => {
                rest.take(2 + 1)?; // cipher suite and compression method
            }
        }
        let mut extensions = Fields(rest.vector16()?);
        while !extensions.0.is_empty() {
            let kind = extensions.number16()?;
            let data = extensions.vector16()?;
            if kind == SUPPORTED_VERSIONS {
                return match self {
                    Self::Client => Some(Fields(data).vector8()?.chunks_exact(2).any(|each| each == TLS13)),
                    Self::Server => Some(data == TLS13),
                };
            }
        }
        Some(false)
    }
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(usize::from(length))
    }
}
