//! One line per step: what is done, how it came out, how long it took.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::table::Tone;
use crate::{output, units};

/// Where the outcome of a step begins on its line.
const OUTCOME_COLUMN: usize = 44;

/// The steps so far.
pub(super) struct Progress {
    done: usize,
    steps: usize,
    colour: bool,
}

/// What a step gives and what is told of it.
pub(super) type Outcome<T> = Result<(T, String)>;

impl Progress {
    /// Before the first of so many steps.
    pub(super) fn new(steps: usize) -> Self {
        Self { done: 0, steps, colour: output::colour() }
    }

    /// A line above the next steps.
    pub(super) fn title(&self, text: &str) -> Result<()> {
        output::print(&format!("\n{}\n", Tone::Quiet.paint(text, self.colour)))
    }

    /// Does one step; an error names it.
    pub(super) fn step<T>(&mut self, what: &str, work: impl FnOnce() -> Outcome<T>) -> Result<T> {
        self.done += 1;
        output::print(&format!("[{:>2}/{}] {what:<OUTCOME_COLUMN$} ", self.done, self.steps))?;
        let begin = Instant::now();
        match work() {
            Ok((value, outcome)) => {
                let took = Tone::Quiet.paint(&units::time(begin.elapsed()), self.colour);
                output::print(&format!("{} {took}\n", Tone::Good.paint(&outcome, self.colour)))?;
                Ok(value)
            }
            Err(error) => {
                output::print(&format!("{}\n", Tone::Bad.paint("does not hold", self.colour)))?;
                Err(error).with_context(|| format!("step {}, {what}", self.done))
            }
        }
    }

    /// After the last one.
    pub(super) fn finish(&self) -> Result<()> {
        ensure!(self.done == self.steps, "{} of {} steps were done", self.done, self.steps);
        Ok(())
    }
}
