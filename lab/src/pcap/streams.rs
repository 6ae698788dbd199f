//! TCP connections put back together: each direction's bytes in order, and honesty about what was not seen.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;

use super::packet::{Segment, segment};
use crate::ignite::PORTS;

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the side that opened the connection.
    ToServer,
    /// From the side that accepted it.
    ToClient,
}

/// One direction of a connection.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The bytes in order, up to the first that was not seen.
    pub bytes: Vec<u8>,
    /// Whether the capture began after the stream did: the first byte here is not its first.
    pub mid_stream: bool,
    /// Whether bytes are missing after those here: the capture lost a packet.
    pub incomplete: bool,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Who opened it.
    pub client: SocketAddr,
    /// Who accepted it.
    pub server: SocketAddr,
    /// What the client sent.
    pub to_server: Stream,
    /// What the server sent.
    pub to_client: Stream,
    /// Whether either side reset it.
    pub reset: bool,
}

impl Conversation {
    /// One direction's stream.
    pub fn stream(&self, direction: Direction) -> &Stream {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.client, self.server)
    }
}

/// Puts the connections among these Ethernet frames back together, in the order they were first seen.
///
/// A pair of addresses that is used again is a connection of its own. A connection whose opening was not seen is taken to be
/// served on the port of Ignite's among its two, else on the lower one.
pub fn reassemble<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Vec<Conversation> {
    let mut done = Vec::new();
    let mut latest: HashMap<(SocketAddr, SocketAddr), usize> = HashMap::new();
    for seen in frames.into_iter().filter_map(segment) {
        let opens = seen.syn && seen.acknowledged.is_none();
        let (client, server) = ends(&seen, opens, &latest);
        let known = latest.get(&(client, server)).copied();
        let index = match known {
            Some(index) if !opens || Assembly::is_retransmitted_syn(&done[index], &seen) => index,
            _ => {
                done.push(Assembly::new(client, server));
                latest.insert((client, server), done.len() - 1);
                done.len() - 1
            }
        };
        done[index].take(&seen);
    }
    done.into_iter().map(Assembly::finish).collect()
}

/// Client and server of a segment.
fn ends(
    seen: &Segment<'_>,
    opens: bool,
    latest: &HashMap<(SocketAddr, SocketAddr), usize>,
) -> (SocketAddr, SocketAddr) {
    let (forward, backward) = ((seen.source, seen.destination), (seen.destination, seen.source));
    if opens || latest.contains_key(&forward) {
        return forward;
    }
    if seen.syn || latest.contains_key(&backward) {
        return backward;
    }
    let serves = |end: SocketAddr| (!PORTS.contains(&end.port()), end.port());
    if serves(seen.destination) <= serves(seen.source) { forward } else { backward }
}

/// A connection while it is put together.
struct Assembly {
    client: SocketAddr,
    server: SocketAddr,
    to_server: Half,
    to_client: Half,
    reset: bool,
}

impl Assembly {
    fn new(client: SocketAddr, server: SocketAddr) -> Self {
        Self { client, server, to_server: Half::default(), to_client: Half::default(), reset: false }
    }

    fn is_retransmitted_syn(&self, seen: &Segment<'_>) -> bool {
        self.to_server.first == Some(seen.sequence.wrapping_add(1)) && !self.to_server.mid_stream
    }

    fn take(&mut self, seen: &Segment<'_>) {
        self.reset |= seen.rst;
        let (sent, other) = if seen.source == self.client {
            (&mut self.to_server, &mut self.to_client)
        } else {
            (&mut self.to_client, &mut self.to_server)
        };
        if !seen.rst {
            sent.take(seen);
        }
        if let Some(acknowledged) = seen.acknowledged {
            other.acknowledge(acknowledged);
        }
    }

    fn finish(self) -> Conversation {
        Conversation {
            client: self.client,
            server: self.server,
            to_server: self.to_server.finish(),
            to_client: self.to_client.finish(),
            reset: self.reset,
        }
    }
}

/// One direction while it is put together. Offsets count from the first byte.
#[derive(Default)]
struct Half {
    /// The sequence number of the byte at offset 0.
    first: Option<u32>,
    mid_stream: bool,
    bytes: Vec<u8>,
    /// What came before its turn, by offset.
    early: BTreeMap<usize, Vec<u8>>,
    /// How far the receiver says that it has read.
    acknowledged: usize,
    fin: bool,
}

impl Half {
    fn take(&mut self, seen: &Segment<'_>) {
        let start = if seen.syn { seen.sequence.wrapping_add(1) } else { seen.sequence };
        if self.first.is_none() {
            self.first = Some(start);
            self.mid_stream = !seen.syn;
        }
        self.fin |= seen.fin;
        let Some(offset) = self.offset(start) else {
            return; // before the first byte seen, as a keepalive in an idle stream is
        };
        if seen.payload.is_empty() {
            return;
        }
        self.early
            .entry(offset)
            .and_modify(|held| longer(held, seen.payload))
            .or_insert_with(|| seen.payload.to_vec());
        while let Some(next) = self.early.first_entry() {
            if *next.key() > self.bytes.len() {
                break;
            }
            let (offset, data) = next.remove_entry();
            let known = self.bytes.len() - offset;
            self.bytes.extend_from_slice(data.get(known..).unwrap_or_default());
        }
    }

    fn acknowledge(&mut self, number: u32) {
        if let Some(offset) = self.offset(number) {
            self.acknowledged = self.acknowledged.max(offset);
        }
    }

    /// The offset of a sequence number, which counts modulo 2^32, near the bytes read so far.
    fn offset(&self, number: u32) -> Option<usize> {
        let here = self.bytes.len();
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers count modulo 2^32")]
        let expected = self.first?.wrapping_add(here as u32);
        let ahead = number.wrapping_sub(expected).cast_signed();
        here.checked_add_signed(isize::try_from(ahead).ok()?)
    }

    fn finish(self) -> Stream {
        // The acknowledgement of a FIN counts one more than there are bytes.
        let unseen = self.acknowledged > self.bytes.len() + usize::from(self.fin);
        Stream {
            incomplete: !self.early.is_empty() || unseen,
            mid_stream: self.mid_stream,
            bytes: self.bytes,
        }
    }
}

fn longer(held: &mut Vec<u8>, payload: &[u8]) {
    if payload.len() > held.len() {
        *held = payload.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::{ACK, FIN, SYN, frame};
    use super::*;

    const CLIENT: (u8, u16) = (1, 40000);
    const SERVER: (u8, u16) = (2, 10800);

    fn conversations(frames: &[Vec<u8>]) -> Vec<Conversation> {
        reassemble(frames.iter().map(Vec::as_slice))
    }

    fn sent(sequence: u32, payload: &[u8]) -> Vec<u8> {
        frame(CLIENT, SERVER, (sequence, 0), 0, payload)
    }

    fn opening(sequence: u32) -> Vec<u8> {
        frame(CLIENT, SERVER, (sequence, 0), SYN, b"")
    }

    #[test]
    fn both_directions_come_out_in_order_and_the_opener_is_the_client() {
        let read = conversations(&[
            opening(100),
            frame(SERVER, CLIENT, (500, 101), SYN | ACK, b""),
            sent(101, b"hel"),
            frame(SERVER, CLIENT, (501, 104), ACK, b"good"),
            sent(104, b"lo"),
            frame(SERVER, CLIENT, (505, 106), FIN, b""),
        ]);
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].to_string(), "10.77.0.1:40000 -> 10.77.0.2:10800");
        assert_eq!(read[0].to_server.bytes, b"hello");
        assert_eq!(read[0].to_client.bytes, b"good");
        for stream in [&read[0].to_server, &read[0].to_client] {
            assert!(!stream.mid_stream && !stream.incomplete);
        }
    }

    #[test]
    fn disorder_retransmissions_overlaps_and_keepalives_change_nothing() {
        for (case, frames) in [
            ("disorder", vec![sent(104, b"lo"), sent(101, b"hel")]),
            ("retransmission", vec![sent(101, b"hel"), sent(101, b"hel"), sent(104, b"lo")]),
            ("overlap", vec![sent(101, b"hel"), sent(102, b"ello")]),
            ("longer retransmission", vec![sent(103, b"l"), sent(103, b"llo"), sent(101, b"he")]),
            ("keepalive", vec![sent(100, b""), sent(101, b"hello"), sent(105, b"o")]),
            ("repeated opening", vec![opening(100), sent(101, b"hello")]),
        ] {
            let read = conversations(&[vec![opening(100)], frames].concat());
            assert_eq!(read.len(), 1, "{case}");
            // "hel" and "lo" make "hello"; "hel" and an overlapping "ello" do too.
            assert_eq!(String::from_utf8_lossy(&read[0].to_server.bytes), "hello", "{case}");
            assert!(!read[0].to_server.incomplete, "{case}");
        }
    }

    #[test]
    fn sequence_numbers_wrap() {
        let read = conversations(&[opening(u32::MAX - 2), sent(u32::MAX - 1, b"hel"), sent(1, b"lo")]);
        assert_eq!(read[0].to_server.bytes, b"hello");
    }

    #[test]
    fn a_lost_packet_makes_the_stream_incomplete() {
        let hole = conversations(&[opening(100), sent(101, b"he"), sent(104, b"lo")]);
        assert_eq!(hole[0].to_server.bytes, b"he");
        assert!(hole[0].to_server.incomplete);
        let tail =
            conversations(&[opening(100), sent(101, b"he"), frame(SERVER, CLIENT, (500, 106), ACK, b"")]);
        assert!(tail[0].to_server.incomplete, "the server read more than was seen");
    }

    #[test]
    fn a_capture_that_begins_in_the_middle_says_so_and_finds_the_server_by_its_port() {
        let read = conversations(&[frame((2, 47500), (1, 33000), (9, 9), ACK, b"x"), sent(5, b"y")]);
        assert_eq!(read[0].server.port(), 47500);
        assert!(read[0].to_client.mid_stream);
        assert_eq!(read[1].server.port(), 10800);
        assert!(read[1].to_server.mid_stream);
    }

    #[test]
    fn a_port_used_again_is_a_new_connection() {
        let read = conversations(&[opening(100), sent(101, b"one"), opening(900), sent(901, b"two")]);
        let all: Vec<_> = read.iter().map(|each| each.to_server.bytes.as_slice()).collect();
        assert_eq!(all, [b"one", b"two"]);
    }
}
