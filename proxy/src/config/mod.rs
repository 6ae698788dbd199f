//! Every setting of the proxy, in one table.
//!
//! A value comes from the environment, else from the file, else from the table's default, and is
//! parsed into the type that the data plane uses; nothing is checked again later. All faults are
//! collected and told at once, each with the key, what was read, what was expected and where. The
//! table also makes `--help` and the reference pages, so they cannot disagree with the code.

mod choice;
mod cli;
mod derived;
pub mod docs;
mod fault;
mod kind;
mod settings;
mod source;
mod yaml;

#[cfg(test)]
mod tests;

use std::{fs, path::Path};

pub use choice::{
    AccessLogFormat, DiscoverySource, IdentitySource, KeyExchange, LogFormat, OutboundOutside, RecordLayer,
};
pub use cli::{Cli, Page};
pub use derived::System;
pub use fault::{ConfigError, Fault, Place};
pub use settings::{Config, Default, SETTINGS, Setting};

use source::Values;

/// Environment variables with this prefix override the file: `RINGMAIL_LOG_LEVEL` sets `log_level`.
pub const ENV_PREFIX: &str = "RINGMAIL_";

/// Settings that were read, with what an operator should know about them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Variables with our prefix that name no setting. Not an error: Kubernetes itself injects
    /// variables that are named after Services.
    pub warnings: Vec<String>,
}

/// Where settings come from; injected, so that a test never touches the process.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// The file's name, for messages only.
    pub file: &'a Path,
    /// The file's text.
    pub text: &'a str,
    /// The environment.
    pub environment: &'a [(String, String)],
    /// The facts of the machine that some defaults are derived from.
    pub system: &'a System,
}

impl Config {
    /// Reads the file, the environment of the process and the facts of the machine.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault at once.
    pub fn load(file: &Path) -> Result<Loaded, ConfigError> {
        let text = fs::read_to_string(file).map_err(|error| {
            Fault::new(Place::File(file.to_owned()), format!("cannot be read: {error}")).alone()
        })?;
        Self::load_text(file, &text)
    }

    /// As [`load`](Self::load), from the file's text as it was read before.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault at once.
    pub fn load_text(file: &Path, text: &str) -> Result<Loaded, ConfigError> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        Self::from_sources(&Sources { file, text, environment: &environment, system: &System::read() })
    }

    /// Settings from YAML text alone, with no environment; `file` is its name for messages.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault at once.
    pub fn from_text(file: &str, text: &str) -> Result<Self, ConfigError> {
        let sources = Sources { file: Path::new(file), text, environment: &[], system: &System::read() };
        Self::from_sources(&sources).map(|loaded| loaded.config)
    }

    /// Settings from the given sources; pure.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault at once.
    pub fn from_sources(sources: &Sources<'_>) -> Result<Loaded, ConfigError> {
        let mut faults = Vec::new();
        let values = Values::collect(sources, &mut faults);
        let config = Self::read(&values, &mut faults);
        if let Some(config) = &config {
            config.check_ports(&values, &mut faults);
        }
        match config {
            Some(config) if faults.is_empty() => Ok(Loaded { config, warnings: values.warnings }),
            Some(_) | None => Err(ConfigError::new(faults)),
        }
    }

    /// Names of settings that differ from `newer` and only take effect after a restart.
    pub fn restart_needed(&self, newer: &Self) -> Vec<&'static str> {
        let changed = |setting: &&Setting| !setting.hot && setting.show(self) != setting.show(newer);
        SETTINGS.iter().filter(changed).map(|setting| setting.name).collect()
    }

    fn check_ports(&self, values: &Values<'_>, faults: &mut Vec<Fault>) {
        let ports = [
            ("outbound_port", self.outbound_port),
            ("inbound_port", self.inbound_port),
            ("admin_port", self.admin_port),
            ("stats_port", self.stats_port),
            ("health_port", self.health_port),
            ("linkerd_admin_port", self.linkerd_admin_port),
        ];
        for (index, (name, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..index].iter().find(|(_, earlier)| earlier == port) {
                let text = format!("{name}: read {port}, expected a port of its own: it is also {other}");
                faults.push(Fault::new(values.place(name), text));
            }
        }
    }
}
