//! One line per connection, on stdout.
//!
//! A worker must never wait for whoever reads stdout: lines go through a bounded queue to a thread of
//! their own, and one that finds the queue full is dropped and counted. Which fields a line has, and
//! how they are written, is in `line` alone.

mod line;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use crate::{config::AccessLogFormat, reason::Reason, record::Live};
use line::Line;

/// Lines that may wait for stdout: some seconds of a busy ring, and about 2 MiB.
const QUEUE: usize = 4096;

/// Bytes that are gathered for one write.
const BATCH_BYTES: usize = 64 * 1024;

/// Writes one line per closed connection. A clone writes to the same place.
#[derive(Clone, Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    format: AtomicU8,
    sink: Sink,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Sink {
    Collected(Lines),
    Queue(SyncSender<Message>),
}

enum Message {
    /// Tells when everything before it is written.
    Flush(SyncSender<()>),
    Line(String),
}

/// Lines that were collected instead of written.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Every line so far, without its line end.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl AccessLog {
    /// Starts the thread that writes to stdout.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn new(format: AccessLogFormat) -> io::Result<Self> {
        Self::to_writer(format, io::stdout(), QUEUE)
    }

    /// A log in text whose lines are kept in memory, without bound: for tests and short tools.
    pub fn collecting() -> (Self, Lines) {
        let lines = Lines::default();
        let log = Self::with_sink(AccessLogFormat::Text, Sink::Collected(lines.clone()), Arc::default());
        (log, lines)
    }

    fn to_writer(
        format: AccessLogFormat,
        out: impl Write + Send + 'static,
        queue: usize,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(queue);
        let dropped: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&dropped);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&receiver, out, &counted))?;
        Ok(Self::with_sink(format, Sink::Queue(sender), dropped))
    }

    fn with_sink(format: AccessLogFormat, sink: Sink, dropped: Arc<AtomicU64>) -> Self {
        Self { shared: Arc::new(Shared { format: AtomicU8::new(format_code(format)), sink, dropped }) }
    }

    /// Changes the format of every line from now on.
    pub fn set_format(&self, format: AccessLogFormat) {
        self.shared.format.store(format_code(format), Ordering::Relaxed);
    }

    /// Writes the line of a connection that is closed now. Never waits.
    pub fn write(&self, live: &Live, reason: Reason, error: Option<&str>) {
        let line = match self.format() {
            AccessLogFormat::Json => Line::new(live, reason, error).json(),
            AccessLogFormat::Off => return,
            AccessLogFormat::Text => Line::new(live, reason, error).text(),
        };
        match &self.shared.sink {
            Sink::Collected(lines) => lines.push(line),
            Sink::Queue(sender) => {
                if sender.try_send(Message::Line(line)).is_err() {
                    self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Waits up to `deadline` until every line so far is written; false where that took longer. Call it
    /// before the process ends.
    #[must_use]
    pub fn flush(&self, deadline: Duration) -> bool {
        let Sink::Queue(sender) = &self.shared.sink else { return true };
        let (done, wait) = mpsc::sync_channel(1);
        // A full queue is the very case in which a flush cannot succeed in time.
        match sender.try_send(Message::Flush(done)) {
            Ok(()) => !matches!(wait.recv_timeout(deadline), Err(RecvTimeoutError::Timeout)),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Lines that were dropped because stdout was too slow or closed.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn format(&self) -> AccessLogFormat {
        match self.shared.format.load(Ordering::Relaxed) {
            0 => AccessLogFormat::Text,
            1 => AccessLogFormat::Json,
            _ => AccessLogFormat::Off,
        }
    }
}

const fn format_code(format: AccessLogFormat) -> u8 {
    match format {
        AccessLogFormat::Text => 0,
        AccessLogFormat::Json => 1,
        AccessLogFormat::Off => 2,
    }
}

/// Writes what comes, in as few writes as there are bursts, until the last sender is gone.
fn write_all(receiver: &Receiver<Message>, mut out: impl Write, dropped: &AtomicU64) {
    let mut batch = String::new();
    let mut lines = 0;
    while let Ok(first) = receiver.recv() {
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Flush(done) => flushed.push(done),
                Message::Line(line) => {
                    batch.push_str(&line);
                    batch.push('\n');
                    lines += 1;
                }
            }
            let more = batch.len() < BATCH_BYTES;
            next = if more { receiver.try_recv().ok() } else { None };
        }
        if out.write_all(batch.as_bytes()).and_then(|()| out.flush()).is_err() {
            dropped.fetch_add(lines, Ordering::Relaxed);
        }
        batch.clear();
        lines = 0;
        for done in flushed {
            // Whoever asked may have given up.
            let _ = done.try_send(());
        }
    }
}
