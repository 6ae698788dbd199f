//! The grammar of SPIFFE IDs and trust domains, on bytes.
//!
//! Nothing is decoded, folded or normalised: an ID that is not already in its one form is refused, so
//! equality of IDs is equality of bytes. Every way to be wrong has a fault of its own, because the
//! fault becomes the reason in an operator's log.

use crate::text::quoted;

/// Longest SPIFFE ID in bytes: the SPIFFE-ID standard (section 2.3) requires support up to 2048 and
/// advises against more.
pub const MAX_SPIFFE_ID_LEN: usize = 2048;
/// Longest trust domain in bytes: the limit of a URI's host name (SPIFFE-ID standard, section 2.3).
pub const MAX_TRUST_DOMAIN_LEN: usize = 255;

const SCHEME: &[u8] = b"spiffe://";

/// A text that is not what it should be: a SPIFFE ID, a trust domain or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {read}: {fault}")]
pub struct IdError {
    what: &'static str,
    read: String,
    fault: IdFault,
}

impl IdError {
    pub(crate) fn new(what: &'static str, read: &[u8], fault: IdFault) -> Self {
        Self { what, read: quoted(read), fault }
    }

    /// What is wrong with it.
    pub fn fault(&self) -> IdFault {
        self.fault
    }
}

/// What is wrong with a SPIFFE ID, a trust domain or a part of one. `at` counts bytes from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdFault {
    /// A control character, NUL included.
    #[error("control character 0x{byte:02x} at byte {at}")]
    ControlByte {
        /// The byte read.
        byte: u8,
        /// Where.
        at: usize,
    },
    /// A path segment `.` or `..`.
    #[error("a path segment is `.` or `..`")]
    DotSegment,
    /// Two slashes in a row, or an empty namespace or service account.
    #[error("a path segment is empty")]
    EmptySegment,
    /// No trust domain.
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    /// Printable ASCII that the grammar does not allow there.
    #[error("character {:?} at byte {at} is outside the grammar", char::from(*byte))]
    ForbiddenByte {
        /// The byte read.
        byte: u8,
        /// Where.
        at: usize,
    },
    /// A fragment.
    #[error("`#` at byte {at}: an id has no fragment")]
    Fragment {
        /// Where.
        at: usize,
    },
    /// No path: the ID of a trust domain, which no workload may carry.
    #[error("no path: that is a trust domain's id and no workload's")]
    NoPath,
    /// A byte outside ASCII.
    #[error("byte 0x{byte:02x} at {at} is not ascii")]
    NotAscii {
        /// The byte read.
        byte: u8,
        /// Where.
        at: usize,
    },
    /// Another scheme.
    #[error("does not begin with `spiffe://` in lower case")]
    NotSpiffe,
    /// Percent-encoding, which is never decoded.
    #[error("`%` at byte {at}: percent-encoding is not allowed")]
    PercentEncoding {
        /// Where.
        at: usize,
    },
    /// A port.
    #[error("the trust domain carries a port")]
    Port,
    /// A query.
    #[error("`?` at byte {at}: an id has no query")]
    Query {
        /// Where.
        at: usize,
    },
    /// More than [`MAX_SPIFFE_ID_LEN`] bytes.
    #[error("{len} bytes, at most {MAX_SPIFFE_ID_LEN} are allowed")]
    TooLong {
        /// Bytes read.
        len: usize,
    },
    /// A slash at the end.
    #[error("the path ends with a slash")]
    TrailingSlash,
    /// More than [`MAX_TRUST_DOMAIN_LEN`] bytes.
    #[error("trust domain of {len} bytes, at most {MAX_TRUST_DOMAIN_LEN} are allowed")]
    TrustDomainTooLong {
        /// Bytes read.
        len: usize,
    },
    /// An upper-case letter in the trust domain.
    #[error("upper-case letter at byte {at} of a trust domain")]
    UpperCase {
        /// Where.
        at: usize,
    },
    /// User information before the trust domain.
    #[error("the trust domain carries user information")]
    UserInfo,
    /// A wildcard: an ID names one workload.
    #[error("`*` at byte {at}: an id has no wildcards")]
    Wildcard {
        /// Where.
        at: usize,
    },
}

/// Checks a whole ID and answers the offset at which its path, slash included, begins.
pub(crate) fn check_id(id: &[u8]) -> Result<usize, IdFault> {
    if id.len() > MAX_SPIFFE_ID_LEN {
        return Err(IdFault::TooLong { len: id.len() });
    }
    let rest = id.strip_prefix(SCHEME).ok_or(IdFault::NotSpiffe)?;
    let authority_len = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    check_trust_domain(&rest[..authority_len], SCHEME.len())?;
    let path_at = SCHEME.len() + authority_len;
    check_path(&id[path_at..], path_at)?;
    Ok(path_at)
}

/// Checks a trust domain that begins `offset` bytes into the text read.
pub(crate) fn check_trust_domain(name: &[u8], offset: usize) -> Result<(), IdFault> {
    if name.is_empty() {
        return Err(IdFault::EmptyTrustDomain);
    }
    if name.contains(&b'@') {
        return Err(IdFault::UserInfo);
    }
    if name.contains(&b':') {
        return Err(IdFault::Port);
    }
    if name.len() > MAX_TRUST_DOMAIN_LEN {
        return Err(IdFault::TrustDomainTooLong { len: name.len() });
    }
    for (at, byte) in (offset..).zip(name.iter().copied()) {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {}
            b'A'..=b'Z' => return Err(IdFault::UpperCase { at }),
            _ => return Err(forbidden(byte, at)),
        }
    }
    Ok(())
}

/// Checks one segment of a path that begins `offset` bytes into the text read.
pub(crate) fn check_segment(segment: &[u8], offset: usize) -> Result<(), IdFault> {
    for (at, byte) in (offset..).zip(segment.iter().copied()) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {}
            _ => return Err(forbidden(byte, at)),
        }
    }
    match segment {
        b"" => Err(IdFault::EmptySegment),
        b"." | b".." => Err(IdFault::DotSegment),
        _ => Ok(()),
    }
}

fn check_path(path: &[u8], offset: usize) -> Result<(), IdFault> {
    let Some(segments) = path.strip_prefix(b"/") else {
        // The authority ends at a slash, a query, a fragment or the end: a slash is the one good way.
        return Err(path.first().map_or(IdFault::NoPath, |byte| forbidden(*byte, offset)));
    };
    let mut at = offset + 1;
    for segment in segments.split(|byte| *byte == b'/') {
        let is_last = at + segment.len() == offset + path.len();
        if segment.is_empty() && is_last {
            return Err(IdFault::TrailingSlash);
        }
        check_segment(segment, at)?;
        at += segment.len() + 1;
    }
    Ok(())
}

fn forbidden(byte: u8, at: usize) -> IdFault {
    match byte {
        b'%' => IdFault::PercentEncoding { at },
        b'*' => IdFault::Wildcard { at },
        b'?' => IdFault::Query { at },
        b'#' => IdFault::Fragment { at },
        0..=0x1f | 0x7f => IdFault::ControlByte { byte, at },
        0x80.. => IdFault::NotAscii { byte, at },
        _ => IdFault::ForbiddenByte { byte, at },
    }
}
