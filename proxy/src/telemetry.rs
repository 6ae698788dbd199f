//! The proxy's own log, on stderr, with a level that changes while it runs.
//!
//! An incident must not need a restart, so the filter can be replaced at any time. Connections are not
//! logged here: each has its line in the access log.

use std::{
    fmt,
    io::{self, IsTerminal as _},
};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, layer::SubscriberExt as _, registry::LookupSpan, reload,
    util::SubscriberInitExt as _,
};

use crate::config::LogFormat;

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
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Sets up the log of this process.
///
/// # Errors
/// [`TelemetryError`] for a bad filter, or where it was set up before.
pub fn init(filter: &str, format: LogFormat) -> Result<Telemetry, TelemetryError> {
    let (telemetry, subscriber) = subscriber(filter, format, io::stderr, io::stderr().is_terminal())?;
    subscriber.try_init()?;
    Ok(telemetry)
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
    Ok((Telemetry { filter: handle }, tracing_subscriber::registry().with(filter).with(lines)))
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
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
