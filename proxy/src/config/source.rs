//! Settings as they are written: from the file, overridden by the environment, not yet parsed.

use std::{collections::BTreeMap, fmt, path::Path};

use super::{
    ENV_PREFIX, Sources, System,
    fault::{Fault, Place},
    settings::{Default, SETTINGS, Setting},
    yaml,
};

/// A name that takes more edits than this to become a setting's was not meant to be it.
const MAX_EDITS_OF_A_TYPO: usize = 3;

/// A value as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    List(Vec<String>),
    Map(Vec<(String, String)>),
    Nothing,
    Scalar(String),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(items) => write!(f, "the list [{}]", items.join(", ")),
            Self::Map(_) => f.write_str("a mapping"),
            Self::Nothing => f.write_str("nothing"),
            Self::Scalar(text) => write!(f, "{text:?}"),
        }
    }
}

/// How the text of an environment variable becomes a [`Raw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `a,b`
    List,
    /// `k=v,k=v`
    Map,
    /// As it is.
    Scalar,
}

impl Shape {
    pub(super) fn of_text(self, text: &str) -> Raw {
        let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
        match self {
            Self::List => Raw::List(items().map(str::to_owned).collect()),
            Self::Map => Raw::Map(
                items()
                    .map(|item| item.split_once('=').unwrap_or((item, "")))
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            ),
            Self::Scalar => Raw::Scalar(text.to_owned()),
        }
    }
}

/// Every value that was given, by the setting's name.
pub(super) struct Values<'a> {
    given: BTreeMap<&'static str, (Place, Raw)>,
    pub(super) system: &'a System,
    pub(super) warnings: Vec<String>,
}

impl<'a> Values<'a> {
    pub(super) fn collect(sources: &Sources<'a>, faults: &mut Vec<Fault>) -> Self {
        let mut values = Self { given: BTreeMap::new(), system: sources.system, warnings: Vec::new() };
        values.read_file(sources.file, sources.text, faults);
        values.read_environment(sources.environment);
        values
    }

    /// The value of a setting: given, or its default; `None` where another setting that the default
    /// depends on is at fault.
    pub(super) fn effective(&self, name: &str) -> Option<Raw> {
        if let Some((_, raw)) = self.given.get(name) {
            return Some(raw.clone());
        }
        let setting = SETTINGS.iter().find(|setting| setting.name == name)?;
        match setting.default {
            Default::Derived { from, .. } => from.0(self),
            Default::Text(text) => Some(setting.shape.of_text(text)),
        }
    }

    /// Where the value of a setting came from.
    pub(super) fn place(&self, name: &str) -> Place {
        self.given.get(name).map_or(Place::Default, |(place, _)| place.clone())
    }

    fn read_file(&mut self, file: &Path, text: &str, faults: &mut Vec<Fault>) {
        let entries = match yaml::entries(text) {
            Ok(entries) => entries,
            Err(error) => {
                let text = format!("expected a mapping of settings: {error}");
                faults.push(Fault::new(Place::File(file.to_owned()), text));
                return;
            }
        };
        for yaml::Entry { key, line, value } in entries {
            let place = Place::Line(file.to_owned(), line);
            match (setting_named(&key), value) {
                (Some(setting), Ok(value)) => {
                    self.given.insert(setting.name, (place, value));
                }
                (Some(_), Err(nested)) => {
                    let text = format!("{key}: read {nested} inside a list or mapping, expected a word");
                    faults.push(Fault::new(place, text));
                }
                (None, _) => faults.push(Fault::new(place, unknown(&key, "setting"))),
            }
        }
    }

    fn read_environment(&mut self, environment: &[(String, String)]) {
        for (variable, text) in environment {
            let Some(name) = variable.strip_prefix(ENV_PREFIX) else { continue };
            match SETTINGS.iter().find(|setting| setting.name.to_ascii_uppercase() == name) {
                Some(setting) => {
                    let place = Place::Environment(variable.clone());
                    self.given.insert(setting.name, (place, setting.shape.of_text(text)));
                }
                None => {
                    let text = unknown(&name.to_ascii_lowercase(), "setting, ignored");
                    self.warnings.push(format!("environment {variable}: {text}"));
                }
            }
        }
        self.warnings.sort_unstable();
    }
}

fn setting_named(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn unknown(name: &str, what: &str) -> String {
    let nearest = SETTINGS
        .iter()
        .map(|setting| (edits(name, setting.name), setting.name))
        .min()
        .filter(|(distance, _)| *distance <= MAX_EDITS_OF_A_TYPO);
    match nearest {
        Some((_, nearest)) => format!("{name}: unknown {what}; did you mean {nearest}?"),
        None => format!("{name}: unknown {what}; --help lists all of them"),
    }
}

/// How many letters must be added, removed or changed to get from one word to the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
