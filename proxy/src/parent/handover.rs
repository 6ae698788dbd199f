//! What the parent and a data plane say to each other over their socket pair.
//!
//! The parent speaks once: the listening sockets (as `SCM_RIGHTS` with the first bytes), who it is, how
//! often it has started a data plane again, the text of the configuration it bound the sockets by, and
//! what the last data plane left: its credentials, and what discovery had said. The data plane then sends either
//! after each change. Everything is a frame: four bytes of length, big-endian, and that many bytes; what the data plane
//! sends begins with a byte that says which it is.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    net::TcpListener,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, sendmsg},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{listen::Sockets, sys::adopt_fd};

/// Bytes of a frame. The largest is what discovery has said of as many addresses as may be asked for, with what
/// stands behind services.
const MAX_FRAME: usize = 16 * 1024 * 1024;
/// Listening sockets: six ports of two families are twelve. The kernel's own bound is 253.
const MAX_SOCKETS: usize = 64;

/// The kinds of sockets, in the order in which they cross.
const KINDS: usize = 6;

/// The parent's words that are no secret.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// The parent's process ID, by which the data plane knows that it is not an orphan.
    pub(crate) parent: i32,
    /// How often a data plane was started again.
    pub(crate) restarts: u64,
    /// The configuration file's text as the parent read it.
    pub(crate) config: String,
    /// How many sockets of each kind follow.
    sockets: [usize; KINDS],
}

/// Everything a data plane is given at its start.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) greeting: Greeting,
    pub(crate) sockets: Sockets,
    /// The credentials that the last data plane left.
    pub(crate) credentials: Option<Zeroizing<Vec<u8>>>,
    /// What discovery had said to it.
    pub(crate) discovery: Option<Zeroizing<Vec<u8>>>,
}

/// What a data plane leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Left {
    Credentials = 1,
    Discovery = 2,
}

/// The last of each that a data plane left, as its frame came: the parent does not look into them.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    credentials: Option<Zeroizing<Vec<u8>>>,
    discovery: Option<Zeroizing<Vec<u8>>>,
}

impl Kept {
    pub(crate) fn of(&self, left: Left) -> Option<&[u8]> {
        let frame = match left {
            Left::Credentials => &self.credentials,
            Left::Discovery => &self.discovery,
        };
        frame.as_ref()?.get(1..)
    }

    fn put(&mut self, frame: Zeroizing<Vec<u8>>) -> io::Result<()> {
        let place = match frame.first() {
            Some(byte) if *byte == Left::Credentials as u8 => &mut self.credentials,
            Some(byte) if *byte == Left::Discovery as u8 => &mut self.discovery,
            other => {
                let text = format!("frame that begins with {other:?}, expected 1 or 2");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        };
        *place = Some(frame);
        Ok(())
    }
}

/// Why a data plane cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The socket pair failed or ended early.
    #[error("socket pair with the parent: {0}")]
    Io(#[from] io::Error),
    /// The greeting cannot be read.
    #[error("greeting of the parent: {0}")]
    Greeting(#[from] serde_json::Error),
    /// Other sockets came than were announced.
    #[error("sockets of the parent: {got} came, expected {expected}")]
    Sockets {
        /// How many came.
        got: usize,
        /// How many were announced.
        expected: usize,
    },
}

impl Greeting {
    pub(crate) fn new(parent: i32, restarts: u64, config: String, sockets: &Sockets) -> Self {
        let sockets = kinds(sockets).map(|kind| kind.len());
        Self { parent, restarts, config, sockets }
    }
}

fn kinds(sockets: &Sockets) -> [&Vec<TcpListener>; KINDS] {
    let Sockets { outbound, inbound, admin, stats, health, linkerd } = sockets;
    [outbound, inbound, admin, stats, health, linkerd]
}

/// The parent's side: says everything once.
pub(crate) fn greet(
    mut stream: &UnixStream,
    greeting: &Greeting,
    sockets: &Sockets,
    kept: &Kept,
) -> io::Result<()> {
    let text = serde_json::to_vec(greeting)?;
    let fds: Vec<RawFd> = kinds(sockets).into_iter().flatten().map(|listener| listener.as_raw_fd()).collect();
    let len = frame_len(text.len())?;
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&len)],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    stream.write_all(&len[sent..])?;
    stream.write_all(&text)?;
    for left in [Left::Credentials, Left::Discovery] {
        let bytes = kept.of(left).unwrap_or_default();
        stream.write_all(&frame_len(bytes.len())?)?;
        stream.write_all(bytes)?;
    }
    Ok(())
}

/// The data plane's side: leaves something with the parent, in the place of what it left before.
pub(crate) fn leave(mut stream: &UnixStream, left: Left, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(&frame_len(bytes.len() + 1)?)?;
    stream.write_all(&[left as u8])?;
    stream.write_all(bytes)
}

fn frame_len(len: usize) -> io::Result<[u8; 4]> {
    match u32::try_from(len) {
        Ok(short) if len <= MAX_FRAME => Ok(short.to_be_bytes()),
        Ok(_) | Err(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("frame of {len} bytes, expected at most {MAX_FRAME}"),
        )),
    }
}

/// The data plane's side: takes over. Blocks until the parent has spoken.
pub(crate) fn take_over(mut stream: &UnixStream) -> Result<Handover, HandoverError> {
    let (len, fds) = receive_len(stream)?;
    let text = read_body(stream, len)?;
    let greeting: Greeting = serde_json::from_slice(&text)?;
    let mut frame = || {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let body = read_body(stream, len)?;
        io::Result::Ok((!body.is_empty()).then_some(body))
    };
    let (credentials, discovery) = (frame()?, frame()?);
    let sockets = sort(&greeting, fds)?;
    Ok(Handover { greeting, sockets, credentials, discovery })
}

fn receive_len(mut stream: &UnixStream) -> io::Result<([u8; 4], Vec<OwnedFd>)> {
    let mut len = [0; 4];
    let mut control = nix::cmsg_space!([RawFd; MAX_SOCKETS]);
    let mut fds = Vec::new();
    let received = {
        let mut into = [IoSliceMut::new(&mut len)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut into, Some(&mut control), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                fds.extend(received.into_iter().map(adopt_fd));
            }
        }
        message.bytes
    };
    if received == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.read_exact(&mut len[received..])?;
    Ok((len, fds))
}

fn read_body(mut stream: &UnixStream, len: [u8; 4]) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut body = Zeroizing::new(vec![0; checked_len(len)?]);
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn checked_len(len: [u8; 4]) -> io::Result<usize> {
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME {
        let text = format!("frame of {len} bytes, expected at most {MAX_FRAME}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(len)
}

fn sort(greeting: &Greeting, fds: Vec<OwnedFd>) -> Result<Sockets, HandoverError> {
    let expected = greeting.sockets.iter().sum();
    if fds.len() != expected {
        return Err(HandoverError::Sockets { got: fds.len(), expected });
    }
    let mut fds = fds.into_iter().map(TcpListener::from);
    let [outbound, inbound, admin, stats, health, linkerd] =
        greeting.sockets.map(|count| fds.by_ref().take(count).collect());
    Ok(Sockets { outbound, inbound, admin, stats, health, linkerd })
}

/// The parent's side of what a data plane sends: frames that arrive in pieces, of which the last
/// complete one of each kind counts. Buffers have their full size from the start and are wiped, because they hold a key.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    len: Vec<u8>,
    body: Option<Zeroizing<Vec<u8>>>,
    filled: usize,
}

impl Inbox {
    /// Reads what is there without waiting, and puts complete frames into `kept`. `false` once
    /// the data plane has closed its end.
    pub(crate) fn read(&mut self, stream: &UnixStream, kept: &mut Kept) -> io::Result<bool> {
        loop {
            let mut head = [0; 4];
            let room = match &mut self.body {
                Some(body) => &mut body[self.filled..],
                None => &mut head[self.len.len()..],
            };
            let got = match recv(stream.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Ok(false),
                Ok(got) => got,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            self.took(got, &head, kept)?;
        }
    }

    fn took(&mut self, got: usize, head: &[u8; 4], kept: &mut Kept) -> io::Result<()> {
        match &self.body {
            Some(body) => {
                self.filled += got;
                if self.filled == body.len()
                    && let Some(frame) = self.body.take()
                {
                    kept.put(frame)?;
                }
            }
            None => {
                let from = self.len.len();
                self.len.extend_from_slice(&head[from..from + got]);
                if let Ok(len) = <[u8; 4]>::try_from(self.len.as_slice()) {
                    self.len.clear();
                    self.filled = 0;
                    let len = checked_len(len)?;
                    self.body = (len > 0).then(|| Zeroizing::new(vec![0; len]));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_frame(mut stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
        stream.write_all(&frame_len(bytes.len())?)?;
        stream.write_all(bytes)
    }

    fn bound() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn a_data_plane_takes_over_sockets_words_and_credentials() {
        let (parent, child) = UnixStream::pair().unwrap();
        let sockets =
            Sockets { outbound: vec![bound(), bound()], health: vec![bound()], ..Sockets::default() };
        let greeting = Greeting::new(7, 3, "log_level: info\n".to_owned(), &sockets);
        let mut kept = Kept::default();
        for (left, bytes) in [(Left::Credentials, &b"secret"[..]), (Left::Discovery, b"who is where")] {
            kept.put(Zeroizing::new([&[left as u8], bytes].concat())).unwrap();
        }
        greet(&parent, &greeting, &sockets, &kept).unwrap();
        let taken = take_over(&child).unwrap();
        assert_eq!(taken.greeting.parent, 7);
        assert_eq!(taken.greeting.restarts, 3);
        assert_eq!(taken.greeting.config, "log_level: info\n");
        assert_eq!(taken.credentials.unwrap().as_slice(), b"secret");
        assert_eq!(taken.discovery.unwrap().as_slice(), b"who is where");
        let addresses = |listeners: &[TcpListener]| -> Vec<_> {
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
        };
        assert_eq!(addresses(&taken.sockets.outbound), addresses(&sockets.outbound));
        assert_eq!(addresses(&taken.sockets.health), addresses(&sockets.health));
        assert!(taken.sockets.inbound.is_empty());
    }

    #[test]
    fn where_nothing_was_left_there_is_nothing() {
        let (parent, child) = UnixStream::pair().unwrap();
        let sockets = Sockets { inbound: vec![bound()], ..Sockets::default() };
        greet(&parent, &Greeting::new(1, 0, String::new(), &sockets), &sockets, &Kept::default()).unwrap();
        let taken = take_over(&child).unwrap();
        assert!(taken.credentials.is_none() && taken.discovery.is_none());
    }

    #[test]
    fn a_parent_that_is_gone_or_speaks_nonsense_is_an_error() {
        let (parent, child) = UnixStream::pair().unwrap();
        drop(parent);
        assert!(matches!(take_over(&child), Err(HandoverError::Io(_))));
        let (parent, child) = UnixStream::pair().unwrap();
        write_frame(&parent, b"hello").unwrap();
        assert!(matches!(take_over(&child), Err(HandoverError::Greeting(_))));
        let (parent, child) = UnixStream::pair().unwrap();
        let sockets = Sockets { inbound: vec![bound()], ..Sockets::default() };
        let text = serde_json::to_vec(&Greeting::new(1, 0, String::new(), &sockets)).unwrap();
        write_frame(&parent, &text).unwrap();
        for nothing_left in [b"", b""] {
            write_frame(&parent, nothing_left).unwrap();
        }
        assert!(matches!(take_over(&child), Err(HandoverError::Sockets { got: 0, expected: 1 })));
    }

    #[test]
    fn frames_that_come_in_pieces_are_joined_and_the_last_whole_one_of_each_kind_counts() {
        let (parent, child) = UnixStream::pair().unwrap();
        let (mut inbox, mut kept) = (Inbox::default(), Kept::default());
        let mut bytes = Vec::new();
        for frame in [&b"\x01first"[..], b"", b"\x02known", b"\x01second"] {
            bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            bytes.extend_from_slice(frame);
        }
        for byte in &bytes {
            (&child).write_all(&[*byte]).unwrap();
            assert!(inbox.read(&parent, &mut kept).unwrap());
        }
        assert_eq!(kept.of(Left::Credentials).unwrap(), b"second");
        // The third is cut by the data plane's death.
        (&child).write_all(&[0, 0, 0, 9, 1, b't']).unwrap();
        drop(child);
        assert!(!inbox.read(&parent, &mut kept).unwrap());
        assert_eq!(kept.of(Left::Credentials).unwrap(), b"second");
        assert_eq!(kept.of(Left::Discovery).unwrap(), b"known");
    }

    #[test]
    fn what_is_left_arrives_and_another_kind_is_refused() {
        let (parent, child) = UnixStream::pair().unwrap();
        let (mut inbox, mut kept) = (Inbox::default(), Kept::default());
        leave(&child, Left::Discovery, b"known").unwrap();
        assert!(inbox.read(&parent, &mut kept).unwrap());
        assert_eq!(kept.of(Left::Discovery).unwrap(), b"known");
        write_frame(&child, b"\x07what").unwrap();
        let error = inbox.read(&parent, &mut kept).unwrap_err().to_string();
        assert_eq!(error, "frame that begins with Some(7), expected 1 or 2");
    }

    #[test]
    fn a_frame_above_the_bound_is_refused_on_both_sides() {
        let (parent, child) = UnixStream::pair().unwrap();
        assert!(leave(&child, Left::Discovery, &vec![0; MAX_FRAME]).is_err());
        (&child).write_all(&(MAX_FRAME as u32 + 1).to_be_bytes()).unwrap();
        assert!(Inbox::default().read(&parent, &mut Kept::default()).is_err());
    }
}
