//! Why a data plane did not start, or ended.

use std::{borrow::Cow, io, path::PathBuf};

use nix::unistd::Pid;
use ringmail_identity::IdError;

use crate::{admin, cgroup, config::ConfigError, parent::HandoverError, telemetry::TelemetryError};

/// Why the data plane did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DataPlaneError {
    /// The admin endpoints cannot be served.
    #[error(transparent)]
    Admin(#[from] admin::ServeError),
    /// The settings are at fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration file cannot be read.
    #[error("{path}: {cause}", path = path.display())]
    ConfigFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A part that runs for ever ended.
    #[error("{0} ended")]
    Ended(Cow<'static, str>),
    /// The parent's handover failed.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The settings name no identity.
    #[error(transparent)]
    Identity(#[from] IdError),
    /// The parent died before the data plane could tell.
    #[error("the parent process {expected} is gone: process {got} is in its place")]
    Orphan {
        /// Who said it was the parent.
        expected: i32,
        /// Who is.
        got: Pid,
    },
    /// The system refused something.
    #[error("{what}: {cause}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        cause: io::Error,
    },
    /// The log cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

impl DataPlaneError {
    /// What the process exits with: the settings' faults have a code of their own.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::ConfigFile { .. } | Self::Identity(_) => ConfigError::EXIT_CODE,
            Self::Admin(_)
            | Self::Ended(_)
            | Self::Handover(_)
            | Self::Orphan { .. }
            | Self::System { .. }
            | Self::Telemetry(_) => 1,
        }
    }
}

pub(super) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> DataPlaneError {
    move |error| DataPlaneError::System { what, cause: cgroup::explain(error.into()) }
}
