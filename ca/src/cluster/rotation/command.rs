//! `ringmail-ca rotate-root`: the stages as a command, for `kubectl exec` or a host with a kubeconfig.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgMatches, Command};

use super::{RootRotation, RotateError, Stage};
use crate::cluster::{Cluster, ClusterSettings};
use crate::config::parse_duration;

const DEFAULT_SECRET: &str = "ringmail-ca-root";

/// Why the command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The stage was not done.
    #[error(transparent)]
    Rotate(#[from] RotateError),
    /// The arguments are wrong, or ask for help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
}

/// Runs the command; `arguments` begin with its name. The text is for the operator.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<String, CommandError> {
    let flags = command().try_get_matches_from(arguments)?;
    let settings = ClusterSettings {
        kubeconfig: given(&flags, "kubeconfig").map(PathBuf::from),
        namespace: given(&flags, "namespace"),
    };
    let cluster = Cluster::connect(&settings).await.map_err(RotateError::from)?;
    let name = given(&flags, "root-secret").unwrap_or_else(|| DEFAULT_SECRET.to_owned());
    let min_age = flags.get_one::<Duration>("min-age").copied();
    let rotation = RootRotation::new(&cluster, &name);
    Ok(rotation.advance(stage(&flags), min_age, SystemTime::now()).await?)
}

/// A flag, or the variable of the setting of the same name: in the CA's own container it is set already.
fn given(flags: &ArgMatches, name: &str) -> Option<String> {
    let variable = format!("RINGMAIL_CA_{}", name.replace('-', "_").to_ascii_uppercase());
    flags.get_one::<String>(name).cloned().or_else(|| std::env::var(variable).ok())
}

fn stage(flags: &ArgMatches) -> Stage {
    match flags.get_one::<String>("stage").map(String::as_str) {
        Some("trust") => Stage::Trust,
        Some("sign") => Stage::Sign,
        Some("retire") => Stage::Retire,
        Some("undo") => Stage::Undo,
        Some(_) | None => Stage::Status,
    }
}

fn text(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help)
}

fn command() -> Command {
    let duration = |text: &str| {
        parse_duration(text).ok_or_else(|| "expected a duration with its unit: ms, s, m, h or d".to_owned())
    };
    Command::new("ringmail-ca rotate-root")
        .about("Rotates the self-signed root in its Secret, one stage at a time; running CAs follow")
        .arg(
            Arg::new("stage")
                .long("stage")
                .value_parser(["status", "trust", "sign", "retire", "undo"])
                .default_value("status")
                .help("trust: a new root joins the bundle; sign: it signs; retire: the old one leaves; undo: one step back"),
        )
        .arg(text("root-secret", "The root's Secret [default: ringmail-ca-root]"))
        .arg(text("namespace", "Its namespace [default: the own one]"))
        .arg(text("kubeconfig", "How to reach the API server [default: as a pod]"))
        .arg(
            Arg::new("min-age")
                .long("min-age")
                .value_parser(duration)
                .help("How old the last stage must be [default: 12h before sign, 24h before retire]"),
        )
}
