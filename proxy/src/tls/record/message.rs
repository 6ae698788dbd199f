//! The messages that may follow a handshake (RFC 8446 section 4.6): key updates, and tickets, which are skipped.
//!
//! They are read byte by byte as they come, over record boundaries, so that nothing of them is kept: of a ticket
//! only how much is left of it.

use super::content::RecordError;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// Type and a length of three bytes.
const HEADER_LEN: usize = 4;
/// The longest message that is taken, as in rustls: a ticket has at most as much.
const MAX_LEN: usize = 0xffff;

/// What a peer said after its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The next record is sealed with the next key.
    KeyUpdate {
        /// And the peer wants this side's to change too.
        requested: bool,
    },
}

/// How far a message has been read.
#[derive(Debug, Default)]
pub(super) struct Messages {
    header: [u8; HEADER_LEN],
    /// Bytes of the header that are there.
    got: u8,
    /// Bytes of a ticket that are still to come.
    skipping: usize,
}

impl Messages {
    /// Whether a message has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.got > 0
    }

    /// Reads what one record holds. A key update ends its record, so there is at most one.
    pub(super) fn read(&mut self, mut bytes: &[u8], tickets: bool) -> Result<Option<Message>, RecordError> {
        while !bytes.is_empty() {
            if !self.take_header(&mut bytes) {
                return Ok(None);
            }
            match self.header[0] {
                NEW_SESSION_TICKET if tickets => {
                    if self.skipping > MAX_LEN {
                        return Err(RecordError::MessageTooLong(self.skipping));
                    }
                    let skipped = self.skipping.min(bytes.len());
                    bytes = &bytes[skipped..];
                    self.skipping -= skipped;
                    if self.skipping == 0 {
                        self.got = 0;
                    }
                }
                KEY_UPDATE if self.skipping != 1 => return Err(RecordError::KeyUpdateLen(self.skipping)),
                KEY_UPDATE => {
                    let Some((said, rest)) = bytes.split_first() else { return Ok(None) };
                    self.got = 0;
                    if !rest.is_empty() {
                        return Err(RecordError::KeyUpdateNotLast);
                    }
                    return match said {
                        0 | 1 => Ok(Some(Message::KeyUpdate { requested: *said == 1 })),
                        other => Err(RecordError::KeyUpdate(*other)),
                    };
                }
                other => return Err(RecordError::Message(other)),
            }
        }
        Ok(None)
    }

    /// Takes what is missing of the header; true once it is whole.
    fn take_header(&mut self, bytes: &mut &[u8]) -> bool {
        let got = usize::from(self.got);
        if got == HEADER_LEN {
            return true;
        }
        let taken = (HEADER_LEN - got).min(bytes.len());
        self.header[got..got + taken].copy_from_slice(&bytes[..taken]);
        self.got += taken as u8;
        *bytes = &bytes[taken..];
        let [_, a, b, c] = self.header;
        self.skipping = u32::from_be_bytes([0, a, b, c]) as usize;
        usize::from(self.got) == HEADER_LEN
    }
}
