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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Pattern;

    /// Matching by trying every split of the value at each `*` that stands for any text.
    fn naive(pattern: &[char], value: &[char], stars: bool) -> bool {
        match pattern.split_first() {
            None => value.is_empty(),
            Some(('*', rest)) if stars => (0..=value.len()).any(|skip| naive(rest, &value[skip..], false)),
            Some((first, rest)) => {
                // Only a last `*` is left to stand for any text.
                if *first == '*' && rest.is_empty() {
                    return true;
                }
                value.first() == Some(first) && naive(rest, &value[1..], false)
            }
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
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            // `*` alone asks for a value that is not empty.
            let expected = naive(&chars(&text), &chars(&value), true) && !(text == "*" && value.is_empty());
            prop_assert_eq!(Pattern::new(&text).matches(&value), expected, "{} on {}", text, value);
        }

        #[test]
        fn a_star_in_the_middle_is_an_ordinary_character(value in "[ab*]{0,5}") {
            prop_assert_eq!(Pattern::new("a*b").matches(&value), value == "a*b");
        }
    }
}
