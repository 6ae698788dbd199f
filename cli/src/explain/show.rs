//! The answer as a person reads it: the two ends, the decisions in order, the outcome.

use crate::table::{Align, Cell, Table, Tone};

use super::decide::{Explanation, Outcome};
use super::party::End;

impl Outcome {
    const fn text(self) -> (&'static str, Tone) {
        match self {
            Self::Local => ("served inside the pod, no sidecar sees it", Tone::Plain),
            Self::MutualTls => ("served over mutual TLS", Tone::Good),
            Self::Plaintext => ("served in plaintext", Tone::Bad),
            Self::Refused => ("refused", Tone::Bad),
        }
    }
}

pub(super) fn render(explanation: &Explanation, colour: bool) -> String {
    let mut ends = Table::new(&[("", Align::Left); 5]);
    for (title, end) in [("from", &explanation.from), ("to", &explanation.to)] {
        ends.row(end_row(title, end));
    }
    let mut steps =
        Table::new(&[("STEP", Align::Left), ("DECISION", Align::Left), ("DECIDED BY", Align::Left)]);
    for step in &explanation.steps {
        let tone = if step.goes_on { Tone::Plain } else { Tone::Bad };
        steps.row([step.step.into(), Cell::new(&*step.decision, tone), (&*step.decided_by).into()]);
    }
    let (outcome, tone) = explanation.outcome.text();
    let mut text = format!("{}\n{}\n", ends.render(colour), steps.render(colour));
    text.push_str(&tone.paint(outcome, colour));
    text.push('\n');
    if !explanation.notes.is_empty() {
        text.push_str("\nnot honoured as written:\n");
        for note in &explanation.notes {
            text.push_str(&format!("  {note}\n"));
        }
    }
    text
}

fn end_row(title: &'static str, end: &End) -> [Cell; 5] {
    let address = match end.port {
        Some(port) => std::net::SocketAddr::new(end.address, port).to_string(),
        None => end.address.to_string(),
    };
    let unknown = || Cell::new("unknown", Tone::Quiet);
    let sidecar = if end.sidecar { Cell::from("sidecar") } else { Cell::new("no sidecar", Tone::Quiet) };
    [
        Cell::new(title, Tone::Quiet),
        address.into(),
        end.name.as_deref().map_or_else(unknown, Cell::from),
        sidecar,
        end.identity.as_deref().map_or_else(Cell::default, Cell::from),
    ]
}
