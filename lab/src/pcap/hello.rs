//! The first message of either side of a TLS 1.3 handshake (RFC 8446, 4.1): read as far as it takes to know the version.

/// The extension that carries the versions (RFC 8446, 4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;

/// TLS 1.3 on the wire.
const TLS13: [u8; 2] = [3, 4];

/// The header of a handshake message: its type and its length.
const HEADER: usize = 4;

/// The extensions that tell which keys and which earlier session the server took (RFC 8446, 4.2.8 and 4.2.11).
const KEY_SHARE: u16 = 51;
const PRE_SHARED_KEY: u16 = 41;

/// What a server chose of what it was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerChoice {
    /// The cipher suite, as the registry numbers it.
    pub suite: u16,
    /// The group of the key exchange, as the registry numbers it; none where an earlier session was resumed without one.
    pub group: Option<u16>,
    /// Whether an earlier session was resumed: no certificate was shown then.
    pub resumed: bool,
}

impl ServerChoice {
    /// Reads the server hello at the beginning of a stream of TLS records; none when there is none that is whole. One that asks
    /// for another hello of the client is not passed over: it names the group too.
    pub fn read(stream: &[u8]) -> Option<Self> {
        let mut records = Fields(stream);
        records.take(3)?; // type and legacy version
        let mut message = Fields(records.vector16()?);
        if message.take(1)?[0] != Hello::Server.message_type() {
            return None;
        }
        message.take(3 + 2 + 32)?; // length, legacy version and random
        message.vector8()?; // session id
        let suite = message.number16()?;
        message.take(1)?; // compression method
        let mut extensions = Fields(message.vector16()?);
        let mut choice = Self { suite, group: None, resumed: false };
        while !extensions.0.is_empty() {
            let kind = extensions.number16()?;
            let data = extensions.vector16()?;
            match kind {
                KEY_SHARE => choice.group = Some(Fields(data).number16()?),
                PRE_SHARED_KEY => choice.resumed = true,
                _ => {}
            }
        }
        Some(choice)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// A server hello in one record, with these extensions.
    fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0x13, 0x01, 0]);
        body.extend([0, u8::try_from(extensions.len()).unwrap()]);
        body.extend(extensions);
        let length = u8::try_from(body.len()).unwrap();
        let mut record = vec![0x16, 3, 3, 0, length + 4, 2, 0, 0, length];
        record.extend(body);
        record
    }

    #[test]
    fn the_choice_of_a_server_is_read_from_its_hello() {
        let full = hello(&[0, 43, 0, 2, 3, 4, 0, 51, 0, 5, 0, 29, 0, 1, 9]);
        let choice = ServerChoice { suite: 0x1301, group: Some(29), resumed: false };
        assert_eq!(ServerChoice::read(&full), Some(choice));
        let resumed = ServerChoice::read(&hello(&[0, 41, 0, 2, 0, 0])).unwrap();
        assert!(resumed.resumed && resumed.group.is_none(), "{resumed:?}");
        assert_eq!(ServerChoice::read(&full[..full.len() - 1]), None);
        assert_eq!(ServerChoice::read(b"HTTP/1.1 200 OK"), None);
    }
}
