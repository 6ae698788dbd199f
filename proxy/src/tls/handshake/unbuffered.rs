//! The handshake by rustls's unbuffered interface: it reads from memory and writes to memory, and at its end hands
//! out the keys.
//!
//! rustls is shown one record at a time. Whatever follows the last record of the handshake is then still sealed,
//! and the record layer's alone: no byte and no key update of the peer is ever half known to both.

use std::{io, mem};

use ringmail_identity::{PeerError, VerifiedPeer};
use rustls::{
    CommonState, Error, ExtractedSecrets, SupportedCipherSuite,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    super::{
        beginning::Beginning,
        record::{self, Schedule, Secrets, TrafficSecrets, take_secrets},
        stream::Agreed,
        verifier::take_verdict,
    },
    turn,
};
use crate::slab::GAP_BEFORE;

/// Bytes read at once: a flight with a hybrid key share and a chain of two fits.
const READ_LEN: usize = 4096;

/// What a peer may send in one flight: the longest message that rustls takes, in the smallest records that make
/// sense, and more only of what it has no use for.
const MAX_INCOMING: usize = 128 * 1024;

/// How a handshake failed, with what verification said if it ran.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: io::Error,
    /// Whether the peer speaks TLS, by how it began.
    pub(super) is_tls: bool,
    pub(super) verdict: Option<Result<VerifiedPeer, PeerError>>,
}

/// What a complete handshake gives.
pub(super) struct Complete {
    pub(super) secrets: Secrets,
    pub(super) agreed: Agreed,
    pub(super) verdict: Option<Result<VerifiedPeer, PeerError>>,
}

/// One side of a handshake.
pub(super) trait Side {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Whether rustls has something to be sent.
    fn wants_write(&self) -> bool;

    fn agreed(&self) -> (Option<SupportedCipherSuite>, Agreed);

    fn side(&self) -> record::Side;

    fn keys(self) -> Result<ExtractedSecrets, Error>;
}

macro_rules! side {
    ($connection:ty, $data:ty, $side:expr) => {
        impl Side for $connection {
            type Data = $data;

            fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, $data> {
                self.process_tls_records(incoming)
            }

            fn wants_write(&self) -> bool {
                CommonState::wants_write(self)
            }

            fn agreed(&self) -> (Option<SupportedCipherSuite>, Agreed) {
                let suite = self.negotiated_cipher_suite();
                let group = self.negotiated_key_exchange_group().map(|group| group.name());
                (suite, Agreed { suite: suite.map(|suite| suite.suite()), group })
            }

            fn side(&self) -> record::Side {
                $side
            }

            fn keys(self) -> Result<ExtractedSecrets, Error> {
                let (keys, _schedule) = self.dangerous_into_kernel_connection()?;
                Ok(keys)
            }
        }
    };
}

side!(UnbufferedClientConnection, ClientConnectionData, record::Side::Client);
side!(UnbufferedServerConnection, ServerConnectionData, record::Side::Server);

/// Does the handshake on `tcp`, whose first bytes are in `prefix`.
pub(super) async fn drive<S: Side>(
    tcp: &mut TcpStream,
    side: S,
    prefix: Vec<u8>,
) -> Result<Complete, Failure> {
    let mut beginning = Beginning::default();
    beginning.hear(&prefix);
    let mut driver = Driver {
        side,
        beginning,
        incoming: prefix,
        whole: 0,
        outgoing: Vec::new(),
        verdict: None,
        traffic: None,
    };
    match driver.shake(tcp).await {
        Ok(()) => driver.complete(),
        Err(error) => {
            driver.tell_failure(tcp).await;
            Err(Failure { error, is_tls: driver.beginning.is_tls(), verdict: driver.verdict })
        }
    }
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Done,
    Read,
}

struct Driver<S> {
    side: S,
    beginning: Beginning,
    incoming: Vec<u8>,
    /// How much of `incoming` rustls has seen as whole records.
    whole: usize,
    outgoing: Vec<u8>,
    verdict: Option<Result<VerifiedPeer, PeerError>>,
    traffic: Option<TrafficSecrets>,
}

impl<S: Side> Driver<S> {
    async fn shake(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        self.show_next_record();
        loop {
            let next = turn::taken(|| self.steps()).await.map_err(invalid)?;
            // As one, however many parts it was made in: each on its own would wake the peer for nothing.
            let flight = mem::take(&mut self.outgoing);
            tcp.write_all(&flight).await?;
            match next {
                Next::Done => return Ok(()),
                Next::Read if self.incoming.len() > MAX_INCOMING => {
                    return Err(invalid(Error::General("a flight of more than 128 KiB".to_owned())));
                }
                Next::Read => {
                    self.incoming.reserve(READ_LEN);
                    let had = self.incoming.len();
                    if tcp.read_buf(&mut self.incoming).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.beginning.hear(&self.incoming[had..]);
                    self.show_next_record();
                }
            }
        }
    }

    /// All that can be done with what has arrived, and what is to be done once the outcome has been sent.
    fn steps(&mut self) -> Result<Next, Error> {
        loop {
            match self.step()? {
                None => {}
                Some(Next::Read) if self.show_next_record() => {}
                Some(next) => return Ok(next),
            }
        }
    }

    /// Shows rustls what it may see, and does what it asks for; none where it is to be asked again.
    fn step(&mut self) -> Result<Option<Next>, Error> {
        let shown = shown(&self.incoming, self.whole);
        let UnbufferedStatus { discard, state } = self.side.process(&mut self.incoming[..shown]);
        let next = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut self.outgoing, |room| data.encode(room)).map(|()| None)
            }
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                // It is, before anything is waited for.
                sent.done();
                Ok(None)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Some(Next::Read)),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Some(Next::Done)),
            Ok(state) => Err(Error::General(format!("{state:?} within a handshake"))),
            Err(error) => Err(error),
        };
        self.incoming.drain(..discard);
        self.whole = self.whole.saturating_sub(discard);
        if let Some(fresh) = take_verdict() {
            self.verdict = Some(fresh);
        }
        if let Some(fresh) = take_secrets() {
            self.traffic = Some(fresh);
        }
        next
    }

    /// Lets rustls see one more whole record, if one is there.
    fn show_next_record(&mut self) -> bool {
        let next = record_end(&self.incoming, self.whole).filter(|end| *end <= self.incoming.len());
        self.whole = next.unwrap_or(self.whole);
        next.is_some()
    }

    fn complete(self) -> Result<Complete, Failure> {
        let Self { side, mut incoming, verdict, traffic, .. } = self;
        let (suite, agreed) = side.agreed();
        let limit =
            suite.and_then(|suite| suite.tls13()).map_or(0, |suite| suite.common.confidentiality_limit);
        incoming.shrink_to_fit();
        let schedule = Schedule::new(agreed.suite, side.side(), traffic.unwrap_or_default());
        match (side.keys(), schedule) {
            (Ok(keys), Ok(schedule)) => {
                Ok(Complete { secrets: Secrets { keys, schedule, limit, rest: incoming }, agreed, verdict })
            }
            (Err(error), _) => Err(Failure { error: invalid(error), is_tls: true, verdict }),
            (_, Err(error)) => Err(Failure { error: io::Error::other(error), is_tls: true, verdict }),
        }
    }

    /// Sends the alert that rustls has for the peer, if it has one, behind what it had said before; whether it arrives
    /// is not waited for.
    async fn tell_failure(&mut self, tcp: &mut TcpStream) {
        // Asked only while there is something: rustls would otherwise read on behind its own failure.
        while self.side.wants_write() && self.step().is_ok() {}
        if !self.outgoing.is_empty() {
            let _ = tcp.try_write(&self.outgoing);
        }
    }
}

/// How much of `incoming` rustls is shown: the whole records it was let to see, and of one that is not whole yet
/// as much as there is, so that it can tell at once that it will never be one.
fn shown(incoming: &[u8], whole: usize) -> usize {
    match record_end(incoming, whole) {
        Some(end) if end <= incoming.len() => whole,
        Some(_) | None => incoming.len(),
    }
}

/// Where the record that starts at `from` ends; `None` while its header is not whole.
fn record_end(incoming: &[u8], from: usize) -> Option<usize> {
    let header = incoming.get(from..from + GAP_BEFORE)?;
    Some(from + GAP_BEFORE + usize::from(u16::from_be_bytes([header[3], header[4]])))
}

fn encode(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), Error> {
    let from = outgoing.len();
    let written = match encode(&mut []) {
        Err(EncodeError::InsufficientSize(needed)) => {
            outgoing.resize(from + needed.required_size, 0);
            encode(&mut outgoing[from..])
        }
        written => written,
    };
    let written = written.map_err(|error| Error::General(error.to_string()))?;
    outgoing.truncate(from + written);
    Ok(())
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
