//! The file as words, lists of words and mappings of words.
//!
//! A word is taken as it is written: `off` is no boolean and `1.10` no number here, since what a value
//! means is for its setting to say.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::source::Raw;

/// One setting of the file.
pub(super) struct Entry {
    pub(super) key: String,
    /// Counted from 1.
    pub(super) line: u64,
    /// As an error, what was found where only a word can be.
    pub(super) value: Result<Raw, Raw>,
}

/// Every entry of a file, in its order; an empty file has none.
///
/// # Errors
/// What the YAML parser says; also for a key that is there twice.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, serde_saphyr::Error> {
    let options = serde_saphyr::options! { with_snippet: false };
    let Entries(entries) =
        serde_saphyr::from_str_with_options::<Option<Entries>>(text, options)?.unwrap_or_default();
    let entry = |(key, value): (Spanned<String>, Spanned<Node>)| Entry {
        key: key.value,
        line: key.referenced.line(),
        value: raw(value, text),
    };
    Ok(entries.into_iter().map(entry).collect())
}

/// A node as the parser resolves it.
enum Node {
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<Self>, Spanned<Self>)>),
    Nothing,
    /// A boolean or a number to YAML; its text is looked up.
    Resolved(String),
    Text(String),
}

fn raw(node: Spanned<Node>, text: &str) -> Result<Raw, Raw> {
    let Spanned { value, defined, .. } = node;
    match value {
        Node::List(items) => {
            Ok(Raw::List(items.into_iter().map(|item| word(item, text)).collect::<Result<_, _>>()?))
        }
        Node::Map(entries) => {
            let entry = |(key, value)| Ok((word(key, text)?, word(value, text)?));
            Ok(Raw::Map(entries.into_iter().map(entry).collect::<Result<_, _>>()?))
        }
        Node::Nothing => Ok(Raw::Nothing),
        Node::Resolved(resolved) => {
            let span = defined.span();
            let written = span.byte_offset().zip(span.byte_len()).and_then(|(start, len)| {
                let start = usize::try_from(start).ok()?;
                text.get(start..start.checked_add(usize::try_from(len).ok()?)?)
            });
            Ok(Raw::Scalar(written.map_or(resolved, |written| written.trim().to_owned())))
        }
        Node::Text(text) => Ok(Raw::Scalar(text)),
    }
}

fn word(node: Spanned<Node>, text: &str) -> Result<String, Raw> {
    match raw(node, text)? {
        Raw::Scalar(word) => Ok(word),
        nested @ (Raw::List(_) | Raw::Map(_) | Raw::Nothing) => Err(nested),
    }
}

#[derive(Default)]
struct Entries(Vec<(Spanned<String>, Spanned<Node>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one `name: value` per setting")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word, a list of words or a mapping of words")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Resolved(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Resolved(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Resolved(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Resolved(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Resolved(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Resolved(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
