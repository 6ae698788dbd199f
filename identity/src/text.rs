//! How errors show what a peer sent: times as dates, bytes quoted, escaped and cut short, so that a
//! certificate can neither forge a log line nor flood the log.

use rustls_pki_types::UnixTime;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Bytes of a peer's text that an error shows: enough for any ID in use, little enough for one log line.
const MAX_SHOWN_LEN: usize = 160;

/// The bytes between double quotes, everything but printable ASCII escaped, cut after [`MAX_SHOWN_LEN`].
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MAX_SHOWN_LEN)];
    match bytes.len() - shown.len() {
        0 => format!("\"{}\"", shown.escape_ascii()),
        cut => format!("\"{}\" and {cut} bytes more", shown.escape_ascii()),
    }
}

/// Lower-case hex digits, two for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The time as a date of RFC 3339, or as seconds since 1970 where the calendar ends before it.
pub(crate) fn utc(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} s after 1970", time.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn quoted_text_is_printable_ascii_on_one_line_and_short() {
        assert_eq!(quoted(b"a\n\0\"\xff"), "\"a\\n\\x00\\\"\\xff\"");
        let long = quoted(&[b'a'; 4096]);
        assert!(long.ends_with("and 3936 bytes more"), "{long}");
        assert!(long.len() < 200);
    }

    #[test]
    fn times_are_shown_as_dates_and_never_fail() {
        assert_eq!(utc(UnixTime::since_unix_epoch(Duration::from_secs(86_400))), "1970-01-02T00:00:00Z");
        assert!(utc(UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX))).ends_with("s after 1970"));
    }
}
