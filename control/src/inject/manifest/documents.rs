//! A stream of YAML documents, split by its lines alone, so that what is not touched keeps every byte.

/// A part of the stream; all parts together are the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// What a parser reads.
    Document(&'a str),
    /// A line between two documents.
    Marker(&'a str),
}

impl<'a> Piece<'a> {
    pub(super) fn text(&self) -> &'a str {
        match self {
            Self::Document(text) | Self::Marker(text) => text,
        }
    }
}

/// A marker stands at the beginning of a line, even inside of a block of text.
pub(super) fn split(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut begun, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if let Some(length) = marker(line) {
            if begun < at {
                pieces.push(Piece::Document(&text[begun..at]));
            }
            pieces.push(Piece::Marker(&text[at..at + length]));
            begun = at + length;
        }
        at += line.len();
    }
    if begun < text.len() {
        pieces.push(Piece::Document(&text[begun..]));
    }
    pieces
}

/// How much of the line is a marker: all of it, unless the document begins behind it.
fn marker(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    if !rest.is_empty() && !rest.starts_with([' ', '\t', '\n', '\r']) {
        return None;
    }
    let content = rest.trim_start();
    Some(if content.is_empty() || content.starts_with('#') { line.len() } else { 3 })
}
