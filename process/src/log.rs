//! The pace of what is logged by `tracing`.
//!
//! The first lines of a program, its start, are written as they come, and so is all of `debug` and `trace`: whoever switches
//! these on looks for something and wants every line. What is an information, a warning or an error goes by its pace, told apart
//! by its reason, or by its text where it has none. Records that somebody relies on being complete, such as the lines of issued
//! certificates, are not lines of a storm and pass.

use std::{
    fmt::{self, Write as _},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    dispatcher::WeakDispatch,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::pace::{LeftOut, Pace, Paced};

/// Target of the lines that tell what was left out. They pass whatever the pace is.
pub const TARGET: &str = "left_out";

/// Lines of a program's start, which are bounded by what they are about and would otherwise be taken for a storm.
const START: usize = 64;

/// Longer texts are cut, where they tell kinds apart: an error may quote what somebody sent.
const MAX_KIND: usize = 100;

/// Of all logs of this process.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// The pace of this process's log, once it is set up.
static LOG: OnceLock<Arc<Paced>> = OnceLock::new();

/// Tells what is left to tell of the log. Call it before the process ends.
pub fn tell_rest() {
    if let Some(paced) = LOG.get() {
        paced.tell_rest();
    }
}

/// Lines of the log that were not written because there were too many in their second.
pub fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// The layer that keeps the pace. Add it after those that decide by level.
#[derive(Debug)]
pub struct Pacing {
    paced: Arc<Paced>,
    dispatch: Arc<OnceLock<WeakDispatch>>,
    is_record: fn(&Metadata<'_>) -> bool,
}

impl Default for Pacing {
    fn default() -> Self {
        let dispatch: Arc<OnceLock<WeakDispatch>> = Arc::default();
        let told_by = Arc::clone(&dispatch);
        let paced = Paced::new(
            Pace::with_opening(START),
            Box::new(move |sum| {
                if let Some(dispatch) = told_by.get().and_then(WeakDispatch::upgrade) {
                    tracing::dispatcher::with_default(&dispatch, || tell(sum));
                }
            }),
        );
        Self { paced, dispatch, is_record: |_| false }
    }
}

impl Pacing {
    /// The same, with lines that are records and always written.
    #[must_use]
    pub fn with_records(self, is_record: fn(&Metadata<'_>) -> bool) -> Self {
        Self { is_record, ..self }
    }
}

fn tell(sum: &LeftOut) {
    tracing::warn!(target: TARGET, lines = sum.lines(), kinds = %sum, "more lines like those of the last second");
}

impl<S: Subscriber> Layer<S> for Pacing {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _ = self.dispatch.set(dispatch.downgrade());
        let _ = LOG.set(Arc::clone(&self.paced));
    }

    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == TARGET || (self.is_record)(metadata) {
            return true;
        }
        let admitted = self.paced.admits(&Kind::of(event));
        if !admitted {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }
}

/// Tells events apart.
#[derive(Default)]
struct Kind {
    reason: Option<String>,
    message: String,
}

impl Kind {
    fn of(event: &Event<'_>) -> String {
        let mut kind = Self::default();
        event.record(&mut kind);
        let mut text = kind.reason.unwrap_or(kind.message);
        text.truncate(text.floor_char_boundary(MAX_KIND));
        text
    }
}

impl Visit for Kind {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "reason" {
            self.reason = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::Mutex,
        time::{Duration, Instant},
    };

    use tracing_subscriber::layer::SubscriberExt as _;

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
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(str::to_owned).collect()
        }

        fn with(&self, part: &str) -> Vec<String> {
            self.lines().into_iter().filter(|line| line.contains(part)).collect()
        }
    }

    /// Logs with the pace, and waits for the sum.
    fn storm(run: impl FnOnce()) -> Captured {
        let captured = Captured::default();
        let out = captured.clone();
        let pacing = Pacing::default().with_records(|metadata| metadata.fields().field("serial").is_some());
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || out.clone());
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(pacing).with(lines));
        tracing::dispatcher::with_default(&dispatch, run);
        let start = Instant::now();
        while captured.with(TARGET).is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", captured.lines());
            std::thread::sleep(Duration::from_millis(20));
        }
        captured
    }

    #[test]
    fn a_storm_is_a_few_lines_and_a_sum_and_what_is_looked_for_or_relied_on_is_whole() {
        let captured = storm(|| {
            for index in 0..1_000 {
                tracing::warn!(index, "accept failed");
                tracing::info!(reason = "token_expired", "refused");
                tracing::info!(serial = index, "issued");
                tracing::debug!("looked for");
            }
        });
        assert_eq!(captured.with("issued").len(), 1_000);
        assert_eq!(captured.with("looked for").len(), 1_000);
        let faults = captured.with("accept failed").len() + captured.with("refused").len();
        // A machine that stops in between begins another second.
        assert!((START + 6..START + 60).contains(&faults), "{faults}");
        let sum = &captured.with(TARGET)[0];
        assert!(sum.contains("accept failed=") && sum.contains("token_expired="), "{sum}");
    }
}
