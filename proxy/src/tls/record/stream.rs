//! The record layer on a socket: reads that are as large as what has arrived, writes that are one run.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    task::{Context, Poll, ready},
};

use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use tokio::net::TcpStream;

use super::{content::RecordError, key::Key, receive::Receiver, schedule::Schedule, seal::Sealer};
use crate::{
    copy::socket,
    slab::{Size, Slab},
};

/// What a handshake leaves behind.
pub(in crate::tls) struct Secrets {
    /// Both directions' keys, with the numbers of their next records.
    pub(in crate::tls) keys: ExtractedSecrets,
    /// The key schedule.
    pub(in crate::tls) schedule: Schedule,
    /// Records that one key may seal.
    pub(in crate::tls) limit: u64,
    /// What arrived behind the handshake.
    pub(in crate::tls) rest: Vec<u8>,
}

/// A connection sealed by this record layer.
#[derive(Debug)]
pub struct RecordStream {
    tcp: TcpStream,
    receiver: Receiver,
    sealer: Sealer,
    schedule: Schedule,
    /// Sealed and not yet sent.
    unsent: Slab,
    /// Sealed after `unsent`.
    alert: Vec<u8>,
}

impl RecordStream {
    /// Seals and opens with what a handshake left. The socket is given back where its keys are none of ours.
    pub(in crate::tls) fn new(tcp: TcpStream, secrets: Secrets) -> Result<Self, (RecordError, TcpStream)> {
        let Secrets { keys, schedule, limit, rest } = secrets;
        let key = |(sequence, secrets): (u64, ConnectionTrafficSecrets)| Key::new(&secrets, sequence);
        let (opening, sealing) = match (key(keys.rx), key(keys.tx)) {
            (Ok(opening), Ok(sealing)) => (opening, sealing),
            (Err(error), _) | (_, Err(error)) => return Err((error, tcp)),
        };
        Ok(Self {
            tcp,
            receiver: Receiver::new(opening, rest),
            sealer: Sealer::new(sealing, limit),
            schedule,
            unsent: Slab::default(),
            alert: Vec::new(),
        })
    }

    /// Reads plaintext: a slab without any means that the peer's application ended.
    ///
    /// # Errors
    /// `UnexpectedEof` where the stream was cut; `InvalidData` with a [`RecordError`] for an alert and for what is
    /// no record; the socket's own.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<io::Result<Slab>> {
        loop {
            if let Some(error) = self.receiver.failed() {
                return Poll::Ready(Err(self.refused(error, cx)));
            }
            if self.receiver.ended() {
                return Poll::Ready(Ok(Slab::default()));
            }
            let mut slab = self.receiver.slab(size);
            let mut read = 0;
            if let Some(room) = self.receiver.room(&mut slab) {
                let all = room.len();
                read = match ready!(socket::poll_read(&self.tcp, cx, room))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    read => read,
                };
                slab.set_full(read == all);
            }
            self.receiver.arrived(&mut slab, read, &mut self.schedule);
            if self.receiver.wants_key_update() {
                self.sealer.update_key();
            }
            if !slab.is_empty() {
                return Poll::Ready(Ok(slab));
            }
        }
    }

    /// Tells the peer what it did wrong, as far as that can be said at once, and the caller the same.
    fn refused(&mut self, error: RecordError, cx: &mut Context<'_>) -> io::Error {
        if let Some(Ok(alert)) = error.alert().map(|alert| self.sealer.fatal(alert)) {
            self.alert.extend_from_slice(&alert);
            // Whether it leaves is not the point any more: the reason stands.
            let _ = self.poll_flush(cx);
        }
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    /// Seals all of the slab once what was sealed before has left, and sends what the socket takes of it at once.
    ///
    /// # Errors
    /// The socket's own; `InvalidData` where no key is left to seal with.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slab: &mut Slab) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let plaintext = slab.len();
        let sealed = self.sealer.seal(slab, &mut self.schedule);
        sealed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.unsent = std::mem::take(slab);
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(plaintext)),
        }
    }

    /// Puts everything sealed on the wire.
    ///
    /// # Errors
    /// The socket's own.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = ready!(socket::poll_write(&self.tcp, cx, &self.unsent))?;
            self.unsent.advance(written);
        }
        self.unsent = Slab::default();
        while !self.alert.is_empty() {
            let written = ready!(socket::poll_write_bytes(&self.tcp, cx, &self.alert))?;
            self.alert.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Seals that this side's application ended; [`Self::poll_flush`] sends it.
    ///
    /// # Errors
    /// [`RecordError::Key`].
    pub(in crate::tls) fn say_goodbye(&mut self) -> Result<(), RecordError> {
        let goodbye = self.sealer.goodbye()?;
        self.alert.extend_from_slice(&goodbye);
        Ok(())
    }

    /// Gives back what can be made again, while nothing is said.
    pub(in crate::tls) fn rest(&mut self) {
        self.receiver.rest();
        self.sealer.rest();
    }

    /// Whether the peer said that its application ended.
    pub(in crate::tls) fn ended(&self) -> bool {
        self.receiver.ended()
    }

    pub(in crate::tls) fn socket(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }

    pub(in crate::tls) fn into_parts(self) -> (TcpStream, Sealer) {
        (self.tcp, self.sealer)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use aws_lc_rs::aead::AES_128_GCM;
    use rustls::CipherSuite;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::{
        super::{
            content::APPLICATION_DATA,
            key::OVERHEAD,
            schedule::{Side, TrafficSecrets},
        },
        *,
    };

    /// Of a connection that talks, which keeps what was made of its keys.
    fn sealer() -> Sealer {
        Sealer::new(key(), u64::MAX)
    }

    fn key() -> Key {
        Key::of(&AES_128_GCM, &[7; 16], &[9; 12], 100).unwrap()
    }

    /// One that has heard `rest`, and its peer.
    async fn stream(rest: Vec<u8>) -> (RecordStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let suite = Some(CipherSuite::TLS13_AES_128_GCM_SHA256);
        let stream = RecordStream {
            tcp,
            receiver: Receiver::new(key(), rest),
            sealer: sealer(),
            schedule: Schedule::new(suite, Side::Server, TrafficSecrets::default()).unwrap(),
            unsent: Slab::default(),
            alert: Vec::new(),
        };
        (stream, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_read_that_fills_its_slab_says_so_and_a_shorter_one_does_not() {
        for (records, full) in [(1, false), (8, true)] {
            let (mut stream, mut peer) = stream(Vec::new()).await;
            let (mut key, mut wire) = (key(), Vec::new());
            for _ in 0..records {
                let mut record = vec![0; 10_000 + OVERHEAD];
                key.seal(APPLICATION_DATA, &mut record).unwrap();
                wire.extend_from_slice(&record);
            }
            peer.write_all(&wire).await.unwrap();
            let slab = poll_fn(|cx| stream.poll_fill(cx, Size::Small)).await.unwrap();
            assert_eq!((slab.len(), slab.is_full()), (10_000, full), "of {records} records");
        }
    }

    #[tokio::test]
    async fn at_rest_neither_direction_holds_what_was_made_of_its_key() {
        let (mut stream, _peer) = stream(sealer().goodbye().unwrap()).await;
        assert!(poll_fn(|cx| stream.poll_fill(cx, Size::Small)).await.unwrap().is_empty());
        stream.say_goodbye().unwrap();
        let awake = |stream: &RecordStream| format!("{stream:?}").matches("at_rest: false").count();
        assert_eq!(awake(&stream), 2);
        stream.rest();
        assert_eq!(awake(&stream), 0);
    }
}
