//! The proxy's own log, on stderr, with a level that changes while it runs.
//!
//! An incident must not need a restart, so the filter can be replaced at any time. Nor may whoever reads
//! stderr hold up the proxy: what it does not take is dropped and counted, and a storm is a few lines and a sum.
//! Connections are not logged here: each has its line in the access log.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt,
    io::{self, IsTerminal as _, Write},
    panic,
    sync::OnceLock,
    thread,
    time::Duration,
};

use ringmail_process::log::{self, Pacing};
use tracing::Subscriber;
use tracing_subscriber::{
    Layer as _, Registry, filter::Targets, layer::SubscriberExt as _, registry::LookupSpan, reload,
    util::SubscriberInitExt as _,
};

use crate::{
    config::LogFormat,
    line_queue::{LineQueue, Room},
};

/// Lines may wait for stderr for some seconds of an incident. Each is a write of its own, so that those of the
/// parent and of the data plane, which share stderr, stay whole.
const ROOM: Room = Room { lines: 4096, batch: 1 };

/// How long stderr may take for the last lines.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// This process's way to stderr.
static STDERR: OnceLock<LineQueue> = OnceLock::new();

/// Why the log is not as the settings say.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The text is no filter.
    #[error("log filter {filter:?}: {source}")]
    Filter {
        /// What was read.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// No thread can be started for the log.
    #[error("log: {0}")]
    Thread(io::Error),
    /// The log of this process was set up before.
    #[error("log is set up already: {0}")]
    Init(#[from] tracing_subscriber::util::TryInitError),
    /// The log that the handle belongs to is gone.
    #[error("log level: {0}")]
    Reload(#[from] reload::Error),
}

/// Changes the level of a running log.
#[derive(Clone)]
pub struct Telemetry {
    filter: reload::Handle<Targets, Registry>,
}

/// Sets up the log of this process; panics go there as well.
///
/// # Errors
/// [`TelemetryError`] for a bad filter, or where it was set up before.
pub fn init(filter: &str, format: LogFormat) -> Result<Telemetry, TelemetryError> {
    let queue = stderr().map_err(TelemetryError::Thread)?;
    let out = move || Line(queue);
    let (telemetry, subscriber) = subscriber(filter, format, out, io::stderr().is_terminal())?;
    subscriber.try_init()?;
    panic::set_hook(Box::new(|info| {
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
        let thread = thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(thread, backtrace = backtrace.map(tracing::field::display), "{info}");
    }));
    Ok(telemetry)
}

/// Writes `last_words` to stderr and waits a bounded time for them and every line of the log. Call it before the
/// process ends.
pub fn end(last_words: Option<&str>) {
    log::tell_rest();
    match (stderr(), last_words) {
        (Ok(queue), words) => {
            if let Some(words) = words {
                queue.push(format!("{words}\n"));
            }
            let _ = queue.flush(FLUSH_WAIT);
        }
        // Where no thread is to be had for the log, this one writes: it has nothing else left to do.
        (Err(_), Some(words)) => drop(writeln!(io::stderr(), "{words}")),
        (Err(_), None) => {}
    }
}

/// Lines that were dropped because stderr was too slow or closed.
pub fn dropped() -> u64 {
    STDERR.get().map_or(0, LineQueue::dropped)
}

fn stderr() -> io::Result<&'static LineQueue> {
    if STDERR.get().is_none() {
        let queue = LineQueue::start("log", io::stderr(), ROOM, |lines| {
            tracing::warn!(lines, "lines of the log were dropped: stderr is read too slowly");
        })?;
        // Where another was quicker, its thread serves and this one ends.
        let _ = STDERR.set(queue);
    }
    STDERR.get().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// One line on its way to stderr: the subscriber writes each with one call.
struct Line(&'static LineQueue);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Telemetry {
    /// Applies a new filter to everything that is logged from now on.
    ///
    /// # Errors
    /// [`TelemetryError`]; the filter then stays what it was.
    pub fn set_level(&self, filter: &str) -> Result<(), TelemetryError> {
        Ok(self.filter.reload(parse(filter)?)?)
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

fn subscriber<W>(
    filter: &str,
    format: LogFormat,
    out: W,
    colour: bool,
) -> Result<(Telemetry, impl Subscriber + for<'a> LookupSpan<'a>), TelemetryError>
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(out).with_ansi(colour);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    Ok((
        Telemetry { filter: handle },
        tracing_subscriber::registry().with(filter).with(Pacing::default()).with(lines),
    ))
}

fn parse(filter: &str) -> Result<Targets, TelemetryError> {
    let chosen: Targets =
        filter.parse().map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    // Whatever is written, what is left out of it is told.
    Ok(chosen.with_target(log::TARGET, tracing::Level::WARN))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn capture(format: LogFormat, run: impl FnOnce(&Telemetry)) -> String {
        let captured = Captured::default();
        let out = captured.clone();
        let (telemetry, subscriber) = subscriber("info", format, move || out.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || run(&telemetry));
        captured.text()
    }

    #[test]
    fn a_new_level_holds_from_the_next_line_on() {
        let text = capture(LogFormat::Text, |telemetry| {
            tracing::debug!("unseen");
            telemetry.set_level("debug").unwrap();
            tracing::debug!("seen");
            telemetry.set_level("error").unwrap();
            tracing::info!("unheard");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("seen") && !text.contains("unseen"), "{text}");
    }

    #[test]
    fn a_bad_level_is_named_and_the_old_one_stays() {
        let text = capture(LogFormat::Text, |telemetry| {
            let error = telemetry.set_level("ringmail_proxy=loud").unwrap_err().to_string();
            assert!(error.starts_with("log filter \"ringmail_proxy=loud\": "), "{error}");
            tracing::info!("still here");
        });
        assert!(text.contains("still here"), "{text}");
    }

    #[test]
    fn json_is_one_object_per_line_and_a_line_break_in_a_value_stays_inside() {
        let text = capture(LogFormat::Json, |_| tracing::info!(peer = "a\nb", "hello"));
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&line["message"], &line["peer"]), (&"hello".into(), &"a\nb".into()));
        assert_eq!(text.lines().count(), 1);
    }
}
