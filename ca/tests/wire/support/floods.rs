//! A client that floods HTTP/2, frame by frame: what no library would send.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

/// Longer than a server holds any of these.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a flood is poured where nobody ends it.
const POURED: Duration = Duration::from_secs(4);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// One kind of flood.
pub(crate) struct Flood {
    pub(crate) name: &'static str,
    /// How its connection ends: the label of the metric.
    pub(crate) end: &'static str,
    begins: bool,
    first: Vec<u8>,
    /// Rounds that are written at once, so that what is counted is the flood and not the writing.
    at_once: u32,
    /// One round of it.
    again: fn(u32) -> Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `POST /` over https, of HPACK's static table.
const POST: [u8; 3] = [0x83, 0x87, 0x84];

/// A header that no table has, with a value of 8 KiB.
fn long_header() -> Vec<u8> {
    let length = 8 * 1024 - 127;
    let integer = [0x7f, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
    [&[0x00, 1, b'x'][..], &integer, &[b'v'; 8 * 1024]].concat()
}

fn flood(name: &'static str, end: &'static str, first: Vec<u8>, again: fn(u32) -> Vec<u8>) -> Flood {
    Flood { name, end, begins: true, first, at_once: 50, again }
}

/// Every kind.
pub(crate) fn floods() -> Vec<Flood> {
    let opened = || frame(HEADERS, END_HEADERS, 1, &POST);
    vec![
        flood("streams that are reset at once", "http", Vec::new(), |round| {
            let stream = 2 * round + 1;
            [frame(HEADERS, END_HEADERS, stream, &POST), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())]
                .concat()
        }),
        flood("headers without an end", "http", frame(HEADERS, 0, 1, &POST), |_| {
            frame(CONTINUATION, 0, 1, &long_header())
        }),
        flood("empty continuations", "http", frame(HEADERS, 0, 1, &POST), |_| frame(CONTINUATION, 0, 1, &[])),
        Flood {
            at_once: 1,
            ..flood("a megabyte of headers", "http", Vec::new(), |round| {
                let stream = 2 * round + 1;
                let mut all = frame(HEADERS, 0, stream, &POST);
                (0..127).for_each(|_| all.extend(frame(CONTINUATION, 0, stream, &long_header())));
                [all, frame(CONTINUATION, END_HEADERS, stream, &long_header())].concat()
            })
        },
        flood("empty data", "http", opened(), |_| frame(DATA, 0, 1, &[])),
        flood("settings", "idle", Vec::new(), |_| frame(SETTINGS, 0, 0, &[])),
        flood("pings", "idle", Vec::new(), |_| frame(PING, 0, 0, &[7; 8])),
        Flood { begins: false, ..flood("half a preface", "idle", b"PRI * HT".to_vec(), |_| Vec::new()) },
    ]
}

impl Flood {
    /// Pours it into a connection, without ever reading, and waits for the server to end that. How many rounds it took.
    pub(crate) async fn pour<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> u32 {
        let until = Instant::now() + POURED;
        let mut first = Vec::new();
        if self.begins {
            first.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            first.extend(frame(SETTINGS, 0, 0, &[]));
        }
        first.extend(&self.first);
        let mut round = 0;
        let mut poured = stream.write_all(&first).await.is_ok();
        while poured && Instant::now() < until {
            let part: Vec<u8> = (round..round + self.at_once).flat_map(self.again).collect();
            round += self.at_once;
            if part.is_empty() {
                break;
            }
            poured = matches!(timeout_at(until, stream.write_all(&part)).await, Ok(Ok(())));
        }
        let end = Instant::now() + PATIENCE;
        let mut sink = vec![0; 64 * 1024];
        loop {
            match timeout_at(end, stream.read(&mut sink)).await {
                Ok(Ok(0) | Err(_)) => return round,
                Ok(Ok(_)) => {}
                Err(_) => panic!("{}: still open after {PATIENCE:?}", self.name),
            }
        }
    }
}
