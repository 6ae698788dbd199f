//! Every frame between the pods, each once: taken where it enters the bridge.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::streams::{Conversation, reassemble};
use crate::netns::panic_again;
use crate::network::Network;

/// A veth carries segments that are not yet cut to packets: up to 64 KiB, more where jumbo offload is on.
const LARGEST_FRAME: usize = 512 << 10;

/// What the kernel holds while the reader waits for a core; a full second of a busy ring.
const SOCKET_BUFFER: usize = 256 << 20;

/// A capture lives in memory; beyond this the machine would swap and the ring under test would notice.
const MOST_BYTES: usize = 2 << 30;

/// How often the reader looks whether it should end.
const WAKE: Duration = Duration::from_millis(100);

/// The kernel's mark of a frame on its way out (`PACKET_OUTGOING`): it was seen when it came in.
const OUTGOING: u8 = 4;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When it was read, since the Unix epoch.
    pub at: Duration,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// How long a capture that was asked to end still reads. A network under load is never silent, so the end cannot wait for that;
/// what was sent before is in the socket by then.
const CATCH_UP: Duration = Duration::from_secs(1);

/// A capture that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<Result<Vec<Frame>>>>,
}

impl Capture {
    /// Listens on the ports of the network's bridge; frames from this moment on are seen.
    pub fn start(network: &Network) -> Result<Self> {
        let pods = network.pods().len();
        let (socket, ports) = network.switch().enter(|| -> Result<_> {
            let ports: Vec<usize> = (1..=pods)
                .map(|number| Ok(usize::try_from(if_nametoindex(format!("port{number}").as_str())?)?))
                .collect::<Result<_>>()
                .context("look up the ports of the bridge")?;
            Ok((open().context("open a packet socket")?, ports))
        })??;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let reader = thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || read_frames(&socket, &ports, &asked))?;
        Ok(Self { stop, reader: Some(reader) })
    }

    /// Ends it and returns what was seen.
    pub fn finish(mut self) -> Result<Captured> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(reader) = self.reader.take() else {
            bail!("the capture was finished before");
        };
        let frames = reader.join().unwrap_or_else(|panic| panic_again(&*panic))?;
        Ok(Captured { frames })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // Nobody waits for what it saw.
            let _ = reader.join();
        }
    }
}

/// What a capture saw.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    frames: Vec<Frame>,
}

impl Captured {
    /// The frames in the order they were seen.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The TCP connections among them.
    pub fn conversations(&self) -> Vec<Conversation> {
        reassemble(self.frames.iter().map(|frame| frame.bytes.as_slice()))
    }

    /// Writes a pcap file (version 2.4, microseconds, Ethernet), for a closer look with other tools.
    pub fn write_pcap(&self, path: &Path) -> Result<()> {
        const LARGEST: u32 = 0x0004_0000;
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut out = BufWriter::new(file);
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, LARGEST, 1] {
            out.write_all(&word.to_le_bytes())?;
        }
        for frame in &self.frames {
            let length = u32::try_from(frame.bytes.len())?;
            let seconds = u32::try_from(frame.at.as_secs())?;
            for word in [seconds, frame.at.subsec_micros(), length, length] {
                out.write_all(&word.to_le_bytes())?;
            }
            out.write_all(&frame.bytes)?;
        }
        out.flush().with_context(|| format!("write {}", path.display()))
    }
}

fn open() -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
    let wake = TimeVal::milliseconds(i64::try_from(WAKE.as_millis())?);
    setsockopt(&socket, sockopt::ReceiveTimeout, &wake)?;
    Ok(socket)
}

fn read_frames(socket: &OwnedFd, ports: &[usize], stop: &AtomicBool) -> Result<Vec<Frame>> {
    let mut frames = Vec::new();
    let mut total = 0;
    let mut buffer = vec![0; LARGEST_FRAME];
    let mut end = None;
    loop {
        // Read before the packet is waited for: what was sent before the end was asked for is in the socket by then.
        let last = stop.load(Ordering::Relaxed);
        if last && *end.get_or_insert_with(|| Instant::now() + CATCH_UP) <= Instant::now() {
            return Ok(frames);
        }
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) if from.pkttype() != OUTGOING && ports.contains(&from.ifindex()) => {
                total += length;
                if total > MOST_BYTES {
                    bail!("the capture has grown beyond {MOST_BYTES} bytes");
                }
                let at = SystemTime::now().duration_since(UNIX_EPOCH)?;
                frames.push(Frame { at, bytes: buffer[..length].to_vec() });
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if last => return Ok(frames),
            Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error).context("read from the packet socket"),
        }
    }
}
