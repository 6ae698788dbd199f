//! One line per step: what is done, how it came out, how long it took.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::table::Tone;
use crate::{output, units};

/// Where the time of a step stands on its line, right-aligned in a few columns more.
const TIME_COLUMN: usize = 42;
const TIME_WIDTH: usize = 6;

/// An outcome that would make a longer line gets one of its own, indented.
const LINE_WIDTH: usize = 110;
const INDENT: usize = 8;

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
        output::print(&format!("[{:>2}/{}] {what:<TIME_COLUMN$} ", self.done, self.steps))?;
        let begin = Instant::now();
        match work() {
            Ok((value, outcome)) => {
                output::print(&self.ended(&units::time(begin.elapsed()), &outcome))?;
                Ok(value)
            }
            Err(error) => {
                output::print(&format!("{}\n", Tone::Bad.paint("does not hold", self.colour)))?;
                Err(error).with_context(|| format!("step {}, {what}", self.done))
            }
        }
    }

    fn ended(&self, took: &str, outcome: &str) -> String {
        let before = INDENT + TIME_COLUMN + 1 + TIME_WIDTH + 2;
        let fits = before + outcome.chars().count() <= LINE_WIDTH;
        let between = if fits { "  ".to_owned() } else { format!("\n{:INDENT$}", "") };
        let took = Tone::Quiet.paint(&format!("{took:>TIME_WIDTH$}"), self.colour);
        format!("{took}{between}{}\n", Tone::Good.paint(outcome, self.colour))
    }

    /// After the last one.
    pub(super) fn finish(&self) -> Result<()> {
        ensure!(self.done == self.steps, "{} of {} steps were done", self.done, self.steps);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_outcome_stays_on_the_line_and_a_long_one_gets_its_own() {
        let progress = Progress { done: 1, steps: 2, colour: false };
        assert_eq!(progress.ended("1.5s", "done"), "  1.5s  done\n");
        let long = "x".repeat(LINE_WIDTH);
        assert_eq!(progress.ended("1.5s", &long), format!("  1.5s\n        {long}\n"));
    }

    #[test]
    fn a_step_that_fails_is_named_and_a_missing_one_is_noticed() {
        let mut progress = Progress { done: 0, steps: 2, colour: false };
        let error = progress.step::<()>("fly", || anyhow::bail!("no wings")).unwrap_err();
        assert_eq!(format!("{error:#}"), "step 1, fly: no wings");
        assert_eq!(progress.finish().unwrap_err().to_string(), "1 of 2 steps were done");
    }
}
