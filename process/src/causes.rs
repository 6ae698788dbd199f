//! Why a program ends, in one line: an error with its causes, each said once. Many errors have their cause in their own words, so that
//! they are whole wherever they are shown; printed as a chain, it would stand there twice.

use std::error::Error;

/// The texts of an error and its causes (`anyhow::Error::chain`), with a colon between them, but for those that the text before
/// them has already said.
pub fn each_once<'a>(chain: impl IntoIterator<Item = &'a (dyn Error + 'static)>) -> String {
    let mut line = String::new();
    for cause in chain {
        let text = cause.to_string();
        if line.is_empty() {
            line = text;
        } else if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Step {
        text: &'static str,
        source: io::Error,
    }

    fn said(text: &'static str) -> String {
        let error = anyhow::Error::new(Step { text, source: io::Error::other("no room") }).context("begin");
        each_once(error.chain())
    }

    #[test]
    fn a_cause_is_said_once_whether_or_not_the_error_says_it_itself() {
        assert_eq!(said("write the key"), "begin: write the key: no room");
        assert_eq!(said("write the key: no room"), "begin: write the key: no room");
    }
}
