//! The answer as a person reads it: the two ends, the decisions in order, the outcome.

use crate::table::{Align, Cell, Table, Tone};

use super::explanation::{Explanation, Leg, Outcome, Step};
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

/// How many endpoints a line names: more than a line holds helps nobody.
const NAMES_SHOWN: usize = 5;

pub(super) fn render(explanation: &Explanation, colour: bool) -> String {
    let mut ends = Table::new(&[("", Align::Left); 5]);
    ends.row(end_row("from", &explanation.from));
    ends.row(end_row("to", &explanation.to));
    let mut text = format!("{}\n", ends.render(colour));
    let mut steps =
        Table::new(&[("STEP", Align::Left), ("DECISION", Align::Left), ("DECIDED BY", Align::Left)]);
    add_steps(&mut steps, &explanation.steps);
    if explanation.endpoints.is_empty() {
        text.push_str(&steps.render(colour));
    } else {
        let groups = alike(&explanation.endpoints);
        // One way for all reads as one connection.
        if let [group] = &groups[..]
            && let Some(first) = group.first()
        {
            add_steps(&mut steps, &first.steps);
            text.push_str(&steps.render(colour));
            text.push_str(&format!("\nthe same for {}\n", names(group)));
        } else {
            text.push_str(&steps.render(colour));
            groups.iter().for_each(|group| text.push_str(&render_group(group, colour)));
        }
    }
    text.push_str(&outcome(explanation, colour));
    for (title, lines) in [
        ("not honoured as written", &explanation.notes),
        ("as if these had been applied", &explanation.supposing),
        ("could not be seen", &explanation.unseen),
    ] {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}:\n"));
            lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    }
    text
}

fn outcome(of: &Explanation, colour: bool) -> String {
    let (text, tone) = of.outcome.text();
    let alike = of.endpoints.iter().filter(|leg| leg.outcome == of.outcome).count();
    let share = match of.endpoints.len() {
        all if all == alike => String::new(),
        all => format!(" at {alike} of {all} endpoints"),
    };
    format!("\n{}\n", tone.paint(&format!("{text}{share}"), colour))
}

fn add_steps(table: &mut Table, steps: &[Step]) {
    for step in steps {
        let tone = if step.goes_on { Tone::Plain } else { Tone::Bad };
        table.row([step.step.into(), Cell::new(&*step.decision, tone), (&*step.decided_by).into()]);
    }
}

/// Endpoints for which the same is decided, by the same resources or by that they are there.
fn alike(legs: &[Leg]) -> Vec<Vec<&Leg>> {
    let mut groups: Vec<Vec<&Leg>> = Vec::new();
    let same = |a: &Leg, b: &Leg| {
        let own = |leg: &Leg, by: &str| if by == leg.to.known_by { String::new() } else { by.to_owned() };
        let key = |leg: &Leg| -> Vec<(String, String)> {
            leg.steps.iter().map(|step| (step.decision.clone(), own(leg, &step.decided_by))).collect()
        };
        key(a) == key(b)
    };
    for leg in legs {
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| same(first, leg))) {
            Some(group) => group.push(leg),
            None => groups.push(vec![leg]),
        }
    }
    groups
}

fn render_group(group: &[&Leg], colour: bool) -> String {
    let Some(first) = group.first() else { return String::new() };
    let mut steps = Table::new(&[("", Align::Left); 4]);
    for step in &first.steps {
        let tone = if step.goes_on { Tone::Plain } else { Tone::Bad };
        let decision = Cell::new(&*step.decision, tone);
        steps.row([" ".into(), step.step.into(), decision, (&*step.decided_by).into()]);
    }
    let (outcome, tone) = first.outcome.text();
    format!("\n{}: {}\n{}", names(group), tone.paint(outcome, colour), steps.render(colour))
}

fn names(group: &[&Leg]) -> String {
    let name = |leg: &&Leg| {
        let address = leg.to.socket();
        leg.to.name.as_ref().map_or_else(|| address.to_string(), |name| format!("{name} {address}"))
    };
    let mut names: Vec<_> = group.iter().take(NAMES_SHOWN).map(name).collect();
    if group.len() > NAMES_SHOWN {
        names.push(format!("{} more", group.len() - NAMES_SHOWN));
    }
    names.join(", ")
}

fn end_row(title: &'static str, end: &End) -> [Cell; 5] {
    let address = match end.port {
        Some(port) => std::net::SocketAddr::new(end.address, port).to_string(),
        None => end.address.to_string(),
    };
    let unknown = || Cell::new("unknown", Tone::Quiet);
    let sidecar = match () {
        () if end.sidecar => Cell::from("sidecar"),
        () if end.known_by.starts_with("Service ") => Cell::new("Service", Tone::Quiet),
        () => Cell::new("no sidecar", Tone::Quiet),
    };
    [
        Cell::new(title, Tone::Quiet),
        address.into(),
        end.name.as_deref().map_or_else(unknown, Cell::from),
        sidecar,
        end.identity.as_deref().map_or_else(Cell::default, Cell::from),
    ]
}
