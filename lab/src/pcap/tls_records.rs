//! Whether a connection is TLS 1.3 records and nothing else (RFC 8446, section 5), from its first byte to its last.
//!
//! What is allowed in the clear is exactly this: a hello that offers (or chooses) TLS 1.3, at most one more after a retry, the
//! one-byte change of cipher spec, and one alert that ends a handshake. From the first protected record on, all are protected.

use std::fmt;

use super::hello::Hello;
use super::streams::{Conversation, Direction, Stream};

const HEADER: usize = 5;
const CHANGE_CIPHER_SPEC: u8 = 0x14;
const ALERT: u8 = 0x15;
const HANDSHAKE: u8 = 0x16;
const PROTECTED: u8 = 0x17;

/// The most that a record may carry in the clear.
const LARGEST_CLEAR: usize = 1 << 14;
/// A protected record adds at most 256 bytes.
const LARGEST_PROTECTED: usize = LARGEST_CLEAR + 256;
/// A protected record holds at least a content type and a tag of 16 bytes.
const SMALLEST_PROTECTED: usize = 17;
/// A stream joined in its middle must go on in whole records from a place within its first record.
const FURTHEST_JOIN: usize = LARGEST_PROTECTED + HEADER;
/// How many headers in a row make chance impossible: three bytes of each are fixed.
const JOIN_HEADERS: usize = 2;

/// How many bytes of an offending place are shown.
const SHOWN: usize = 16;

/// Why a stream is not TLS 1.3 and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not the header of a record.
    NoRecord,
    /// A record whose length its type does not allow.
    Length,
    /// The first message is not the hello of this side, or does not speak TLS 1.3.
    NoTls13Hello,
    /// A record in the clear where none may be any more.
    ClearAfterProtected,
    /// The capture has lost bytes here: what they were is unknown.
    Unseen,
    /// Joined in the middle, and no place was found from which it goes on in records.
    NoPlaceToJoin,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRecord => "no tls record",
            Self::Length => "a record of a forbidden length",
            Self::NoTls13Hello => "no hello of tls 1.3",
            Self::ClearAfterProtected => "a clear record after protected ones",
            Self::Unseen => "bytes that the capture lost",
            Self::NoPlaceToJoin => "no records in a stream joined in its middle",
        })
    }
}

/// What the records of one or more streams were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Hellos.
    pub hellos: u64,
    /// Changes of cipher spec.
    pub change_cipher_specs: u64,
    /// Alerts in the clear: handshakes that were refused.
    pub clear_alerts: u64,
    /// Protected records.
    pub protected: u64,
    /// Bytes of all records with their headers.
    pub bytes: u64,
    /// Bytes of a last record that was cut by the end of the connection or of the capture.
    pub cut: u64,
    /// Bytes before the first record of streams that were joined in their middle: unproven.
    pub before_join: u64,
}

impl RecordCounts {
    fn add(&mut self, other: &Self) {
        self.hellos += other.hellos;
        self.change_cipher_specs += other.change_cipher_specs;
        self.clear_alerts += other.clear_alerts;
        self.protected += other.protected;
        self.bytes += other.bytes;
        self.cut += other.cut;
        self.before_join += other.before_join;
    }
}

/// A stream that is something else, and where it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// The connection.
    pub conversation: String,
    /// Its server's port.
    pub port: u16,
    /// Which way.
    pub direction: Direction,
    /// Where in the stream.
    pub offset: usize,
    /// The first bytes there, at most 16.
    pub bytes: Vec<u8>,
    /// What is wrong with them.
    pub fault: Fault,
}

impl fmt::Display for Offender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.direction {
            Direction::ToServer => "client's",
            Direction::ToClient => "server's",
        };
        write!(f, "{}: {} in the {way} stream at byte {}:", self.conversation, self.fault, self.offset)?;
        self.bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

/// What a set of connections is.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Connections that carried bytes.
    pub conversations: usize,
    /// Connections that carried none: refused, or opened and closed.
    pub empty: usize,
    /// All records.
    pub counts: RecordCounts,
    /// The streams that are something else.
    pub offenders: Vec<Offender>,
}

impl Judgement {
    /// Whether there was something to judge and all of it was TLS 1.3 records and nothing else.
    pub fn is_tls13_only(&self) -> bool {
        self.conversations > 0 && self.counts.protected > 0 && self.offenders.is_empty()
    }
}

/// Judges connections, both directions of each.
pub fn judge<'a>(conversations: impl IntoIterator<Item = &'a Conversation>) -> Judgement {
    let mut judgement = Judgement::default();
    for conversation in conversations {
        let mut carried = false;
        for (direction, hello) in [(Direction::ToServer, Hello::Client), (Direction::ToClient, Hello::Server)]
        {
            let stream = conversation.stream(direction);
            carried |= !stream.bytes.is_empty() || stream.incomplete;
            match records(stream, hello) {
                Ok(counts) => judgement.counts.add(&counts),
                Err((offset, fault)) => judgement.offenders.push(Offender {
                    conversation: conversation.to_string(),
                    port: conversation.server.port(),
                    direction,
                    offset,
                    bytes: stream.bytes[offset..].iter().take(SHOWN).copied().collect(),
                    fault,
                }),
            }
        }
        if carried {
            judgement.conversations += 1;
        } else {
            judgement.empty += 1;
        }
    }
    judgement
}

/// Reads a stream to its end; an error is the offset and what is wrong there.
fn records(stream: &Stream, hello: Hello) -> Result<RecordCounts, (usize, Fault)> {
    let mut reader =
        Reader { counts: RecordCounts::default(), phase: Phase::Hello, hello: Vec::new(), side: hello };
    let mut at = 0;
    if stream.mid_stream && !starts_with_hello(&stream.bytes, hello) {
        at = join(&stream.bytes).ok_or((0, Fault::NoPlaceToJoin))?;
        reader.counts.before_join = at as u64;
        reader.phase = Phase::Protected;
    }
    while at < stream.bytes.len() {
        let rest = &stream.bytes[at..];
        let Some((kind, length)) = header(rest).map_err(|fault| (at, fault))? else {
            reader.counts.cut += rest.len() as u64;
            break;
        };
        let Some(payload) = rest.get(HEADER..HEADER + length) else {
            reader.clear_allowed(kind).map_err(|fault| (at, fault))?;
            reader.counts.cut += rest.len() as u64;
            break;
        };
        reader.record(kind, payload).map_err(|fault| (at, fault))?;
        at += HEADER + length;
        reader.counts.bytes += (HEADER + length) as u64;
    }
    if stream.incomplete {
        return Err((stream.bytes.len(), Fault::Unseen));
    }
    Ok(reader.counts)
}

/// Type and length of the record that begins here; none when its header is cut, and as far as it goes it must still be one.
fn header(rest: &[u8]) -> Result<Option<(u8, usize)>, Fault> {
    let kind = rest[0];
    let version = rest.get(1..3.min(rest.len())).unwrap_or_default();
    let known = (CHANGE_CIPHER_SPEC..=PROTECTED).contains(&kind);
    // Only the first hello may carry the older version, for the sake of old middle boxes.
    let right = version.iter().zip([3, 3]).all(|(read, expected)| *read == expected)
        || (kind == HANDSHAKE && version == [3, 1]);
    if !known || !right {
        return Err(Fault::NoRecord);
    }
    let Some(length) = rest.get(3..HEADER) else {
        return Ok(None);
    };
    let length = usize::from(length[0]) << 8 | usize::from(length[1]);
    let allowed = match kind {
        CHANGE_CIPHER_SPEC => length == 1,
        ALERT => length == 2,
        HANDSHAKE => (1..=LARGEST_CLEAR).contains(&length),
        _ => (SMALLEST_PROTECTED..=LARGEST_PROTECTED).contains(&length),
    };
    if allowed { Ok(Some((kind, length))) } else { Err(Fault::Length) }
}

fn starts_with_hello(bytes: &[u8], side: Hello) -> bool {
    bytes.len() > HEADER && bytes[0] == HANDSHAKE && bytes[1] == 3 && bytes[HEADER] == side.message_type()
}

/// The first place from which a stream goes on in protected records, as far as it was seen.
fn join(bytes: &[u8]) -> Option<usize> {
    if bytes.is_empty() {
        return Some(0);
    }
    (0..bytes.len().min(FURTHEST_JOIN)).find(|start| {
        let (mut at, mut headers) = (*start, 0);
        while at < bytes.len() {
            match header(&bytes[at..]) {
                Ok(Some((PROTECTED, length))) => at += HEADER + length,
                Ok(None) if headers > 0 => break,
                _ => return false,
            }
            headers += 1;
            if headers > JOIN_HEADERS {
                return true;
            }
        }
        // A short stream must end where a record does, or hold more headers than chance makes.
        headers >= JOIN_HEADERS || at == bytes.len()
    })
}

/// How far a stream has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its hello is not complete.
    Hello,
    /// Its hello is complete, nothing protected has come.
    Clear,
    /// An alert ended the handshake.
    Refused,
    /// Protected records have come.
    Protected,
}

struct Reader {
    counts: RecordCounts,
    phase: Phase,
    hello: Vec<u8>,
    side: Hello,
}

impl Reader {
    /// Whether a record of this type may come now.
    fn clear_allowed(&self, kind: u8) -> Result<(), Fault> {
        match (self.phase, kind) {
            (Phase::Hello, HANDSHAKE | ALERT) | (Phase::Clear | Phase::Protected, PROTECTED) => Ok(()),
            (Phase::Clear, HANDSHAKE | ALERT | CHANGE_CIPHER_SPEC) => Ok(()),
            (Phase::Hello | Phase::Refused, _) => Err(Fault::NoTls13Hello),
            (Phase::Clear | Phase::Protected, _) => Err(Fault::ClearAfterProtected),
        }
    }

    fn record(&mut self, kind: u8, payload: &[u8]) -> Result<(), Fault> {
        self.clear_allowed(kind)?;
        match kind {
            HANDSHAKE => return self.hello(payload),
            ALERT => {
                self.counts.clear_alerts += 1;
                self.phase = Phase::Refused;
            }
            CHANGE_CIPHER_SPEC => {
                if payload != [1] {
                    return Err(Fault::NoRecord);
                }
                self.counts.change_cipher_specs += 1;
            }
            _ => {
                self.counts.protected += 1;
                self.phase = Phase::Protected;
            }
        }
        Ok(())
    }

    /// A hello may be spread over several records, and a second one follows when the first was asked for again.
    fn hello(&mut self, payload: &[u8]) -> Result<(), Fault> {
        self.hello.extend_from_slice(payload);
        self.phase = Phase::Hello;
        match self.side.is_tls13(&self.hello) {
            Some(true) => {
                self.counts.hellos += 1;
                self.hello.clear();
                self.phase = Phase::Clear;
                Ok(())
            }
            Some(false) => Err(Fault::NoTls13Hello),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
