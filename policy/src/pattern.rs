//! The four string matches of an AuthorizationPolicy: exact, `prefix*`, `*suffix` and presence (`*`).

/// One value of a string field. A `*` anywhere but at one end is an ordinary character.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Pattern {
    text: Box<str>,
    form: Form,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Exact,
    Prefix,
    Presence,
    Suffix,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        let form = if text == "*" {
            Form::Presence
        } else if text.starts_with('*') {
            Form::Suffix
        } else if text.ends_with('*') {
            Form::Prefix
        } else {
            Form::Exact
        };
        Self { text: text.into(), form }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_suffix(&self) -> bool {
        self.form == Form::Suffix
    }

    /// The part of the text that stands for itself.
    pub(crate) fn literal(&self) -> &str {
        match self.form {
            Form::Exact => &self.text,
            Form::Prefix => self.text.strip_suffix('*').unwrap_or(&self.text),
            Form::Presence => "",
            Form::Suffix => self.text.strip_prefix('*').unwrap_or(&self.text),
        }
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        match self.form {
            Form::Exact => value == self.literal(),
            Form::Prefix => value.starts_with(self.literal()),
            Form::Presence => !value.is_empty(),
            Form::Suffix => value.ends_with(self.literal()),
        }
    }
}
