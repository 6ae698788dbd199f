//! YAML, read as `kubectl` reads it and written so that nobody reads it otherwise.
//!
//! The Kubernetes tools follow YAML 1.1, where `0644` is octal and `no` is false; most others follow 1.2. What is
//! written is quoted wherever the two could differ.

use serde_json::Value;

/// Words that mean something else than themselves to one version or the other.
const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];

/// Reads one document; an empty one is null.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let is_empty = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if is_empty {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    // The reader speaks of its own types, to a person who has left out a key.
    let in_words = |fault: String| {
        fault.replace(
            "cannot deserialize null into string; use Option<String>",
            "a key is empty, expected text",
        )
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| in_words(error.to_string()))
}

/// The document, with a line break at its end.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out
}

/// A value that begins on a line of its own, or behind `- ` that ends at `indent`.
fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (place, (key, value)) in map.iter().enumerate() {
                if place > 0 {
                    pad(out, indent);
                }
                out.push_str(&scalar(key));
                out.push(':');
                entry(out, value, indent);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (place, value) in list.iter().enumerate() {
                if place > 0 {
                    pad(out, indent);
                }
                out.push_str("- ");
                block(out, value, indent + 2);
            }
        }
        Value::String(text) if is_literal(text) => literal(out, text, indent),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            out.push_str(&inline(value));
            out.push('\n');
        }
    }
}

/// What follows `key:`.
fn entry(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            pad(out, indent + 2);
            block(out, value, indent + 2);
        }
        // Lists stand below their key, as kubectl writes them.
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            pad(out, indent);
            block(out, value, indent);
        }
        Value::String(text) if is_literal(text) => {
            out.push(' ');
            literal(out, text, indent + 2);
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            out.push(' ');
            out.push_str(&inline(value));
            out.push('\n');
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// Plain where it can only be this text, else as in JSON.
fn scalar(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(is_safe)
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { quoted(text) }
}

/// JSON's escapes are YAML's; what JSON leaves as it is and YAML does not take is escaped as well.
fn quoted(text: &str) -> String {
    let json = Value::String(text.to_owned()).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        let code = u32::from(c);
        match code {
            0x7f..=0x9f | 0x2028 | 0x2029 | 0xfeff | 0xfffe..=0xffff => {
                out.push_str(&format!("\\u{code:04x}"));
            }
            _ => out.push(c),
        }
    }
    out
}

/// Text of several plain lines reads best as such.
fn is_literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let is_line = |line: &str| {
        line.chars().all(|c| c == ' ' || c.is_ascii_graphic()) && !line.ends_with(' ') && !line.is_empty()
    };
    body.contains('\n') && body.lines().all(is_line) && !text.ends_with("\n\n") && !text.starts_with(' ')
}

fn literal(out: &mut String, text: &str, indent: usize) {
    out.push_str(if text.ends_with('\n') { "|\n" } else { "|-\n" });
    // At the top a block needs an indentation as well.
    let indent = indent.max(2);
    for line in text.lines() {
        pad(out, indent);
        out.push_str(line);
        out.push('\n');
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}
