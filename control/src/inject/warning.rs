//! What the injector could not honour, in words for whoever applied the pod.

use std::fmt;

use super::decide::Source;

/// What `kubectl` is shown of one warning; the API server cuts longer ones.
pub const MAX_WARNING_CHARACTERS: usize = 256;

/// How much of a user's own value a warning repeats, so that what was expected still fits.
const MAX_VALUE_CHARACTERS: usize = 60;

/// Something of the pod's that does not mean here what it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The annotation or field it is about.
    pub subject: String,
    text: String,
}

impl Warning {
    /// About an annotation: its value, what was expected of it, and what holds instead.
    pub(super) fn annotation(name: &str, value: &str, expected: &str, instead: &str) -> Self {
        let value = cut(value, MAX_VALUE_CHARACTERS);
        Self { subject: name.to_owned(), text: format!("{name}: {value:?}: expected {expected}; {instead}") }
    }

    /// About a word on whether there is to be a sidecar: where it stands, and the rest as above.
    pub(super) fn word(source: &Source, value: &str, expected: &str, instead: &str) -> Self {
        let value = cut(value, MAX_VALUE_CHARACTERS);
        Self::field(source.to_string(), format!("{value:?}: expected {expected}; {instead}"))
    }

    /// About anything else: what is so, and what follows.
    pub(super) fn field(subject: impl Into<String>, text: impl fmt::Display) -> Self {
        let subject = subject.into();
        Self { text: format!("{subject}: {text}"), subject }
    }
}

/// At most [`MAX_WARNING_CHARACTERS`] characters, of one line.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        f.write_str(&cut(&line, MAX_WARNING_CHARACTERS))
    }
}

/// The text, with an ellipsis for what goes beyond `limit` characters.
pub(super) fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{kept}…")
}
