//! What records carry, and how a record that must not be is answered.

use rustls::AlertDescription;

/// The content type of every protected record's header, and of application data inside.
pub(super) const APPLICATION_DATA: u8 = 23;
/// The inner content type of an alert.
pub(super) const ALERT: u8 = 21;
/// The inner content type of a handshake message.
pub(super) const HANDSHAKE: u8 = 22;
/// The outer type of a record that is never protected.
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
/// The last content type that TLS knows: heartbeats, which are never spoken.
pub(super) const LAST_KNOWN_TYPE: u8 = 24;

/// The version in every record's header, frozen long ago; only its major part is looked at.
pub(super) const LEGACY_VERSION: [u8; 2] = [3, 3];

/// Whether a record of TLS can start with this type and this major part of its version.
pub(in crate::tls) fn starts_a_record([kind, major]: [u8; 2]) -> bool {
    (CHANGE_CIPHER_SPEC..=LAST_KNOWN_TYPE).contains(&kind) && major == LEGACY_VERSION[0]
}

/// Records in a row that are taken though they carry no data: empty ones, key updates, tickets. Each costs its
/// receiver as much as a full one. As many as rustls takes of each kind; here they share one count, or two kinds in
/// turns would be a flood without an end.
pub(super) const MAX_WITHOUT_DATA: u8 = 32;

/// Warnings that are taken. Java sends one before its goodbye.
pub(super) const MAX_WARNINGS: u8 = 4;

/// Why a record, or what is inside, was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The peer ended the connection with this alert.
    #[error("the peer sent the alert {description:?}")]
    Alert {
        /// Which.
        description: AlertDescription,
        /// What it is answered with, where it should not have been sent like this.
        answer: Option<AlertDescription>,
    },
    /// The record was changed on the way, or sealed with another key.
    #[error("a record that does not authenticate")]
    BadMac,
    /// An alert that is no pair of level and description.
    #[error("expected an alert of 2 bytes, got {0}")]
    BadAlert(usize),
    /// A record in plaintext that only a handshake may hold.
    #[error("a change_cipher_spec record after the handshake")]
    ChangeCipherSpec,
    /// A handshake message without its bytes.
    #[error("an empty handshake record")]
    EmptyHandshake,
    /// A header that starts no record of TLS.
    #[error("expected the header of a record, got type {kind} and version {version}")]
    Header {
        /// The first byte.
        kind: u8,
        /// The second.
        version: u8,
    },
    /// A record between two parts of a handshake message.
    #[error("a record of type {0} within a handshake message")]
    Interleaved(u8),
    /// The last key that can be derived is used up; or a key could not be made.
    #[error("no further key: {0}")]
    Key(&'static str),
    /// A key update that says neither yes nor no.
    #[error("expected a key update of 0 or 1, got {0}")]
    KeyUpdate(u8),
    /// A key update of another length than one byte.
    #[error("expected a key update of 1 byte, got {0}")]
    KeyUpdateLen(usize),
    /// More bytes behind a key update, under the key that it retires.
    #[error("a key update that does not end its record")]
    KeyUpdateNotLast,
    /// A message that may not follow a handshake, or not from this side.
    #[error("a handshake message of type {0} after the handshake")]
    Message(u8),
    /// A message longer than any that is taken.
    #[error("expected a handshake message of at most 65535 bytes, got {0}")]
    MessageTooLong(usize),
    /// No content type inside.
    #[error("a record of nothing but padding")]
    NoContentType,
    /// More than a record may hold.
    #[error("a record of {0} bytes, more than a record may hold")]
    Overflow(usize),
    /// Too many warnings.
    #[error("more than 4 warnings")]
    TooManyWarnings,
    /// Too many records that bring nobody anything.
    #[error("more than 32 records without data in a row")]
    TooManyWithoutData,
    /// A content type that may not be inside.
    #[error("content of type {0}")]
    Type(u8),
}

impl RecordError {
    /// The alert that tells the peer (RFC 8446 section 6.2).
    pub fn alert(&self) -> Option<AlertDescription> {
        Some(match self {
            Self::Alert { answer, .. } => return *answer,
            Self::BadMac => AlertDescription::BadRecordMac,
            Self::BadAlert(0)
            | Self::ChangeCipherSpec
            | Self::EmptyHandshake
            | Self::Interleaved(_)
            | Self::KeyUpdateNotLast
            | Self::Message(_)
            | Self::NoContentType
            | Self::TooManyWarnings
            | Self::TooManyWithoutData
            | Self::Type(_) => AlertDescription::UnexpectedMessage,
            Self::BadAlert(_) | Self::Header { .. } | Self::KeyUpdateLen(_) | Self::MessageTooLong(_) => {
                AlertDescription::DecodeError
            }
            Self::Key(_) => AlertDescription::InternalError,
            Self::KeyUpdate(_) => AlertDescription::IllegalParameter,
            Self::Overflow(_) => AlertDescription::RecordOverflow,
        })
    }
}
