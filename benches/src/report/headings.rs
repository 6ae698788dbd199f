//! Groups of figures: the headings of the page, and which figures belong under each.

use crate::results::{Figure, Results};

/// What short groups are called on a page; others are called as they are.
const HEADINGS: [(&str, &str); 7] = [
    ("bulk", "Bulk"),
    ("conn", "New connections"),
    ("memory", "Memory"),
    ("resumption", "What resumption would save"),
    ("rr", "Requests and responses"),
    ("size", "Size"),
    ("syscalls", "System calls"),
];

/// The heading of a group.
pub(super) fn heading(group: &str) -> &str {
    HEADINGS.iter().find(|(name, _)| *name == group).map_or(group, |(_, heading)| heading)
}

/// One group with its figures, in the order in which they were measured.
pub(super) struct Group<'a> {
    pub(super) heading: &'a str,
    pub(super) figures: Vec<&'a Figure>,
}

impl Group<'_> {
    /// The file of its plot.
    pub(super) fn file(&self) -> String {
        let letters =
            self.heading.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { ' ' });
        let words = letters.collect::<String>().to_lowercase();
        format!("{}.svg", words.split_whitespace().collect::<Vec<_>>().join("-"))
    }
}

/// The groups in the order in which they first come.
pub(super) fn groups(results: &Results) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for figure in &results.figures {
        let heading = heading(&figure.group);
        match groups.iter_mut().find(|group| group.heading == heading) {
            Some(group) => group.figures.push(figure),
            None => groups.push(Group { heading, figures: vec![figure] }),
        }
    }
    groups
}
