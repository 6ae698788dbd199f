//! Ignite's own bytes, as anyone on the network reads them where there is no mesh.

use std::fmt;

use super::streams::{Conversation, Direction, Stream};

/// What opens every handshake between nodes.
const MAGIC: [u8; 4] = [0, 0, b'G', b'G'];
/// What opens a stream of serialised Java objects.
const JAVA_OBJECTS: [u8; 4] = [0xac, 0xed, 0, 5];
/// The package that the names of Ignite's classes begin with.
const CLASS_NAME: &[u8] = b"org.apache.ignite";
/// The type of the message with which a node names itself, followed by its 16 bytes.
const NODE_ID: [u8; 2] = [0xff, 0xff];
/// How far into a stream its opening is looked for.
const OPENING: usize = 64;
/// The longest handshake of a thin client that is looked for: one with a user's name and attributes.
const LONGEST_THIN_HANDSHAKE: usize = 4096;

/// What was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IgniteMark {
    /// `00 00 47 47`, with which a node opens a connection to another.
    Magic,
    /// `ac ed 00 05`, serialised Java objects.
    JavaObjects,
    /// `ff ff` and a node's id, with which a server opens on 47100.
    NodeId,
    /// The handshake of a thin client, of JDBC or of ODBC.
    ThinHandshake,
    /// A request to REST over HTTP.
    HttpRequest,
    /// The name of one of Ignite's classes.
    ClassName,
}

impl fmt::Display for IgniteMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magic => "00 00 47 47",
            Self::JavaObjects => "java objects",
            Self::NodeId => "node id",
            Self::ThinHandshake => "thin handshake",
            Self::HttpRequest => "http request",
            Self::ClassName => "class name",
        })
    }
}

/// Where it was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub mark: IgniteMark,
    /// The connection.
    pub conversation: String,
    /// Its server's port.
    pub port: u16,
    /// Which way it went.
    pub direction: Direction,
    /// Where in the stream.
    pub offset: usize,
}

/// Everything of Ignite's that shows in these connections.
pub fn find_ignite_bytes<'a>(conversations: impl IntoIterator<Item = &'a Conversation>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for conversation in conversations {
        for direction in [Direction::ToServer, Direction::ToClient] {
            for (mark, offset) in marks(conversation.stream(direction), direction) {
                findings.push(Finding {
                    mark,
                    conversation: conversation.to_string(),
                    port: conversation.server.port(),
                    direction,
                    offset,
                });
            }
        }
    }
    findings
}

/// Short patterns count where a stream begins, since chance makes them elsewhere; the name of a class counts anywhere.
fn marks(stream: &Stream, direction: Direction) -> Vec<(IgniteMark, usize)> {
    let bytes = &stream.bytes;
    let opening = &bytes[..bytes.len().min(OPENING)];
    let mut found = Vec::new();
    let mut note = |mark, place: Option<usize>| found.extend(place.map(|offset| (mark, offset)));
    note(IgniteMark::ClassName, position(bytes, CLASS_NAME));
    if !stream.mid_stream {
        note(IgniteMark::Magic, position(opening, &MAGIC));
        note(IgniteMark::JavaObjects, position(opening, &JAVA_OBJECTS));
        let at_start = |yes: bool| yes.then_some(0);
        match direction {
            Direction::ToClient => note(IgniteMark::NodeId, at_start(opens_with_node_id(bytes))),
            Direction::ToServer => {
                note(IgniteMark::ThinHandshake, at_start(opens_with_thin_handshake(bytes)));
                note(IgniteMark::HttpRequest, at_start(bytes.starts_with(b"GET /ignite")));
            }
        }
    }
    found
}

fn opens_with_node_id(bytes: &[u8]) -> bool {
    bytes.len() >= 18 && bytes.starts_with(&NODE_ID) && bytes[2..18].iter().any(|byte| *byte != 0xff)
}

/// A length, the code 1, the version of the protocol, and the kind of client.
fn opens_with_thin_handshake(bytes: &[u8]) -> bool {
    let [length @ .., 1, 1, 0, _, 0, _, 0, 0..=2] = bytes.get(..12).unwrap_or_default() else {
        return false;
    };
    let length = length.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    (8..=LONGEST_THIN_HANDSHAKE).contains(&length)
}

fn position(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8], direction: Direction) -> Vec<IgniteMark> {
        let stream = Stream { bytes: bytes.to_vec(), ..Stream::default() };
        marks(&stream, direction).into_iter().map(|(mark, _)| mark).collect()
    }

    #[test]
    fn each_protocol_is_recognised_by_its_opening() {
        let node_id = [&[0xff, 0xff], &[0x84; 16][..]].concat();
        let thin = [22, 0, 0, 0, 1, 1, 0, 7, 0, 0, 0, 2, 9, 0, 0, 0];
        let deep = [&[7; 9000], CLASS_NAME].concat();
        for (bytes, direction, expected) in [
            (
                b"\0\0GG\xac\xed\0\x05".as_slice(),
                Direction::ToServer,
                vec![IgniteMark::Magic, IgniteMark::JavaObjects],
            ),
            (&node_id, Direction::ToClient, vec![IgniteMark::NodeId]),
            (&node_id, Direction::ToServer, vec![]),
            (&thin, Direction::ToServer, vec![IgniteMark::ThinHandshake]),
            (b"GET /ignite?cmd=version", Direction::ToServer, vec![IgniteMark::HttpRequest]),
            (&deep, Direction::ToClient, vec![IgniteMark::ClassName]),
            (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0], Direction::ToServer, vec![]),
        ] {
            assert_eq!(found(bytes, direction), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn short_patterns_do_not_count_deep_in_a_stream() {
        assert_eq!(found(&[&[7; 200], &MAGIC[..]].concat(), Direction::ToServer), []);
    }
}
