//! Lines on their way to whoever reads them, who may be slow or stuck.
//!
//! Nobody who has something to say may wait for a full pipe: lines go through a bounded queue to a thread of
//! their own, and one that finds the queue full is dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, SigmaskHow};
// Its room is taken line by line, where the standard library's takes all of it at the start.
use tokio::sync::mpsc::{
    self, Receiver, Sender,
    error::{TryRecvError, TrySendError},
};

use crate::cgroup;

/// How much there may be at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Lines that may wait.
    pub(crate) lines: usize,
    /// Bytes that are gathered for one write, as whole lines. With 1, each line is a write of its own.
    pub(crate) batch: usize,
}

/// The way to one reader. A clone leads to the same one.
#[derive(Clone, Debug)]
pub(crate) struct LineQueue {
    sender: Sender<Message>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    /// Tells when everything before it is written.
    Flush(SyncSender<()>),
    /// A line with its end.
    Line(String),
}

/// Called with the number of lines that were dropped, once the reader has caught up again.
pub(crate) type TellDropped = fn(u64);

impl LineQueue {
    /// Starts a thread called `name` that writes to `out`.
    pub(crate) fn start(
        name: &str,
        out: impl Write + Send + 'static,
        room: Room,
        tell_dropped: TellDropped,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(room.lines);
        let dropped: Arc<AtomicU64> = Arc::default();
        let mut writer =
            Writer { receiver, out, batch: room.batch, dropped: Arc::clone(&dropped), told: 0, tell_dropped };
        // The thread that begins here must not be the one that a signal finds: others wait for those.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || writer.run());
        before.thread_set_mask()?;
        started.map_err(cgroup::explain)?;
        Ok(Self { sender, dropped })
    }

    /// Sends a line on its way, with its end. Never waits.
    pub(crate) fn push(&self, line: String) {
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits up to `deadline` until every line so far is written; false where that took longer.
    pub(crate) fn flush(&self, deadline: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        // A full queue is the very case in which a flush cannot succeed in time.
        match self.sender.try_send(Message::Flush(done)) {
            Ok(()) => !matches!(wait.recv_timeout(deadline), Err(RecvTimeoutError::Timeout)),
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => false,
        }
    }

    /// Lines that were dropped because the reader was too slow or gone.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

struct Writer<W> {
    receiver: Receiver<Message>,
    out: W,
    batch: usize,
    dropped: Arc<AtomicU64>,
    told: u64,
    tell_dropped: TellDropped,
}

impl<W: Write> Writer<W> {
    /// Writes what comes, in as few writes as there are bursts, until the last sender is gone.
    fn run(&mut self) {
        let mut is_read = false;
        loop {
            let first = match self.receiver.try_recv() {
                Ok(first) => Some(first),
                Err(TryRecvError::Empty) => {
                    if is_read {
                        self.tell_dropped();
                    }
                    self.receiver.blocking_recv()
                }
                Err(TryRecvError::Disconnected) => None,
            };
            let Some(first) = first else { return };
            is_read = self.write(first);
        }
    }

    /// Writes `first` and what follows it at once; answers whether it was taken.
    fn write(&mut self, first: Message) -> bool {
        let (mut batch, mut lines, mut flushed) = (String::new(), 0, Vec::new());
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Flush(done) => flushed.push(done),
                Message::Line(line) => {
                    batch.push_str(&line);
                    lines += 1;
                }
            }
            let more = batch.len() < self.batch;
            next = if more { self.receiver.try_recv().ok() } else { None };
        }
        let written = self.out.write_all(batch.as_bytes()).and_then(|()| self.out.flush());
        if written.is_err() {
            self.dropped.fetch_add(lines, Ordering::Relaxed);
        }
        for done in flushed {
            // Whoever asked may have given up.
            let _ = done.try_send(());
        }
        written.is_ok()
    }

    fn tell_dropped(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > self.told {
            (self.tell_dropped)(dropped - self.told);
            self.told = dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, PipeWriter, Read},
        sync::Mutex,
        time::{Duration, Instant},
    };

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    const LINES: usize = 100;
    const ROOM: Room = Room { lines: LINES, batch: 1 };
    const LINE: &str =
        "a line of the log, as long as lines are, of which a pipe takes some hundreds at most\n";

    /// Writes lines until none fits any more, and says how many that were.
    fn fill(pipe: &mut PipeWriter) -> u64 {
        fcntl(&*pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut lines = 0;
        loop {
            match pipe.write(LINE.as_bytes()) {
                Ok(written) => assert_eq!(written, LINE.len(), "so short a write is whole or not at all"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
            lines += 1;
        }
        fcntl(&*pipe, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        lines
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_was_dropped_is_told_later() {
        static TOLD: Mutex<u64> = Mutex::new(0);
        let (mut reader, mut writer) = io::pipe().unwrap();
        // Full at once: a thread that waits for a core might else never fill it.
        let before = fill(&mut writer);
        let queue = LineQueue::start("test", writer, ROOM, |lines| *TOLD.lock().unwrap() += lines).unwrap();
        let start = Instant::now();
        let pushed = 20_000;
        for _ in 0..pushed {
            queue.push(LINE.to_owned());
        }
        assert!(!queue.flush(Duration::from_millis(10)), "a full pipe was written to");
        assert!(start.elapsed() < Duration::from_secs(5));
        let dropped = queue.dropped();
        assert!(dropped > 1000, "{dropped}");
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        while !queue.flush(Duration::from_secs(5)) {
            assert!(start.elapsed() < Duration::from_secs(20));
        }
        // The thread has nothing left to do but this.
        while *TOLD.lock().unwrap() != dropped {
            assert!(start.elapsed() < Duration::from_secs(20));
            thread::yield_now();
        }
        drop(queue);
        let text = reading.join().unwrap();
        assert_eq!(text.lines().count() as u64, before + pushed - dropped);
        assert!(text.split_inclusive('\n').all(|line| line == LINE));
    }

    #[test]
    fn the_thread_takes_no_signal() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = LineQueue::start("no-signals", writer, ROOM, |_| {}).unwrap();
        let blocked = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let read = |task: std::path::PathBuf| std::fs::read_to_string(task.join("status")).ok();
            let statuses = tasks.filter_map(|task| read(task.unwrap().path()));
            let own = statuses.into_iter().find(|status| status.starts_with("Name:\tno-signals\n"))?;
            let mask = own.lines().find_map(|line| line.strip_prefix("SigBlk:\t"))?.to_owned();
            Some(u64::from_str_radix(&mask, 16).unwrap())
        };
        let start = Instant::now();
        let mask = loop {
            match blocked() {
                Some(mask) => break mask,
                None => assert!(start.elapsed() < Duration::from_secs(5)),
            }
        };
        for signal in [nix::sys::signal::SIGTERM, nix::sys::signal::SIGINT, nix::sys::signal::SIGCHLD] {
            assert_ne!(mask & (1 << (signal as i32 - 1)), 0, "{signal}");
        }
        drop((queue, reader));
    }
}
