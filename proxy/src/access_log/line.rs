//! The fields of a line, their order and how they are written.
//!
//! Text is `key=value`; a value is quoted, with everything unprintable escaped, unless it is made of
//! plain letters only, so that nothing a peer sends can look like a field or a line of its own.
//! What is not known is left out.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use ringmail_identity::SpiffeId;
use ringmail_process::pace::LeftOut;
use serde::{Serialize, Serializer};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::{
    reason::Reason,
    record::{Direction, Live},
};

/// Longer texts are cut: an identity may have 2048 bytes, an error may quote what a peer sent.
const MAX_TEXT: usize = 2048;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A value of a field.
enum Value {
    /// With its microseconds: most handshakes take less than one millisecond.
    Milliseconds(Duration),
    Number(u64),
    Text(String),
}

/// The line of one closed connection.
pub(super) struct Line {
    fields: Vec<(&'static str, Value)>,
}

impl Line {
    pub(super) fn new(live: &Live, reason: Reason, error: Option<&str>) -> Self {
        Self::at(SystemTime::now(), live.age(), live, reason, error)
    }

    /// The one place where fields are named and ordered.
    pub(super) fn at(
        now: SystemTime,
        age: Duration,
        live: &Live,
        reason: Reason,
        error: Option<&str>,
    ) -> Self {
        let mut line = Self { fields: Vec::with_capacity(24) };
        line.text_field("time", timestamp(now));
        line.number("id", live.id);
        line.text_field("direction", live.direction.as_str());
        line.text_field("reason", reason.as_str());
        line.text_field("side", reason.side().as_str());
        let inbound = live.direction == Direction::Inbound;
        line.end(&SOURCE, Some(live.source), live, inbound);
        line.end(&DESTINATION, live.destination.get().copied(), live, !inbound);
        line.text_field("protection", live.protection().as_str());
        line.optional("decided_by", live.decided_by.get().map(|origin| &**origin));
        line.number("bytes_sent", live.bytes.to_downstream());
        line.number("bytes_recv", live.bytes.from_downstream());
        line.number("duration_ms", milliseconds(age));
        if let Some(took) = live.handshake.get() {
            line.fields.push(("handshake_ms", Value::Milliseconds(*took)));
        }
        line.optional("peer.serial", live.peer_serial.get().map(String::as_str));
        line.optional("own.serial", live.own_serial.get().map(String::as_str));
        line.optional("error", error);
        line.optional("advice", reason.is_fault().then(|| reason.advice()));
        line
    }

    /// The line of those connections that have none of their own.
    pub(super) fn left_out(sum: &LeftOut) -> Self {
        let mut line = Self { fields: Vec::with_capacity(3) };
        line.text_field("time", timestamp(SystemTime::now()));
        line.number("left_out", sum.lines());
        line.text_field("reasons", sum.to_string());
        line
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(512);
        for (index, (key, value)) in self.fields.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            let _ = match value {
                Value::Milliseconds(took) => write!(text, "{separator}{key}={:.3}", fraction(*took)),
                Value::Number(number) => write!(text, "{separator}{key}={number}"),
                Value::Text(value) if is_plain(value) => write!(text, "{separator}{key}={value}"),
                Value::Text(value) => write!(text, "{separator}{key}={value:?}"),
            };
        }
        text
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn end(&mut self, keys: &Keys, address: Option<SocketAddr>, live: &Live, is_peer: bool) {
        if let Some(address) = address {
            self.text_field(keys.address, address.to_string());
        }
        let identity = if is_peer {
            let workload = live.peer_workload.get();
            self.optional(keys.workload, workload.map(|workload| workload.name.as_str()));
            self.optional(keys.namespace, workload.map(|workload| workload.namespace.as_str()));
            live.peer_identity.get()
        } else {
            live.own_identity.get()
        };
        self.optional(keys.identity, identity.map(SpiffeId::as_str));
    }

    fn optional(&mut self, key: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text_field(key, text);
        }
    }

    fn text_field(&mut self, key: &'static str, text: impl Into<String>) {
        let mut text = text.into();
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
        self.fields.push((key, Value::Text(text)));
    }

    fn number(&mut self, key: &'static str, number: u64) {
        self.fields.push((key, Value::Number(number)));
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.fields.iter().map(|(key, value)| (key, value)))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Milliseconds(took) => serializer.serialize_f64(fraction(*took)),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// The keys of one end.
struct Keys {
    address: &'static str,
    workload: &'static str,
    namespace: &'static str,
    identity: &'static str,
}

const SOURCE: Keys = Keys {
    address: "src.addr",
    workload: "src.workload",
    namespace: "src.namespace",
    identity: "src.identity",
};

const DESTINATION: Keys = Keys {
    address: "dst.addr",
    workload: "dst.workload",
    namespace: "dst.namespace",
    identity: "dst.identity",
};

fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@[]+%".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(TIME).unwrap_or_default()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds, exact to the microsecond.
#[expect(clippy::cast_precision_loss, reason = "a handshake of 285 years is not measured")]
fn fraction(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
