//! One line per connection, on stdout.
//!
//! A worker must never wait for whoever reads stdout: lines go through a queue that drops and counts what
//! stdout does not take. Connections that ended in order have a line each, however many they are. Of those that
//! failed a storm has few, and a line that sums up the others by direction and reason. Which fields a line has, and how
//! they are written, is in `line` alone.

mod line;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use ringmail_process::pace::{Pace, Paced};

use crate::{
    config::AccessLogFormat,
    line_queue::{LineQueue, Room},
    reason::Reason,
    record::Live,
};
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
    out: Arc<Out>,
    /// Of the lines of connections that failed. Without it, all are written.
    faults: Option<Arc<Paced>>,
}

/// The way to whoever reads.
#[derive(Debug)]
struct Out {
    format: AtomicU8,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Collected(Lines),
    Queue(LineQueue),
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
        let out = Out::new(AccessLogFormat::Text, Sink::Collected(lines.clone()));
        (Self { shared: Arc::new(Shared { out: Arc::new(out), faults: None }) }, lines)
    }

    fn to_writer(
        format: AccessLogFormat,
        out: impl Write + Send + 'static,
        queue: usize,
    ) -> io::Result<Self> {
        let room = Room { lines: queue, batch: BATCH_BYTES };
        let queue = LineQueue::start("access-log", out, room, |lines| {
            tracing::warn!(lines, "lines of the access log were dropped: stdout is read too slowly");
        })?;
        let out = Arc::new(Out::new(format, Sink::Queue(queue)));
        let told_to = Arc::clone(&out);
        let faults = Paced::new(Pace::default(), Box::new(move |sum| told_to.write(|| Line::left_out(sum))));
        Ok(Self { shared: Arc::new(Shared { out, faults: Some(faults) }) })
    }

    /// Changes the format of every line from now on.
    pub fn set_format(&self, format: AccessLogFormat) {
        self.shared.out.format.store(format_code(format), Ordering::Relaxed);
    }

    /// Writes the line of a connection that is closed now. Never waits.
    pub fn write(&self, live: &Live, reason: Reason, error: Option<&str>) {
        let Shared { out, faults } = &*self.shared;
        if out.format() == AccessLogFormat::Off {
            return;
        }
        let kind = || format!("{} {}", live.direction.as_str(), reason.as_str());
        match faults {
            Some(faults) if reason.is_fault() && !faults.admits(&kind()) => {}
            Some(_) | None => out.write(|| Line::new(live, reason, error)),
        }
    }

    /// Waits up to `deadline` until every line so far is written; false where that took longer. Call it
    /// before the process ends.
    #[must_use]
    pub fn flush(&self, deadline: Duration) -> bool {
        if let Some(faults) = &self.shared.faults {
            faults.tell_rest();
        }
        match &self.shared.out.sink {
            Sink::Collected(_) => true,
            Sink::Queue(queue) => queue.flush(deadline),
        }
    }

    /// Lines that were dropped because stdout was too slow or closed.
    pub fn dropped(&self) -> u64 {
        match &self.shared.out.sink {
            Sink::Collected(_) => 0,
            Sink::Queue(queue) => queue.dropped(),
        }
    }

    /// Lines of connections that failed that were summed up instead of written.
    pub fn left_out(&self) -> u64 {
        self.shared.faults.as_ref().map_or(0, |faults| faults.left_out())
    }
}

impl Out {
    fn new(format: AccessLogFormat, sink: Sink) -> Self {
        Self { format: AtomicU8::new(format_code(format)), sink }
    }

    fn write(&self, line: impl FnOnce() -> Line) {
        let line = match self.format() {
            AccessLogFormat::Json => line().json(),
            AccessLogFormat::Off => return,
            AccessLogFormat::Text => line().text(),
        };
        match &self.sink {
            Sink::Collected(lines) => lines.push(line),
            Sink::Queue(queue) => queue.push(line + "\n"),
        }
    }

    fn format(&self) -> AccessLogFormat {
        match self.format.load(Ordering::Relaxed) {
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
