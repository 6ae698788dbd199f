//! The table that is printed: figures, and the bounds that some of them have.

use std::{fmt, time::Duration};

/// One line.
#[derive(Debug)]
struct Row {
    name: String,
    value: String,
    bound: Option<(String, bool)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// A figure that is only told.
    pub(crate) fn tell(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push(Row { name: name.into(), value: value.into(), bound: None });
    }

    /// A figure that has to keep a bound.
    pub(crate) fn bound(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
        (bound, holds): (impl Into<String>, bool),
    ) {
        self.0.push(Row { name: name.into(), value: value.into(), bound: Some((bound.into(), holds)) });
    }

    /// The figures whose bound does not hold, with both.
    pub(crate) fn broken(&self) -> Vec<String> {
        let broken = self.0.iter().filter_map(|row| match &row.bound {
            Some((bound, false)) => Some(format!("{}: {}, expected {bound}", row.name, row.value)),
            Some((_, true)) | None => None,
        });
        broken.collect()
    }

    /// Takes the judgement from a figure whose bound is broken, and says so in its line. It stays where the bound holds.
    pub(crate) fn excuse(&mut self, name: &str, why: &str) {
        for row in self.0.iter_mut().filter(|row| row.name == name) {
            if let Some((bound, false)) = &row.bound {
                row.value = format!("{} (NOT JUDGED: {why}; expected {bound})", row.value);
                row.bound = None;
            }
        }
    }

    /// Adds the lines of another.
    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&Row) -> &str| self.0.iter().map(|row| of(row).len()).max().unwrap_or(0);
        let (names, values) = (width(|row| &row.name), width(|row| &row.value));
        for Row { name, value, bound } in &self.0 {
            write!(f, "{name:<names$}  {value:>values$}")?;
            match bound {
                Some((bound, true)) => writeln!(f, "  holds: {bound}")?,
                Some((bound, false)) => writeln!(f, "  BROKEN: {bound}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

/// So many per cent of `sorted` are no longer than this.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

/// The middle, the end and the last of a spread, as one value.
pub(crate) fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |percent| percentile(&sorted, percent).as_millis();
    format!("p50 {} p99 {} last {} ms", at(50), at(99), at(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_bound_breaks_the_table() {
        let mut table = Table::default();
        table.tell("proxies", "1000");
        table.bound("memory", "75 KB", ("at most 200 KB", true));
        assert!(table.broken().is_empty());
        table.bound("p99", "1200 ms", ("below 1 s", false));
        assert_eq!(table.broken(), ["p99: 1200 ms, expected below 1 s"]);
        let text = "proxies     1000\nmemory     75 KB  holds: at most 200 KB\np99      1200 ms  BROKEN: below 1 s\n";
        assert_eq!(table.to_string(), text);
    }

    #[test]
    fn who_is_excused_is_not_judged_and_says_so() {
        let mut table = Table::default();
        table.bound("p99", "1200 ms", ("below 1 s", false));
        table.bound("rate", "50", ("at least 47", true));
        table.bound("arrivals", "9", ("all 10", false));
        for name in ["p99", "rate"] {
            table.excuse(name, "no cpu");
        }
        assert_eq!(table.broken(), ["arrivals: 9, expected all 10"]);
        let text = table.to_string();
        assert!(text.contains("1200 ms (NOT JUDGED: no cpu; expected below 1 s)"), "{text}");
        assert!(text.contains("holds: at least 47"), "{text}");
    }

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        for (percent, expected) in [(50, 100), (99, 198), (100, 200)] {
            assert_eq!(percentile(&times, percent), Duration::from_millis(expected));
        }
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
