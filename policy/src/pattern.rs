//! The string matches of an AuthorizationPolicy: exact, `prefix*`, `*suffix` and presence (`*`); and the
//! one of namespaces, where a `*` may stand anywhere.

/// One value of a string field. A `*` anywhere but at one end is an ordinary character.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Pattern {
    text: Box<str>,
    form: Form,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
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

    /// A value of the form `form`, whatever characters `literal` has.
    pub(crate) fn of(form: Form, literal: &str) -> Self {
        let text = match form {
            Form::Exact => literal.to_owned(),
            Form::Prefix => format!("{literal}*"),
            Form::Presence => "*".to_owned(),
            Form::Suffix => format!("*{literal}"),
        };
        Self { text: text.into(), form }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn form(&self) -> Form {
        self.form
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

/// A namespace in which every `*` stands for any text, the empty one included, as in a sidecar of Istio.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Glob(Box<str>);

impl Glob {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return value == &*self.0 };
        let (inner, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(value) = value.strip_prefix(first).and_then(|value| value.strip_suffix(last)) else {
            return false;
        };
        // Each part is taken where it comes first, which leaves the most room for those after it.
        let unmatched = inner
            .split('*')
            .try_fold(value, |value, part| value.find(part).and_then(|at| value.get(at + part.len()..)));
        unmatched.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Glob, Pattern};

    /// Matching by trying every length of text for each `*`.
    fn naive_glob(text: &str, value: &str) -> bool {
        match text.chars().next() {
            None => value.is_empty(),
            Some('*') => (0..=value.len()).any(|from| naive_glob(&text[1..], &value[from..])),
            Some(first) => value.strip_prefix(first).is_some_and(|rest| naive_glob(&text[1..], rest)),
        }
    }

    /// Matching by putting every part of the value in place of the `*`.
    fn naive(text: &str, value: &str) -> bool {
        let ends = 0..=value.len();
        let mut parts = ends.clone().flat_map(|to| (0..=to).map(move |from| &value[from..to]));
        match text {
            "*" => !value.is_empty(),
            _ => parts.any(|part| text.replace('*', part) == value),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_a_naive_matcher_does(
            (text, value) in ("\\*?[ab/]{0,4}", "[ab/]{0,6}").prop_flat_map(|(text, value)| {
                let end = if text.starts_with('*') { "" } else { "\\*?" };
                (end.prop_map(move |end| format!("{text}{end}")), Just(value))
            }),
        ) {
            prop_assert_eq!(Pattern::new(&text).matches(&value), naive(&text, &value), "{} on {}", text, value);
        }

        #[test]
        fn a_glob_matches_as_a_naive_matcher_does(text in "[ab*]{0,6}", value in "[ab]{0,7}") {
            prop_assert_eq!(Glob::new(&text).matches(&value), naive_glob(&text, &value), "{} on {}", text, value);
        }

        #[test]
        fn a_star_in_the_middle_is_an_ordinary_character(value in "[ab*]{0,5}") {
            prop_assert_eq!(Pattern::new("a*b").matches(&value), value == "a*b");
        }
    }
}
