//! From records to plaintext, and everything a peer may say between them.

use std::ops::Range;

use rustls::AlertDescription;

use super::{
    content::{
        ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, LEGACY_VERSION, MAX_WARNINGS,
        MAX_WITHOUT_DATA, RecordError, starts_a_record,
    },
    key::Key,
    message::{Message, Messages},
    schedule::Schedule,
};
use crate::slab::{GAP_BEFORE, MAX_RECORD_LEN, SLOT_LEN};

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// What one record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Plaintext, at this place in the buffer. It may be empty.
    Data(Range<usize>),
    /// The peer's application ended.
    End,
    /// The peer wants this side's key to change.
    KeyUpdateRequested,
    /// Something that concerns nobody.
    Nothing,
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct Opener {
    key: Key,
    messages: Messages,
    warnings: u8,
    without_data: u8,
}

impl Opener {
    /// Opens with `key` from its next record on.
    pub(super) fn new(key: Key) -> Self {
        Self { key, messages: Messages::default(), warnings: 0, without_data: 0 }
    }

    /// Gives back what can be made again.
    pub(super) fn rest(&mut self) {
        self.key.rest();
    }

    /// Opens the record at the start of `buffer[from..]`, where it lies. `None` while it is not whole; else what it
    /// was, and where the next one starts.
    pub(super) fn open(
        &mut self,
        buffer: &mut [u8],
        from: usize,
        schedule: &mut Schedule,
    ) -> Result<Option<(Opened, usize)>, RecordError> {
        let Some(sealed) = self.next_record(buffer, from)? else { return Ok(None) };
        let inner = self.key.open(&mut buffer[sealed.clone()])?;
        let (content_type, content) = unpadded(&buffer[sealed.start..sealed.start + inner])?;
        let content = sealed.start..sealed.start + content;
        // An alert ends the connection or is one of few.
        if content_type != ALERT {
            self.count(content_type == APPLICATION_DATA && !content.is_empty())?;
        }
        if self.messages.is_open() && content_type != HANDSHAKE {
            return Err(RecordError::Interleaved(content_type));
        }
        let opened = match content_type {
            APPLICATION_DATA => Opened::Data(content),
            ALERT => self.alert(&buffer[content])?,
            HANDSHAKE => self.handshake(&buffer[content], schedule)?,
            other => return Err(RecordError::Type(other)),
        };
        Ok(Some((opened, sealed.end)))
    }

    /// Where the sealed part of the next record lies, once all of it is there.
    fn next_record(&self, buffer: &[u8], from: usize) -> Result<Option<Range<usize>>, RecordError> {
        let head = &buffer[from..];
        check_header(head)?;
        let Some([kind, _, _, high, low]) = head.first_chunk::<GAP_BEFORE>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != APPLICATION_DATA && length == 0 {
            return Err(RecordError::Header { kind: *kind, version: LEGACY_VERSION[0] });
        }
        if length > MAX_RECORD_LEN - GAP_BEFORE {
            return Err(RecordError::Overflow(length));
        }
        let sealed = from + GAP_BEFORE..from + GAP_BEFORE + length;
        if sealed.end > buffer.len() {
            return Ok(None);
        }
        if *kind == CHANGE_CIPHER_SPEC && !self.messages.is_open() {
            return Err(RecordError::ChangeCipherSpec);
        }
        Ok(Some(sealed))
    }

    fn count(&mut self, is_data: bool) -> Result<(), RecordError> {
        if is_data {
            self.without_data = 0;
        } else if self.without_data == MAX_WITHOUT_DATA {
            return Err(RecordError::TooManyWithoutData);
        } else {
            self.without_data += 1;
        }
        Ok(())
    }

    fn alert(&mut self, content: &[u8]) -> Result<Opened, RecordError> {
        let [level, description] = content else { return Err(RecordError::BadAlert(content.len())) };
        let description = AlertDescription::from(*description);
        let ended = |answer| Err(RecordError::Alert { description, answer });
        match *level {
            WARNING | FATAL if description == AlertDescription::CloseNotify => Ok(Opened::End),
            WARNING if self.warnings == MAX_WARNINGS => Err(RecordError::TooManyWarnings),
            WARNING => {
                self.warnings += 1;
                // The one warning of TLS 1.3 that says nothing (RFC 8446 section 6.1).
                if description == AlertDescription::UserCanceled {
                    return Ok(Opened::Nothing);
                }
                ended(Some(AlertDescription::DecodeError))
            }
            FATAL => ended(None),
            _ => ended(Some(AlertDescription::IllegalParameter)),
        }
    }

    fn handshake(&mut self, content: &[u8], schedule: &mut Schedule) -> Result<Opened, RecordError> {
        if content.is_empty() {
            return Err(RecordError::EmptyHandshake);
        }
        match self.messages.read(content, schedule.takes_tickets())? {
            None => Ok(Opened::Nothing),
            Some(Message::KeyUpdate { requested }) => {
                self.key = schedule.next_opening()?;
                Ok(if requested { Opened::KeyUpdateRequested } else { Opened::Nothing })
            }
        }
    }
}

/// Refuses what can never become a record as soon as that shows: a peer that speaks something else may say no more.
fn check_header(head: &[u8]) -> Result<(), RecordError> {
    let Some(kind) = head.first().copied() else { return Ok(()) };
    let version = head.get(1).copied().filter(|_| head.len() > 2).unwrap_or(LEGACY_VERSION[0]);
    if starts_a_record([kind, version]) {
        return Ok(());
    }
    Err(RecordError::Header { kind, version })
}

/// The content type of an inner plaintext, and how much of it is content (RFC 8446 section 5.4).
fn unpadded(inner: &[u8]) -> Result<(u8, usize), RecordError> {
    if inner.len() > SLOT_LEN + 1 {
        return Err(RecordError::Overflow(inner.len()));
    }
    match inner.iter().rposition(|byte| *byte != 0) {
        None => Err(RecordError::NoContentType),
        Some(content) => Ok((inner[content], content)),
    }
}
