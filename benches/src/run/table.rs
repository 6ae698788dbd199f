//! The results on a terminal: medians, and Ringmail's ratio to each candidate.

use std::fmt::Write;

use super::statistics::{Ratio, median};
use crate::candidates::Candidate;
use crate::results::{Figure, Results};

/// Every figure by candidate, then what is missing.
pub(super) fn table(results: &Results) -> String {
    let mut text = String::new();
    for figure in &results.figures {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{} [{}] {}", figure.title, figure.unit, figure.id);
        for candidate in Candidate::ALL {
            text += &line(figure, candidate.name());
        }
    }
    for (what, reason) in &results.missing {
        let _ = writeln!(text, "\nmissing {what}: {reason}");
    }
    text
}

fn line(figure: &Figure, name: &str) -> String {
    let Some(samples) = figure.samples.get(name) else { return String::new() };
    let known: Vec<_> = samples.iter().copied().flatten().collect();
    let Some(middle) = median(&known) else { return String::new() };
    let mut text = format!("  {name:<18} {:>12}", number(middle));
    let ringmail = Candidate::Ringmail.name();
    if let Some(ratio) =
        figure.samples.get(ringmail).filter(|_| name != ringmail).and_then(|own| Ratio::of(own, samples))
    {
        let _ = write!(text, "   ringmail x {:.2} ({:.2} to {:.2})", ratio.median, ratio.lower, ratio.upper);
    }
    text + "\n"
}

/// Four digits that say something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::results::{Better, SCHEMA};

    #[test]
    fn a_table_shows_medians_and_ratios_and_what_is_missing() {
        let samples = [("plain", vec![Some(10.0), Some(20.0)]), ("ringmail", vec![Some(5.0), Some(10.0)])];
        let results = Results {
            schema: SCHEMA,
            began: String::new(),
            took_s: 0,
            machine: BTreeMap::new(),
            versions: BTreeMap::new(),
            commands: BTreeMap::new(),
            figures: vec![Figure {
                id: "bulk-up-1-rate".into(),
                group: "bulk".into(),
                title: "throughput".into(),
                unit: "Gbit/s".into(),
                better: Better::Higher,
                samples: samples.map(|(name, samples)| (name.to_owned(), samples)).into(),
            }],
            missing: [("envoy".to_owned(), "no envoy".to_owned())].into(),
        };
        let text = table(&results);
        assert!(text.contains("plain                     15.00   ringmail x 0.50 (0.50 to 0.50)"), "{text}");
        assert!(text.contains("missing envoy: no envoy"), "{text}");
    }
}
