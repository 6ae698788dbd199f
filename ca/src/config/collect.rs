//! The first stage: text from flags, environment and file, each value with its place.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Deserialize;

use super::{SETTINGS, Setting};

const ENV_PREFIX: &str = "RINGMAIL_CA_";
const CONFIG: &str = "config";

/// Text of every setting and where it came from.
#[derive(Debug, Default)]
pub struct Collected {
    values: BTreeMap<&'static str, (String, Vec<String>)>,
    faults: Vec<String>,
    warnings: Vec<String>,
}

/// A value in the file; numbers and switches need no quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    One(Scalar),
    Many(Vec<Scalar>),
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(value) => value,
        }
    }
}

impl Collected {
    /// The values of a setting; of one that does not repeat, the last counts.
    pub(super) fn values(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], |(_, values)| values)
    }

    /// Where its value came from.
    pub(super) fn place(&self, name: &str) -> &str {
        self.values.get(name).map_or("default", |(place, _)| place)
    }

    pub(super) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Things worth a line in the log that are no faults.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The first place that names a setting wins.
    fn offer(&mut self, setting: &Setting, place: String, values: Vec<String>) {
        if !values.is_empty() {
            self.values.entry(setting.name).or_insert((place, values));
        }
    }

    fn add_flags(&mut self, flags: &ArgMatches) {
        for setting in SETTINGS {
            let values = flags.get_many::<String>(setting.name).map(|v| v.cloned().collect());
            self.offer(setting, format!("flag --{}", setting.name), values.unwrap_or_default());
        }
    }

    /// An unknown variable is only worth a warning: Kubernetes makes variables of its own from the
    /// names of Services, and one of them may begin like ours.
    fn add_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (name, value) in environment.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)) {
            match SETTINGS.iter().find(|setting| variable(setting) == *name) {
                Some(setting) => {
                    self.offer(setting, name.clone(), split(setting, value));
                }
                None => self.warnings.push(format!("{name}: no such setting")),
            }
        }
    }

    fn add_file(&mut self, path: &str) {
        let entries: BTreeMap<String, Entry> = match read_file(path) {
            Ok(entries) => entries,
            Err(fault) => return self.faults.push(fault),
        };
        for (key, entry) in entries {
            let values = match entry {
                Entry::One(value) => vec![value.text()],
                Entry::Many(values) => values.into_iter().map(Scalar::text).collect(),
            };
            match SETTINGS.iter().find(|setting| setting.name.replace('-', "_") == key) {
                Some(setting) if values.len() > 1 && !setting.repeats => {
                    self.faults.push(format!("{key} ({path}): expected one value, got {}", values.len()));
                }
                Some(setting) => self.offer(setting, path.to_owned(), values),
                None => self.faults.push(format!("{key} ({path}): no such setting")),
            }
        }
    }
}

/// Collects from `arguments` (the program's name first), `environment` and the file either names.
pub fn collect(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &BTreeMap<String, String>,
) -> Result<Collected, clap::Error> {
    let flags = command().try_get_matches_from(arguments)?;
    let mut collected = Collected::default();
    collected.add_flags(&flags);
    collected.add_environment(environment);
    let file = flags.get_one::<String>(CONFIG).cloned();
    if let Some(path) = file.or_else(|| environment.get("RINGMAIL_CA_CONFIG").cloned()) {
        collected.add_file(&path);
    }
    collected.warnings.retain(|warning| !warning.starts_with("RINGMAIL_CA_CONFIG:"));
    for setting in SETTINGS {
        let values = setting.default.map(|text| split(setting, text));
        collected.offer(setting, "default".to_owned(), values.unwrap_or_default());
    }
    Ok(collected)
}

/// Several values in one text are separated by commas.
fn split(setting: &Setting, text: &str) -> Vec<String> {
    if setting.repeats {
        text.split(',').map(|v| v.trim().to_owned()).collect()
    } else {
        vec![text.to_owned()]
    }
}

fn command() -> Command {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .help("YAML file of settings: the names below with underscores [env: RINGMAIL_CA_CONFIG]");
    Command::new("ringmail-ca")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Issues SPIFFE certificates to the workloads of a mesh")
        .after_help(
            "`ringmail-ca rotate-root --help` is about rotating a self-signed root that lives in a Secret.",
        )
        .arg(config)
        .args(SETTINGS.iter().map(argument))
}

fn argument(setting: &Setting) -> Arg {
    let default = setting.default.map(|text| format!(" [default: {text}]")).unwrap_or_default();
    let help = format!("{}{default} [env: {}]", setting.help, variable(setting));
    let argument = Arg::new(setting.name).long(setting.name).help(help);
    if setting.switch {
        argument.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("true|false")
    } else if setting.repeats {
        argument.action(ArgAction::Append).value_name(setting.value)
    } else {
        argument.value_name(setting.value)
    }
}

fn variable(setting: &Setting) -> String {
    format!("{ENV_PREFIX}{}", setting.name.replace('-', "_").to_ascii_uppercase())
}

fn read_file(path: &str) -> Result<BTreeMap<String, Entry>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    serde_saphyr::from_str(&text).map_err(|e| format!("{path}: expected a mapping of settings: {e}"))
}
